"""List loaded modules with their memory, symbols and types, from the kernel's ``modules`` list.

The list is walked with BTF's offsets, so a kernel without BTF shows no
modules. Layouts are recognised by the members that ``struct module`` has:

* ``mem[]`` of ``struct module_memory`` (commit ac3b43283923, v6.4): the first
  is the text;
* ``core_layout`` with ``text_size`` (commit 7523e4dc5057, v4.5) before that.

Symbols come from ``module->kallsyms`` (``struct mod_kallsyms``); its type
letters are in ``typetab`` (commit 1c7651f43777, v5.2), and were kept in the
symbol's own ``st_info``/``st_size`` before. Every count is bounded, and the
list may not be longer than any machine's or visit an entry twice.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from probekit.errors import MemoryAccessError, SymbolError
from probekit.kernel.btf import Btf
from probekit.kernel.c_types import CStruct
from probekit.kernel.escape import escape_unprintable
from probekit.kernel.linked_list import walk_list
from probekit.kernel.memory import PAGE_SIZE, KernelMemory
from probekit.kernel.symbols import ModuleSymbols

__all__ = ("Module", "list_modules", "locate_module_btf", "module_symbols")

_MAX_MODULES = 4096
_MAX_SYMBOLS = 1 << 18
_MAX_STRINGS = 16 << 20
_MAX_TEXT = 256 << 20
_MAX_BTF = 16 << 20
_SYMBOL = struct.Struct("<IBBHQQ")
_STATES = ("live", "coming", "going", "unformed")


@dataclass(frozen=True, slots=True)
class Module:
    """One loaded module."""

    name: str
    """Its name, escaped."""
    addr: int
    """Address of its ``struct module``."""
    state: str
    """``live``, ``coming``, ``going`` or ``unformed`` (``enum module_state``)."""
    text_start: int
    """Address of its text."""
    text_end: int
    """The address after its text."""
    data: bytes = field(repr=False, default=b"")
    """The bytes of its ``struct module``."""


def list_modules(memory: KernelMemory, btf: Btf, head: int) -> tuple[Module, ...]:
    """Return the modules on the list at ``head`` (symbol ``modules``), newest first as the kernel keeps them.

    Raises :class:`SymbolError` for a list that changes or makes no sense.
    """
    layout = btf.struct("module")
    anchor = layout.field("list").offset
    addrs = [link - anchor for link in walk_list(memory, head, _MAX_MODULES)]
    blobs = memory.read_many([(addr, layout.size) for addr in addrs])
    found = []
    for addr, blob in zip(addrs, blobs, strict=True):
        if blob is None:
            raise SymbolError(f"the module list leads to unreadable memory at {addr:#x}")
        found.append(_module(layout, btf, addr, blob))
    return tuple(found)


def _module(layout: CStruct, btf: Btf, addr: int, blob: bytes) -> Module:
    name_at = layout.field("name")
    raw = blob[name_at.offset : name_at.offset + name_at.size].split(b"\0", 1)[0]
    name = escape_unprintable(raw)
    state = _number(blob, layout, "state")
    start, size = _text_range(layout, btf, blob)
    if not name or size > _MAX_TEXT or start + size > 1 << 64:
        raise SymbolError(f"the module at {addr:#x} ({name!r}) makes no sense: text {start:#x}+{size:#x}")
    text = _STATES[state] if state < len(_STATES) else f"state {state}"
    return Module(name=name, addr=addr, state=text, text_start=start, text_end=start + size, data=blob)


def _text_range(layout: CStruct, btf: Btf, blob: bytes) -> tuple[int, int]:
    memory_array = layout.find_field("mem")
    if memory_array is not None:
        inner = btf.struct("module_memory")
        base, size = inner.field("base"), inner.field("size")
        at = memory_array.offset
    else:
        layout_at = layout.field("core_layout")
        inner = btf.struct("module_layout")
        base, size = inner.field("base"), inner.field("text_size")
        at = layout_at.offset
    return (
        int.from_bytes(blob[at + base.offset : at + base.offset + 8], "little"),
        int.from_bytes(blob[at + size.offset : at + size.offset + size.size], "little"),
    )


def _number(blob: bytes, layout: CStruct, path: str) -> int:
    at = layout.field(path)
    return int.from_bytes(blob[at.offset : at.offset + at.size], "little")


def module_symbols(memory: KernelMemory, btf: Btf, module: Module) -> ModuleSymbols:
    """Return the module's own symbols; none when the module is not live yet (its tables are still moving).

    Raises :class:`SymbolError` and :class:`MemoryAccessError` for tables that make no sense.
    """
    layout = btf.struct("module")
    empty = ModuleSymbols(module.name, (), (), "", ())
    if module.state != "live" or layout.find_field("kallsyms") is None:
        return empty
    inner = btf.struct("mod_kallsyms")
    pointer = _number(module.data, layout, "kallsyms")
    if not pointer:
        return empty
    blob = memory.read(pointer, inner.size)
    count = _number(blob, inner, "num_symtab")
    if not count:
        return empty
    if count > _MAX_SYMBOLS:
        raise SymbolError(f"module {module.name} claims {count} symbols")
    raw = memory.read(_number(blob, inner, "symtab"), count * _SYMBOL.size)
    rows = list(_SYMBOL.iter_unpack(raw))
    strings = _strings(memory, _number(blob, inner, "strtab"), max(row[0] for row in rows))
    letters = None
    if inner.find_field("typetab") is not None:
        letters = memory.read(_number(blob, inner, "typetab"), count)
    return _table(module.name, rows, strings, letters)


def _strings(memory: KernelMemory, addr: int, last: int) -> bytes:
    """Return the string table up to the end of the string at ``last``. The kernel does not store its size."""
    if last > _MAX_STRINGS:
        raise SymbolError(f"a module's string table claims {last:#x} bytes")
    head = memory.read(addr, last) if last else b""
    try:
        return head + memory.cstring(addr + last, PAGE_SIZE) + b"\0"
    except MemoryAccessError:
        return head + b"\0"


def _table(
    module: str, rows: list[tuple[int, int, int, int, int, int]], strings: bytes, letters: bytes | None
) -> ModuleSymbols:
    """Make columns, without undefined and nameless symbols, which the kernel does not show either."""
    addrs, names, types, sizes = [], [], [], []
    for number, (name_at, info, _other, section, value, size) in enumerate(rows):
        end = strings.find(b"\0", name_at)
        if not section or end <= name_at or not value:
            continue
        letter = chr(letters[number] if letters is not None else info)
        addrs.append(value)
        names.append(escape_unprintable(strings[name_at : min(end, name_at + 512)]))
        types.append(letter if letter.isascii() and letter.isalpha() else "?")
        # Before typetab the letter replaced st_info, later st_size (commits 5439c985c5a8, v5.0; 1c7651f43777, v5.2).
        sizes.append(size if letters is not None and size < 1 << 32 else 0)
    return ModuleSymbols(module, addrs, names, "".join(types), sizes)


def locate_module_btf(memory: KernelMemory, btf: Btf, head: int) -> dict[int, tuple[int, int]]:
    """Return (address, size) of each module's BTF by the address of its ``struct module``, from ``btf_modules``.

    ``head``: the address of that list. ``module->btf_data`` cannot be used: it points into the loader's copy of the
    file, which is gone once the module lives (commit 36e68442d1af, v5.11). The list holds the kernel's own copy.
    """
    entry, inner = btf.find_struct("btf_module"), btf.find_struct("btf")
    if entry is None or inner is None:
        return {}
    link, owner, pointer = (entry.field(name).offset for name in ("list", "module", "btf"))
    data, size = inner.field("data"), inner.field("data_size")
    found: dict[int, tuple[int, int]] = {}
    for at in walk_list(memory, head, _MAX_MODULES):
        start = at - link
        described = memory.u64(start + pointer)
        length = memory.u32(described + size.offset)
        if 0 < length <= _MAX_BTF:
            found[memory.u64(start + owner)] = (memory.u64(described + data.offset), length)
    return found
