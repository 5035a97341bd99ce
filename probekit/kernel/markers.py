"""The static markers of a running kernel and its modules, found in its memory (vm/include/probekit/marker.h).

A module's markers are found by their magic words in its data: its section
headers are gone by the time it runs. A kernel's own lie between the symbols that
the linker makes for their sections. ::

    struct pk_marker       magic  name  format  args  function  call  flags state      56 bytes, in written data
    struct pk_marker_site  magic  marker  load                                         24 bytes, in read-only data

Everything here may be a lie: each marker that does not hold together is
returned with the reason why it cannot be used.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from probekit.errors import MemoryAccessError, SymbolError
from probekit.kernel.btf import Btf
from probekit.kernel.markformat import FormatError, argument_types
from probekit.kernel.memory import PAGE_SIZE, Memory
from probekit.kernel.modules import Module
from probekit.kernel.symbols import SymbolTable
from probekit.kernel.text import clean_text
from probekit.kernel.types import ArrayType, CType, StructType, strip

__all__ = (
    "CALL_OFFSET",
    "KERNEL_MARKERS",
    "MARKER_SYMBOL",
    "MAX_MARKERS",
    "STATE_OFFSET",
    "_LOAD_SIZE",
    "Marker",
    "list_markers",
)

MARKER_SYMBOL = "__pk_marker_"
"""How the names of the variables begin."""
KERNEL_MARKERS = "__start___pk_markers_data"
"""What the linker calls the start of the kernel's own."""
MAX_MARKERS = 1 << 14

_MAGIC = b"pk-mark1"
_SITE_MAGIC = b"pk\0site1"
_MARKER = struct.Struct("<8sQQQQQII")
_SITE = struct.Struct("<8sQQ")
CALL_OFFSET = 40
STATE_OFFSET = 52
_LOAD_SIZE = 2
_GENERIC = 1
_LOADS = frozenset((0xB0, 0xB1, 0xB2, 0xB3))  # mov al|cl|dl|bl, imm8
_MAX_SITES = 1 << 16
_MAX_REGION = 64 << 20
_MAX_NAME = 64
_MAX_FUNCTION = 128
_MAX_FORMAT = 256
_KERNEL_HALF = 1 << 63
_SECTIONS = ((KERNEL_MARKERS, "__stop___pk_markers_data"), ("__start___pk_markers", "__stop___pk_markers"))


class Marker(NamedTuple):
    """One marker. ``addr``: of its ``struct pk_marker``; ``module``: empty for the kernel's own.

    ``owner``: that module's ``struct module``, or 0. ``types``: C types of its arguments. ``call``: what is called
    now when it is on. ``loads``: (address, bytes) of the loads of optimized code; none for the generic form.
    ``refusal``: why it cannot be used, or empty.
    """

    addr: int
    name: str
    function: str
    module: str
    owner: int
    types: tuple[CType, ...]
    call: int
    loads: tuple[tuple[int, bytes], ...]
    generic: bool
    refusal: str


@dataclass(frozen=True, slots=True)
class _Owner:
    """A module, or the kernel: its name, ``struct module``, and its data."""

    module: str
    addr: int
    regions: tuple[tuple[int, int], ...]


def list_markers(
    memory: Memory,
    symbols: SymbolTable,
    modules: Iterable[Module],
    btf: Btf | None,
    in_text: Callable[[int], bool],
) -> tuple[Marker, ...]:
    """All markers, the kernel's own first, each owner's by address. ``in_text``: whether code may be at an address."""
    found: list[Marker] = []
    for owner in _owners(symbols, modules, btf):
        found += _of_owner(memory, owner, in_text)
        if len(found) > MAX_MARKERS:
            raise SymbolError(f"the guest claims to have more than {MAX_MARKERS} markers")
    return tuple(found)


def _owners(symbols: SymbolTable, modules: Iterable[Module], btf: Btf | None) -> list[_Owner]:
    kernel = [bounds for names in _SECTIONS if (bounds := symbols.range(*names)) is not None]
    owners = [_Owner("", 0, tuple((start, end - start) for start, end in kernel))] if kernel else []
    layout = btf.find_struct("module") if btf is not None else None
    if btf is not None and layout is not None:
        for module in modules:
            if module.state == "live":
                owners.append(_Owner(module.name, module.addr, _data_of(layout, btf, module)))
    return owners


def _data_of(layout: StructType, btf: Btf, module: Module) -> tuple[tuple[int, int], ...]:
    """(address, size) of a module's data: all but its text."""
    parts = layout.find_field("mem")
    if parts is None:  # before commit ac3b43283923 (v6.4) one area, text first
        core, inner = layout.field("core_layout").offset, btf.struct("module_layout")
        base, size, text = (_number(module, core, inner, name) for name in ("base", "size", "text_size"))
        return ((base + text, size - text),) if 0 < text < size <= _MAX_REGION else ()
    inner = btf.struct("module_memory")
    array = strip(parts.type)
    count = array.count if isinstance(array, ArrayType) else 0
    # MOD_TEXT, MOD_DATA, MOD_RODATA, MOD_RO_AFTER_INIT, then what is gone after initialization.
    found = []
    for place in range(1, min(count, 4)):
        at = parts.offset + place * inner.size
        base, size = _number(module, at, inner, "base"), _number(module, at, inner, "size")
        if base and 0 < size <= _MAX_REGION:
            found.append((base, size))
    return tuple(found)


def _number(module: Module, at: int, layout: StructType, name: str) -> int:
    field = layout.field(name)
    return int.from_bytes(module.data[at + field.offset : at + field.offset + field.size], "little")


def _of_owner(memory: Memory, owner: _Owner, in_text: Callable[[int], bool]) -> list[Marker]:
    markers: list[tuple[int, tuple[bytes, int, int, int, int, int, int, int]]] = []
    sites: dict[int, list[int]] = {}
    total = 0
    for start, size in owner.regions:
        data = memory.image(start, start + size)
        for at in _places(data.data, _MAGIC):
            if data.start + at >= start and at + _MARKER.size <= len(data.data):
                markers.append((data.start + at, _MARKER.unpack_from(data.data, at)))
        for at in _places(data.data, _SITE_MAGIC):
            if data.start + at >= start and at + _SITE.size <= len(data.data):
                _, marker, load = _SITE.unpack_from(data.data, at)
                sites.setdefault(marker, []).append(load)
                total += 1
        if len(markers) > MAX_MARKERS or total > _MAX_SITES:
            raise SymbolError(f"module {owner.module} claims to have more than {MAX_MARKERS} markers")
    return _describe(memory, owner, markers, sites, in_text)


def _places(data: bytes, magic: bytes) -> list[int]:
    """Where the magic word stands, aligned."""
    found: list[int] = []
    at = data.find(magic)
    while at >= 0:
        if at % 8 == 0:
            found.append(at)
        at = data.find(magic, at + 1)
    return found


def _describe(
    memory: Memory,
    owner: _Owner,
    markers: Sequence[tuple[int, tuple[bytes, int, int, int, int, int, int, int]]],
    sites: dict[int, list[int]],
    in_text: Callable[[int], bool],
) -> list[Marker]:
    names = _strings(memory, [words[1] for _, words in markers], _MAX_NAME)
    formats = _strings(memory, [words[2] for _, words in markers], _MAX_FORMAT)
    functions = _strings(memory, [words[4] for _, words in markers], _MAX_FUNCTION)
    loads = sorted({load for addr, _ in markers for load in sites.get(addr, ()) if in_text(load)})
    code = dict(zip(loads, memory.read_many([(load, _LOAD_SIZE) for load in loads]), strict=True))
    found: list[Marker] = []
    for (addr, words), name, text, function in zip(markers, names, formats, functions, strict=True):
        call, flags, state = words[5:]
        here = [(load, code.get(load)) for load in sorted(set(sites.get(addr, ())))]
        types, refusal = _types(text)
        refusal = (
            ("its name is unreadable, empty or too long" if not _is_name(name) else "")
            or refusal
            or _form(flags, state, here)
            or ("" if in_text(call) else f"what it calls ({call:#x}) is no code")
        )
        found.append(
            Marker(
                addr=addr,
                name=name if name is not None and _is_name(name) else f"{addr:#x}",
                function=function or "",
                module=owner.module,
                owner=owner.addr,
                types=types,
                call=call,
                loads=tuple((load, data) for load, data in here if data is not None) if not refusal else (),
                generic=bool(flags & _GENERIC),
                refusal=refusal,
            )
        )
    return found


def _form(flags: int, state: int, loads: Sequence[tuple[int, bytes | None]]) -> str:
    """What is wrong with the places of a marker, or nothing."""
    if flags & ~_GENERIC:
        return f"its flags ({flags:#x}) are of another version of marker.h"
    if flags & _GENERIC:
        return "somebody in the guest listens to it already" if state else ""
    if not loads:
        return "no place in the code belongs to it"
    for addr, data in loads:
        if data is None:
            return f"one of its places ({addr:#x}) is no code"
        if data[0] not in _LOADS or data[1] > 1:
            return f"one of its places ({addr:#x}) is no load immediate but {data.hex(' ')}"
        if data[1]:
            return "somebody in the guest listens to it already"
    return ""


def _types(text: str | None) -> tuple[tuple[CType, ...], str]:
    if text is None:
        return (), "its format is unreadable or too long"
    try:
        return argument_types(text), ""
    except FormatError as error:
        return (), str(error)


def _is_name(name: str | None) -> bool:
    return bool(name) and (name or "").replace("_", "a").isalnum()


def _strings(memory: Memory, addrs: Sequence[int], limit: int) -> list[str | None]:
    """The string at each address; None where there is none that ends within ``limit`` bytes."""
    good = [addr if addr & _KERNEL_HALF else 0 for addr in addrs]
    # Strings of one owner lie together: whole pages are read once.
    found: list[str | None] = []
    with memory.cached():
        for addr in good:
            try:
                room = limit if addr % PAGE_SIZE + limit <= PAGE_SIZE else PAGE_SIZE - addr % PAGE_SIZE
                raw = memory.read(addr, room) if addr else b""
                if b"\0" not in raw and 0 < room < limit:
                    raw += memory.read(addr + room, limit - room)
            except MemoryAccessError:
                raw = b""
            text, end, _ = raw.partition(b"\0")
            found.append(clean_text(text) if end else None)
    return found
