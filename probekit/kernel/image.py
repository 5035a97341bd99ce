"""The facade: :func:`open_kernel` finds everything, :class:`Kernel` holds it.

Cold: find the base, read the read-only data until the symbol table is whole,
decode it, read BTF, write the cache. Warm: find the base, compare the cache's
witnesses, load. Modules are read anew each time: they change.
"""

from __future__ import annotations

import hashlib
import struct
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from probekit.errors import SymbolError, TargetError, UnsupportedError
from probekit.kernel import cache as disk
from probekit.kernel import kallsyms, sections
from probekit.kernel.base import KernelBase, find_banner, find_base, idt_bases
from probekit.kernel.btf import Btf, BtfIndex
from probekit.kernel.drive import bring_into_kernel, in_kernel_tables
from probekit.kernel.kallsyms import RawSymbols
from probekit.kernel.markers import Marker, list_markers
from probekit.kernel.memory import PAGE_SIZE, Image, Memory
from probekit.kernel.modules import Module, list_modules, module_btf_data, module_symbols
from probekit.kernel.notes import build_id, release_of
from probekit.kernel.percpu import CpuLayout, CurrentAccess, cpu_layout, current_access
from probekit.kernel.places import Places, by_search, by_symbols, identity
from probekit.kernel.sections import Exclusion, JumpSite
from probekit.kernel.symbols import SymbolTable, require
from probekit.kernel.tasks import Task, read_tasks, task_addresses
from probekit.kernel.tracepoints import Tracepoint, count_tracepoints, list_tracepoints
from probekit.kernel.view import KernelView, PhysicalMemory, check_long_mode
from probekit.target.api import Target

__all__ = ("Kernel", "TextRange", "open_kernel")

Progress = Callable[[str], None]

_GROW = 8 << 20


@dataclass(frozen=True, slots=True)
class TextRange:
    """Executable memory of the kernel (``module`` empty) or of one module."""

    start: int
    end: int
    module: str = ""


@dataclass(frozen=True, slots=True)
class _Found:
    """What does not change while the kernel runs."""

    image: KernelBase
    raw: RawSymbols = field(repr=False)
    btf_data: bytes = field(repr=False)
    witnesses: tuple[tuple[int, bytes], ...] = ()
    btf_index: BtfIndex | None = None

    @classmethod
    def of(cls, image: KernelBase, entry: disk.CacheEntry) -> _Found:
        """What the cache has of the kernel in ``image``."""
        return cls(image, entry.symbols, entry.btf, entry.witnesses, entry.index)


@dataclass(frozen=True, slots=True)
class _Table:
    """A table of relative addresses: its symbols in the kernel, its members in ``struct module``, bytes an entry."""

    bounds: tuple[str, str]
    members: tuple[str, str]
    entry_size: int


_EX_TABLE = _Table(("__start___ex_table", "__stop___ex_table"), ("extable", "num_exentries"), 12)
_JUMP_TABLE = _Table(("__start___jump_table", "__stop___jump_table"), ("jump_entries", "num_jump_entries"), 16)
_STATIC_CALLS = _Table(
    ("__start_static_call_sites", "__stop_static_call_sites"), ("static_call_sites", "num_static_call_sites"), 8
)


class Kernel:
    """A running kernel. Methods that read guest memory need the target stopped."""

    def __init__(self, *, target: Target, view: KernelView, memory: Memory, found: _Found, from_cache: bool) -> None:
        self.target = target
        self.view = view
        self.memory = memory
        self.image = found.image
        self.from_cache = from_cache
        self._raw = found.raw
        self.btf: Btf | None = None
        self.btf_error: SymbolError | None = None
        try:
            self.btf = Btf(found.btf_data, index=found.btf_index) if found.btf_data else None
        except SymbolError as error:
            # Symbols are worth having without types.
            self.btf_error = error
        self.modules: tuple[Module, ...] = ()
        self.module_error: SymbolError | None = None
        self._core = SymbolTable(found.raw)
        self.symbols = self._core
        self._module_btf: dict[int, tuple[int, int]] = {}
        self._module_types: dict[str, Btf] = {}
        root = self._core.addr("init_top_pgt") or self._core.addr("swapper_pg_dir")
        if root is not None:
            view.adopt_root(root)
        self.version, self.build_id = identity(found.witnesses)
        self.release = release_of(self.version)
        self.refresh_modules()

    @property
    def base(self) -> int:
        """The address of ``_text``."""
        return self.image.base

    def refresh_modules(self) -> None:
        """Read the module list and symbols again. A list in flux leaves no modules and ``module_error``."""
        head = self._core.addr("modules")
        self.modules, self.symbols, self._module_btf, self.module_error = (), self._core, {}, None
        self._module_types.clear()
        if head is None or self.btf is None:
            self.module_error = SymbolError("modules cannot be listed: no BTF or no symbol 'modules' in this kernel")
            return
        try:
            with self.memory.cached():
                modules = list_modules(self.memory, self.btf, head)
                tables = [module_symbols(self.memory, self.btf, module) for module in modules]
                types = self._core.addr("btf_modules")
                if types is not None and modules:
                    self._module_btf = module_btf_data(self.memory, self.btf, types)
        except (SymbolError, TargetError) as error:
            self.module_error = SymbolError(f"modules cannot be listed: {error}")
            return
        self.modules = modules
        if any(table.names for table in tables):
            self.symbols = self._core.with_modules(self._raw, tables)

    def btf_loaded(self, module: str) -> bool:
        """Whether :meth:`btf_of` needs no guest memory: the types are here, or there are none."""
        return module in self._module_types or not any(
            item.name == module and item.addr in self._module_btf for item in self.modules
        )

    def btf_of(self, module: str) -> Btf | None:
        """A module's own types on top of the kernel's; None when it has none. Empty name: the kernel's."""
        if not module or self.btf is None:
            return self.btf if not module else None
        for item in self.modules:
            where = self._module_btf.get(item.addr) if item.name == module else None
            if where is not None and module not in self._module_types:
                self._module_types[module] = Btf(self.memory.read(*where), base=self.btf)
        return self._module_types.get(module)

    def symbol(self, name: str) -> int:
        """The address of a symbol, or :class:`SymbolError`."""
        return require(self.symbols, name)

    def find(self, *names: str) -> int | None:
        """The address of the first of ``names`` that exists."""
        found = (self.symbols.addr(name) for name in names)
        return next((addr for addr in found if addr is not None), None)

    @cached_property
    def text(self) -> TextRange:
        """The kernel's own ``.text``."""
        bounds = self._core.range("_stext", "_etext") or self._core.range("_text", "_etext")
        if bounds is None or not self.image.base <= bounds[0] < bounds[1] <= self.image.end:
            raise SymbolError("the kernel's text has no bounds (_stext, _etext)")
        return TextRange(*bounds)

    def text_ranges(self) -> tuple[TextRange, ...]:
        """The kernel's text, then each live module's."""
        live = (m for m in self.modules if m.state == "live" and m.text_start < m.text_end)
        return (self.text, *(TextRange(m.text_start, m.text_end, m.name) for m in live))

    def read_text(self, module: str | None = None) -> tuple[Image, ...]:
        """Live text, one image per range. ``module``: only that one's (empty: only the kernel's)."""
        wanted = (part for part in self.text_ranges() if module is None or part.module == module)
        return tuple(self.memory.image(part.start, part.end) for part in wanted)

    def cpus(self) -> CpuLayout:
        """Per-CPU offsets and which CPUs are possible and online, read now."""
        return cpu_layout(self.memory, self._core)

    @property
    def percpu_offsets(self) -> tuple[int, ...]:
        """``__per_cpu_offset[]`` up to ``nr_cpu_ids``."""
        return self.cpus().offsets

    @cached_property
    def current(self) -> CurrentAccess:
        """Where code finds the running task and the CPU number (GS-relative)."""
        return current_access(self._core, self.btf)

    def exclusions(self) -> tuple[Exclusion, ...]:
        """Text that must not be probed, sorted by start; ranges may overlap."""
        found = sections.boundary_exclusions(self._core)
        with self.memory.cached():  # the list's entries lie close together
            found += sections.kprobe_blacklist(self.memory, self._core, self.btf)
        return tuple(sorted(found, key=lambda item: (item.start, item.end)))

    def ex_table(self) -> tuple[int, ...]:
        """Addresses of instructions that may fault and be fixed up (``__ex_table``), sorted, modules included."""
        return tuple(sorted(self._sites(_EX_TABLE)))

    def exception_entries(self) -> dict[int, tuple[int, int]]:
        """The address of each instruction that may fault: where it goes on then, and the kind of its fix-up."""
        found: dict[int, tuple[int, int]] = {}
        for start, data in self._table(_EX_TABLE):
            pairs = sections.relative_pairs(data, start, _EX_TABLE.entry_size)
            kinds = struct.unpack(f"<{len(pairs) * 3}I", data[: len(pairs) * _EX_TABLE.entry_size])[2::3]
            found.update((addr, (fixup, kind)) for (addr, fixup), kind in zip(pairs, kinds, strict=True))
        return found

    def jump_sites(self) -> tuple[JumpSite, ...]:
        """Instructions that the kernel itself rewrites: static keys and static calls, sorted."""
        sites = [JumpSite(addr, "static_key") for addr in self._sites(_JUMP_TABLE)]
        sites += [JumpSite(addr, "static_call") for addr in self._sites(_STATIC_CALLS)]
        return tuple(sorted(sites, key=lambda site: site.addr))

    def hidden_jumps(self) -> tuple[tuple[int, int], ...]:
        """Jumps that are not in the text, sorted ``(from, to)``: static keys that may be on, exception fix-ups."""
        found: list[tuple[int, int]] = []
        for which in (_JUMP_TABLE, _EX_TABLE):
            for start, data in self._table(which):
                found += sections.relative_pairs(data, start, which.entry_size)
        return tuple(sorted(found))

    def ftrace_sites(self) -> array[int]:
        """Addresses of the patchable nops at function entries, sorted; empty for a kernel without ftrace."""
        return sections.ftrace_sites(self.memory, self._core, self.btf)

    def count_tracepoints(self) -> int:
        """How many tracepoints there are; the guest may run."""
        return count_tracepoints(self._core, self.modules, self.btf)

    def tracepoints(self, memory: Memory | None = None) -> tuple[Tracepoint, ...]:
        """Every tracepoint, the kernel's own first; none for a kernel without types. ``memory``: a quicker way."""
        memory = memory or self.memory
        with memory.cached():
            return list_tracepoints(memory, self._core, self.modules, self.btf)

    def markers(self, memory: Memory | None = None) -> tuple[Marker, ...]:
        """Every static marker (vm/include/probekit/marker.h), usable or not. ``memory``: a quicker way to it."""
        ranges = self.text_ranges()
        return list_markers(
            memory or self.memory,
            self._core,
            self.modules,
            self.btf,
            lambda addr: any(part.start <= addr < part.end for part in ranges),
        )

    def tasks(self) -> tuple[Task, ...]:
        """Every thread, and of each online CPU the idle task and the one that it runs, which may be on no list."""
        return read_tasks(self.memory, self._need_btf(), self.task_addresses())

    def task_addresses(self, memory: Memory | None = None) -> list[int]:
        """Where each of :meth:`tasks` is. ``memory``: a quicker way."""
        memory = memory or self.memory
        listed = task_addresses(memory, self._need_btf(), self.symbol("init_task"))
        return [addr for addr in dict.fromkeys((*listed, *self._tasks_of_cpus(memory))) if addr]

    def _tasks_of_cpus(self, memory: Memory) -> list[int]:
        """Idle tasks are on no list but in ``runqueues`` of each CPU; one that ends still runs when it has left all."""
        queues, layout = self._core.addr("runqueues"), self._need_btf().find_struct("rq")
        if queues is None or layout is None:
            return []
        cpus = cpu_layout(memory, self._core)
        fields = [field for name in ("idle", "curr") if (field := layout.find_field(name)) is not None]
        places = [cpus.offsets[cpu] + queues + field.offset for cpu in cpus.online for field in fields]
        return [memory.u64(at & (1 << 64) - 1) for at in places]

    def _need_btf(self) -> Btf:
        if self.btf is None:
            raise UnsupportedError("this kernel carries no types (BTF)", feature="BTF")
        return self.btf

    def _sites(self, which: _Table) -> list[int]:
        return [
            addr
            for start, data in self._table(which)
            for addr in sections.relative_sites(data, start, which.entry_size)
        ]

    def _table(self, which: _Table) -> list[tuple[int, bytes]]:
        return sections.table(
            self.memory,
            self._core,
            self.modules,
            self.btf,
            bounds=which.bounds,
            members=which.members,
            entry_size=which.entry_size,
        )


def open_kernel(
    target: Target,
    *,
    symbols_file: str | Path | None = None,
    cache: bool = True,
    progress: Progress | None = None,
) -> Kernel:
    """Find the Linux kernel in a stopped target, or raise :class:`SymbolError` saying what does not fit."""
    say = progress or _silent
    say("finding the kernel")
    check_long_mode(target)
    idts = idt_bases(_registers(target))
    if not isinstance(target, PhysicalMemory) and idts:
        states = [target.regs(vcpu) for vcpu in target.vcpus()]
        if all(regs.values.get("cr3", 0) & PAGE_SIZE for regs in states) and not any(map(in_kernel_tables, states)):
            say("waiting for a vCPU to enter the kernel")
            bring_into_kernel(target, idts)
    view = KernelView(target)
    memory = Memory(view)
    image = find_base(memory, idts=idts)
    if symbols_file is not None:
        found, from_cache = _from_file(memory, image, Path(symbols_file), say), False
    else:
        entry = disk.find(memory, image.base) if cache else None
        from_cache = entry is not None
        found = _from_memory(memory, image, say) if entry is None else _Found.of(image, entry)
    kernel = Kernel(target=target, view=view, memory=memory, found=found, from_cache=from_cache)
    if cache and not from_cache and symbols_file is None:
        key = kernel.build_id or _fingerprint(found)
        index = kernel.btf.index if kernel.btf is not None else None
        disk.store(disk.CacheEntry(key, found.witnesses, found.raw, found.btf_data, index), image.base)
    return kernel


def _silent(_: str) -> None:
    """No progress wanted."""


def _registers(target: Target) -> str:
    """The monitor's register dump; empty where the stub has no monitor."""
    try:
        return target.monitor("info registers -a")
    except (UnsupportedError, TargetError):
        return ""


def _from_memory(memory: Memory, image: KernelBase, say: Progress) -> _Found:
    """Symbols and types out of guest memory."""
    say("reading the symbol table from guest memory")
    copy, layout, raw = _scan(memory, image)
    table = SymbolTable(raw)
    say("reading types (BTF) from guest memory")
    places = by_symbols(table)
    if places.banner is None:
        # Without data symbols: look for the same things by their looks.
        for start, end in image.scan_order():
            places = places.or_else(by_search(memory.image(start, end)))
    btf_data = b""
    if places.btf is not None:
        start, size = places.btf
        btf_data = copy.read(start, size) if copy.holds(start, size) else memory.read(start, size)
    witnesses = _witnesses(memory, image, places, [(copy.start + layout.token_table, 512)])
    return _Found(image, raw, btf_data, witnesses)


def _witnesses(
    memory: Memory, image: KernelBase, places: Places, more: list[tuple[int, int]]
) -> tuple[tuple[int, bytes], ...]:
    """(offset, bytes) of read-only data that tells this build from every other."""
    wanted = list(more)
    if places.banner is not None:
        wanted.append((places.banner, len(memory.cstring(places.banner, 512))))
    if places.notes is not None:
        wanted.append(places.notes)
    blobs = memory.read_many([(addr, size) for addr, size in wanted if image.holds(addr)])
    inside = [addr for addr, _ in wanted if image.holds(addr)]
    return tuple((addr - image.base, blob) for addr, blob in zip(inside, blobs, strict=True) if blob)


def _scan(memory: Memory, image: KernelBase) -> tuple[Image, kallsyms.Layout, RawSymbols]:
    """Grow a copy of the likeliest part until the symbol table is whole in it."""
    failure: SymbolError | None = None
    banner = False
    for start, end in image.scan_order():
        copy = Image(start, b"")
        while copy.end < end:
            more = memory.image(copy.end, min(copy.end + _GROW, end))
            copy = Image(start, copy.data + more.data, copy.holes | more.holes)
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


def _from_file(memory: Memory, image: KernelBase, path: Path, say: Progress) -> _Found:
    """Symbols out of a file; types out of memory when the file says where they are."""
    from probekit.kernel import symfiles  # it and what reads ELF are slow to import, and hardly ever needed

    say(f"reading symbols from {path}")
    live = Places()
    for start, end in image.scan_order():
        live = live.or_else(by_search(memory.image(start, end)))
        if live.notes is not None:
            break
    raw = symfiles.load_file(path, image.base, live_build_id=build_id(memory.read(*live.notes)) if live.notes else None)
    symfiles.check_against_memory(memory, raw, str(path))
    places = by_symbols(SymbolTable(raw)).or_else(live)
    data = memory.read_many([places.btf])[0] if places.btf is not None else None
    return _Found(image, raw, data or b"", _witnesses(memory, image, places, []))


def _fingerprint(found: _Found) -> str:
    """A cache key for a kernel without a build id: its banner and its symbols' names."""
    digest = hashlib.sha256()
    for _, data in found.witnesses:
        digest.update(data)
    digest.update("\n".join(found.raw.names).encode())
    return digest.hexdigest()
