"""Read symbols from a file (``--symbols FILE``), for a kernel that has none in its memory.

There are three kinds, recognised by their content: an ELF file with a symbol table
(``vmlinux``), a ``System.map``, or a saved ``/proc/kallsyms`` (of this or of an
earlier boot). Their addresses are moved to the live kernel by one slide, the live base
minus the file's ``_text``. With the file of another build probekit would silently patch the
wrong bytes, so the file is checked: the build id where both have one, the
banner's text where the file says it is, and function entries that look like
function entries.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import NoteSection, SymbolTableSection

from probekit.errors import SymbolError
from probekit.kernel.image_base import KERNEL_MAP
from probekit.kernel.kallsyms import RawSymbols
from probekit.kernel.memory import KernelMemory

__all__ = ("FileSymbols", "check_against_memory", "load_symbol_file", "parse_text", "slide_to_base")

_MAX_FILE = 2 << 30
_MAX_SYMBOLS = 1 << 21
_SAMPLES = 400
_SHN_ABS = 0xFFF1
_PADDING = frozenset(b"\xcc\x90\xc3\x00")
# int3 padding, zeros: no function begins with these
_NO_CODE = frozenset(b"\xcc\x00")
# nopl 0(%rax,%rax,1) | endbr64 | call rel32 (not yet patched) | xchg %ax,%ax of a static key
_ENTRIES = (b"\x0f\x1f\x44\x00\x00", b"\xf3\x0f\x1e\xfa", b"\xe8", b"\x66\x90")

FileSymbols = tuple[list[tuple[int, str, str]], str | None]
"""(address, type letter, name) rows as in the file, and the file's build id if it has one."""


def load_symbol_file(path: Path, base: int, *, live_build_id: str | None = None) -> RawSymbols:
    """Return the file's symbols, moved to the kernel at ``base``.

    Raises :class:`SymbolError` when the file cannot be read or cannot be of this kernel.
    """
    try:
        if path.stat().st_size > _MAX_FILE:
            raise SymbolError(f"{path}: too large for a symbol file")
        with path.open("rb") as file:
            is_elf = file.read(4) == b"\x7fELF"
            file.seek(0)
            rows, build_id = _parse_elf(file, path) if is_elf else (parse_text(file.read(), str(path)), None)
    except OSError as error:
        raise SymbolError(f"{path}: {error.strerror or error}") from error
    if build_id and live_build_id and build_id != live_build_id:
        raise SymbolError(
            f"{path} is of another kernel: its build id is {build_id}, the guest's is {live_build_id}",
            hint="use the file of exactly the kernel that the guest runs",
        )
    return slide_to_base(rows, base, str(path))


def parse_text(data: bytes, name: str) -> list[tuple[int, str, str]]:
    """Return the rows of a System.map or a saved /proc/kallsyms, without modules' symbols. ``name``: for messages.

    Raises :class:`SymbolError` for text that is neither.
    """
    rows = []
    for number, line in enumerate(data.splitlines()[: 4 * _MAX_SYMBOLS], 1):
        parts = line.split()
        if not parts or len(parts) > 3:
            continue
        try:
            if len(parts) != 3 or len(parts[1]) != 1:
                raise ValueError("columns")
            rows.append((int(parts[0], 16), parts[1].decode("ascii"), parts[2].decode("ascii")))
        except ValueError:
            raise SymbolError(
                f"{name}, line {number}: not 'address type name'",
                hint="a symbol file is a vmlinux with symbols, a System.map or a saved /proc/kallsyms",
            ) from None
    if not rows:
        raise SymbolError(f"{name} holds no symbols")
    if not any(addr for addr, _, _ in rows):
        raise SymbolError(
            f"{name}: every address is zero",
            hint="it was read without the right to see addresses: save /proc/kallsyms as root, "
            "with kernel.kptr_restrict=0 or 1",
        )
    return rows


def _parse_elf(file: IO[bytes], path: Path) -> FileSymbols:
    try:
        elf = ELFFile(file)
        if elf.get_machine_arch() != "x64":
            raise SymbolError(f"{path} is for {elf.get_machine_arch()}, not x86-64")
        table = elf.get_section_by_name(".symtab")
        if not isinstance(table, SymbolTableSection):
            raise SymbolError(
                f"{path} has no symbol table (.symtab): it is stripped",
                hint="take vmlinux from the kernel's debug package, or its System.map",
            )
        writable = {
            number: (section["sh_flags"] & 4, section["sh_flags"] & 1)
            for number, section in enumerate(elf.iter_sections())
        }
        rows = []
        for symbol in table.iter_symbols():
            section = symbol["st_shndx"]
            kind = symbol["st_info"]["type"]
            if section in ("SHN_UNDEF", "SHN_COMMON") or kind in ("STT_SECTION", "STT_FILE") or not symbol.name:
                continue
            execute, write = writable.get(section, (0, 0)) if isinstance(section, int) else (0, 0)
            letter = "a" if section == "SHN_ABS" else "t" if execute else "d" if write else "r"
            if symbol["st_info"]["bind"] != "STB_LOCAL":
                letter = letter.upper()
            rows.append((int(symbol["st_value"]), letter, str(symbol.name)))
        return rows, _elf_build_id(elf)
    except (ELFError, KeyError, ValueError, UnicodeError) as error:
        raise SymbolError(f"{path} is a damaged ELF file: {error}") from error


def _elf_build_id(elf: ELFFile) -> str | None:
    for section in elf.iter_sections():
        if isinstance(section, NoteSection):
            for note in section.iter_notes():
                if note["n_type"] == "NT_GNU_BUILD_ID" and note["n_name"] == "GNU":
                    return str(note["n_desc"])
    return None


def slide_to_base(rows: Sequence[tuple[int, str, str]], base: int, name: str) -> RawSymbols:
    """Return the rows moved so that ``_text`` is at ``base``, sorted. Absolute values (per-CPU offsets) stay.

    Raises :class:`SymbolError` when there is no ``_text`` or an address does not fit. ``name``: for messages.
    """
    text = next((addr for addr, _, symbol in rows if symbol == "_text"), None)
    if text is None:
        text = next((addr for addr, _, symbol in rows if symbol == "_stext"), None)
    if text is None or text < KERNEL_MAP:
        raise SymbolError(f"{name} has no _text symbol: not a kernel's symbols")
    if len(rows) > _MAX_SYMBOLS:
        raise SymbolError(f"{name} holds {len(rows)} symbols: too many for a kernel")
    slide = base - text
    moved = sorted(
        ((addr + slide if addr >= KERNEL_MAP else addr, letter, symbol) for addr, letter, symbol in rows),
        key=lambda row: row[0],
    )
    if moved[-1][0] >= 1 << 64 or moved[0][0] < 0:
        raise SymbolError(f"{name}: its addresses do not fit a kernel at {base:#x}")
    return RawSymbols(
        addrs=array("Q", [row[0] for row in moved]),
        names=[row[2] for row in moved],
        types="".join([row[1] for row in moved]),
        encoding="unsigned",
    )


def check_against_memory(memory: KernelMemory, symbols: RawSymbols, name: str) -> None:
    """Check that live memory is what the symbols say. Raises :class:`SymbolError`. ``name``: for messages."""
    if "linux_banner" in symbols.names:
        addr = symbols.addrs[symbols.names.index("linux_banner")]
        found = memory.read_many([(addr, 14)])[0]
        if found != b"Linux version ":
            raise SymbolError(
                f"{name} is of another kernel: linux_banner is not at {addr:#x}",
                hint="use the file of exactly the kernel that the guest runs",
            )
    end = next((a for a, n in zip(symbols.addrs, symbols.names, strict=True) if n == "_etext"), 1 << 64)
    text = [a for a, t in zip(symbols.addrs, symbols.types, strict=True) if t in "tT" and KERNEL_MAP < a < end]
    sample = text[:: max(1, len(text) // _SAMPLES)][1:]
    heads = [head for head in memory.read_many([(addr - 1, 6) for addr in sample]) if head is not None]
    good = sum(head[1:].startswith(_ENTRIES) or (head[0] in _PADDING and head[1] not in _NO_CODE) for head in heads)
    if not heads or 10 * good < 7 * len(sample):
        raise SymbolError(
            f"{name} is of another kernel: only {good} of {len(sample)} of its functions look like functions in memory",
            hint="use the file of exactly the kernel that the guest runs",
        )
