"""Find the Linux kernel in a stopped target: :func:`open_kernel`.

Without a cache: find the base, read the read-only data until the symbol table is whole,
decode it, read BTF, write the cache. With one: find the base, compare the cache's
witnesses, load. Modules are read each time, because they change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from probekit.errors import SymbolError, TargetError, UnsupportedError
from probekit.kernel import disk_cache, kallsyms
from probekit.kernel.address_space import KernelAddressSpace
from probekit.kernel.image_base import KernelImage, find_banner, find_kernel_image, idt_bases
from probekit.kernel.kallsyms import KallsymsLayout, RawSymbols
from probekit.kernel.kernel import Kernel, KernelBuild
from probekit.kernel.memory import PAGE_SIZE, KernelMemory, MemoryCopy
from probekit.kernel.metadata import MetadataLocations, locate_by_search, locate_by_symbols, parse_build_id
from probekit.kernel.page_tables import PhysicalMemory
from probekit.kernel.symbols import SymbolTable
from probekit.kernel.wait_for_kernel_mode import has_kernel_tables, wait_for_kernel_mode
from probekit.target.api import Target

__all__ = ("open_kernel",)

Progress = Callable[[str], None]

_GROW = 8 << 20
_MAX_BANNER = 512
_TOKEN_TABLE_WITNESS = 512
_EFER_LMA = 1 << 10  # long mode is active


def open_kernel(
    target: Target,
    *,
    symbols_file: str | Path | None = None,
    cache: bool = True,
    progress: Progress | None = None,
) -> Kernel:
    """Find the Linux kernel in a stopped target.

    ``symbols_file``: a vmlinux, System.map or saved /proc/kallsyms to read symbols from; ``cache``: use and write the
    cache on disk; ``progress``: is called with a line of text before each long step.
    Raises :class:`SymbolError`, which says what does not fit.
    """
    say = progress or _silent
    say("finding the kernel")
    _check_long_mode(target)
    idts = idt_bases(_registers(target))
    if not isinstance(target, PhysicalMemory) and idts:
        states = [target.regs(vcpu) for vcpu in target.vcpus()]
        if all(regs.values.get("cr3", 0) & PAGE_SIZE for regs in states) and not any(map(has_kernel_tables, states)):
            say("waiting for a vCPU to enter the kernel")
            wait_for_kernel_mode(target, idts)
    address_space = KernelAddressSpace(target)
    memory = KernelMemory(address_space)
    image = find_kernel_image(memory, idts=idts)
    entry = disk_cache.find_entry(memory, image.base) if cache and symbols_file is None else None
    if entry is not None:
        build = KernelBuild(image, entry.symbols, entry.btf, entry.witnesses, entry.btf_index, from_cache=True)
    elif symbols_file is not None:
        build = _build_from_file(memory, image, Path(symbols_file), say)
    else:
        build = _build_from_memory(memory, image, say)
    kernel = Kernel(target=target, address_space=address_space, build=build)
    if cache and entry is None and symbols_file is None:
        key = kernel.build_id or _fingerprint(build)
        index = kernel.btf.index if kernel.btf is not None else None
        found = disk_cache.CacheEntry(key, build.witnesses, build.symbols, build.btf, index)
        disk_cache.store_entry(found, image.base)
    return kernel


def _silent(_: str) -> None:
    """Show no progress."""


def _check_long_mode(target: Target) -> None:
    """Raise :class:`SymbolError` when no vCPU runs 64-bit code, as in firmware and boot loaders."""
    states = [target.regs(vcpu).values for vcpu in target.vcpus()]
    known = [values["efer"] for values in states if "efer" in values]
    if known and not any(efer & _EFER_LMA for efer in known):
        raise SymbolError(
            "no vCPU is in 64-bit mode: the guest is still in its firmware or boot loader",
            hint="let it boot Linux and attach again",
        )


def _registers(target: Target) -> str:
    """Return the monitor's register dump; empty where the stub has no monitor."""
    try:
        return target.monitor("info registers -a")
    except (UnsupportedError, TargetError):
        return ""


def _build_from_memory(memory: KernelMemory, image: KernelImage, say: Progress) -> KernelBuild:
    """Read symbols and types from guest memory."""
    say("reading the symbol table from guest memory")
    copy, layout, symbols = _find_kallsyms(memory, image)
    table = SymbolTable(symbols)
    say("reading types (BTF) from guest memory")
    locations = locate_by_symbols(table)
    if locations.banner is None:
        # Without data symbols: search for the same things by their form.
        for start, end in image.scan_order():
            locations = locations.or_else(locate_by_search(memory.copy(start, end)))
    btf = b""
    if locations.btf is not None:
        start, size = locations.btf
        btf = copy.read(start, size) if copy.holds(start, size) else memory.read(start, size)
    tokens = (copy.start + layout.token_table, _TOKEN_TABLE_WITNESS)
    return KernelBuild(image, symbols, btf, _read_witnesses(memory, image, locations, [tokens]))


def _read_witnesses(
    memory: KernelMemory, image: KernelImage, locations: MetadataLocations, more: list[tuple[int, int]]
) -> tuple[tuple[int, bytes], ...]:
    """Return (offset, bytes) of read-only data that tells this build from every other. ``more``: (address, size)."""
    wanted = list(more)
    if locations.banner is not None:
        wanted.append((locations.banner, len(memory.cstring(locations.banner, _MAX_BANNER))))
    if locations.notes is not None:
        wanted.append(locations.notes)
    inside = [(addr, size) for addr, size in wanted if image.holds(addr)]
    blobs = memory.read_many(inside)
    return tuple((addr - image.base, blob) for (addr, _), blob in zip(inside, blobs, strict=True) if blob)


def _find_kallsyms(memory: KernelMemory, image: KernelImage) -> tuple[MemoryCopy, KallsymsLayout, RawSymbols]:
    """Grow a copy of the likeliest part until the symbol table is whole in it."""
    failure: SymbolError | None = None
    banner = False
    for start, end in image.scan_order():
        copy = MemoryCopy(start, b"")
        while copy.end < end:
            more = memory.copy(copy.end, min(copy.end + _GROW, end))
            copy = MemoryCopy(start, copy.data + more.data, copy.holes | more.holes)
            banner = banner or find_banner(more) is not None
            try:
                layout = kallsyms.find_layout(copy)
                return copy, layout, kallsyms.decode(copy, layout, image.base)
            except SymbolError as error:
                failure = error
    if failure is None or not banner:
        raise SymbolError(
            f"the code at {image.base:#x} does not call itself Linux: another operating system, or still booting"
        )
    raise failure


def _build_from_file(memory: KernelMemory, image: KernelImage, path: Path, say: Progress) -> KernelBuild:
    """Read symbols from a file, and types from memory when the file says where they are."""
    from probekit.kernel import symbol_files  # imported here: its ELF reader is slow to import and seldom needed

    say(f"reading symbols from {path}")
    live = MetadataLocations()
    for start, end in image.scan_order():
        live = live.or_else(locate_by_search(memory.copy(start, end)))
        if live.notes is not None:
            break
    build_id = parse_build_id(memory.read(*live.notes)) if live.notes else None
    symbols = symbol_files.load_symbol_file(path, image.base, live_build_id=build_id)
    symbol_files.check_against_memory(memory, symbols, str(path))
    locations = locate_by_symbols(SymbolTable(symbols)).or_else(live)
    btf = memory.read_many([locations.btf])[0] if locations.btf is not None else None
    return KernelBuild(image, symbols, btf or b"", _read_witnesses(memory, image, locations, []))


def _fingerprint(build: KernelBuild) -> str:
    """Make a cache key for a kernel without a build id, from its banner and its symbols' names."""
    digest = hashlib.sha256()
    for _, data in build.witnesses:
        digest.update(data)
    digest.update("\n".join(build.symbols.names).encode())
    return digest.hexdigest()
