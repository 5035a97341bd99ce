"""Find the static markers of a running kernel and its modules in its memory (vm/include/probekit/marker.h).

A module's markers are found by their magic words in its data: its section
headers are gone by the time it runs. The kernel's own lie between the symbols that
the linker makes for their sections. ::

    struct pk_marker       magic  name  format  args  function  call  flags state      56 bytes, in written data
    struct pk_marker_site  magic  marker  load                                         24 bytes, in read-only data

The guest is untrusted: a marker that contradicts itself is
returned with the reason why it cannot be used.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from probekit.errors import MemoryAccessError, SymbolError
from probekit.kernel.btf import Btf
from probekit.kernel.c_types import CArray, CStruct, CType, strip
from probekit.kernel.escape import escape_unprintable
from probekit.kernel.marker_format import MarkerFormatError, argument_types
from probekit.kernel.memory import PAGE_SIZE, KernelMemory
from probekit.kernel.modules import Module
from probekit.kernel.symbols import SymbolTable

__all__ = (
    "CALL_OFFSET",
    "KERNEL_MARKERS",
    "MARKER_SYMBOL",
    "MAX_MARKERS",
    "STATE_OFFSET",
    "Marker",
    "list_markers",
)

MARKER_SYMBOL = "__pk_marker_"
"""The prefix of the variables' names."""
KERNEL_MARKERS = "__start___pk_markers_data"
"""The linker's symbol for the start of the kernel's own markers."""
MAX_MARKERS = 1 << 14
"""The most markers that a guest may have."""
CALL_OFFSET = 40
"""The offset of ``call`` in ``struct pk_marker``, in bytes."""
STATE_OFFSET = 52
"""The offset of ``state`` in ``struct pk_marker``, in bytes."""

_MAGIC = b"pk-mark1"
_SITE_MAGIC = b"pk\0site1"
_MARKER = struct.Struct("<8sQQQQQII")
_SITE = struct.Struct("<8sQQ")
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
    """One marker."""

    addr: int
    """Address of its ``struct pk_marker``."""
    name: str
    """The marker's name; its address where the name cannot be read."""
    function: str
    """The C function that it is in."""
    module: str
    """Empty for the kernel's own."""
    owner: int
    """Address of the module's ``struct module``; 0 for the kernel's own."""
    types: tuple[CType, ...]
    """C types of its arguments."""
    call: int
    """Address of the function that it calls now when it is on."""
    loads: tuple[tuple[int, bytes], ...]
    """(address, bytes) of the loads in optimized code; none for the generic form."""
    generic: bool
    """Whether it is switched by a variable and not in its code."""
    refusal: str
    """Why it cannot be used; empty when it can."""


class _MarkerWords(NamedTuple):
    """``struct pk_marker`` as it is in memory."""

    magic: bytes
    name: int
    format: int
    args: int
    function: int
    call: int
    flags: int
    state: int


@dataclass(frozen=True, slots=True)
class _Owner:
    """A module, or the kernel itself."""

    module: str
    """The module's name; empty for the kernel."""
    addr: int
    """Address of its ``struct module``; 0 for the kernel."""
    regions: tuple[tuple[int, int], ...]
    """(address, size) of its data."""


def list_markers(
    memory: KernelMemory,
    symbols: SymbolTable,
    modules: Iterable[Module],
    btf: Btf | None,
    in_text: Callable[[int], bool],
) -> tuple[Marker, ...]:
    """Return all markers, the kernel's own first, each owner's by address.

    ``in_text``: tells whether code may be at an address. Raises :class:`SymbolError` for more than any guest may have.
    """
    found: list[Marker] = []
    for owner in _owners(symbols, modules, btf):
        found += _markers_of(memory, owner, in_text)
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
                owners.append(_Owner(module.name, module.addr, _data_regions(layout, btf, module)))
    return owners


def _data_regions(layout: CStruct, btf: Btf, module: Module) -> tuple[tuple[int, int], ...]:
    """Return (address, size) of a module's data: everything but its text."""
    parts = layout.find_field("mem")
    if parts is None:  # before commit ac3b43283923 (v6.4) one area, text first
        core, inner = layout.field("core_layout").offset, btf.struct("module_layout")
        base, size, text = (_number(module, core, inner, name) for name in ("base", "size", "text_size"))
        return ((base + text, size - text),) if 0 < text < size <= _MAX_REGION else ()
    inner = btf.struct("module_memory")
    array = strip(parts.type)
    count = array.count if isinstance(array, CArray) else 0
    # MOD_TEXT, MOD_DATA, MOD_RODATA, MOD_RO_AFTER_INIT; the rest is gone after initialization.
    found = []
    for kind in range(1, min(count, 4)):
        at = parts.offset + kind * inner.size
        base, size = _number(module, at, inner, "base"), _number(module, at, inner, "size")
        if base and 0 < size <= _MAX_REGION:
            found.append((base, size))
    return tuple(found)


def _number(module: Module, at: int, layout: CStruct, name: str) -> int:
    field = layout.field(name)
    return int.from_bytes(module.data[at + field.offset : at + field.offset + field.size], "little")


def _markers_of(memory: KernelMemory, owner: _Owner, in_text: Callable[[int], bool]) -> list[Marker]:
    markers: list[tuple[int, _MarkerWords]] = []
    sites: dict[int, list[int]] = {}
    total = 0
    for start, size in owner.regions:
        data = memory.copy(start, start + size)
        for at in _find_magic(data.data, _MAGIC):
            if data.start + at >= start and at + _MARKER.size <= len(data.data):
                markers.append((data.start + at, _MarkerWords._make(_MARKER.unpack_from(data.data, at))))
        for at in _find_magic(data.data, _SITE_MAGIC):
            if data.start + at >= start and at + _SITE.size <= len(data.data):
                _, marker, load = _SITE.unpack_from(data.data, at)
                sites.setdefault(marker, []).append(load)
                total += 1
        if len(markers) > MAX_MARKERS or total > _MAX_SITES:
            raise SymbolError(f"module {owner.module} claims to have more than {MAX_MARKERS} markers")
    return _describe(memory, owner, markers, sites, in_text)


def _find_magic(data: bytes, magic: bytes) -> list[int]:
    """Return the offsets of the magic word, aligned ones only."""
    found: list[int] = []
    at = data.find(magic)
    while at >= 0:
        if at % 8 == 0:
            found.append(at)
        at = data.find(magic, at + 1)
    return found


def _describe(
    memory: KernelMemory,
    owner: _Owner,
    markers: Sequence[tuple[int, _MarkerWords]],
    sites: dict[int, list[int]],
    in_text: Callable[[int], bool],
) -> list[Marker]:
    names = _strings(memory, [words.name for _, words in markers], _MAX_NAME)
    formats = _strings(memory, [words.format for _, words in markers], _MAX_FORMAT)
    functions = _strings(memory, [words.function for _, words in markers], _MAX_FUNCTION)
    loads = sorted({load for addr, _ in markers for load in sites.get(addr, ()) if in_text(load)})
    code = dict(zip(loads, memory.read_many([(load, _LOAD_SIZE) for load in loads]), strict=True))
    found: list[Marker] = []
    for (addr, words), name, text, function in zip(markers, names, formats, functions, strict=True):
        own_loads = [(load, code.get(load)) for load in sorted(set(sites.get(addr, ())))]
        types, refusal = _types(text)
        refusal = (
            ("its name is unreadable, empty or too long" if not _is_name(name) else "")
            or refusal
            or _why_not_usable(words.flags, words.state, own_loads)
            or ("" if in_text(words.call) else f"what it calls ({words.call:#x}) is not code")
        )
        found.append(
            Marker(
                addr=addr,
                name=name if name is not None and _is_name(name) else f"{addr:#x}",
                function=function or "",
                module=owner.module,
                owner=owner.addr,
                types=types,
                call=words.call,
                loads=tuple((load, data) for load, data in own_loads if data is not None) if not refusal else (),
                generic=bool(words.flags & _GENERIC),
                refusal=refusal,
            )
        )
    return found


def _why_not_usable(flags: int, state: int, loads: Sequence[tuple[int, bytes | None]]) -> str:
    """Return what is wrong with the places of a marker in the code; empty when nothing is."""
    if flags & ~_GENERIC:
        return f"its flags ({flags:#x}) are of another version of marker.h"
    if flags & _GENERIC:
        return "another listener in the guest uses it already" if state else ""
    if not loads:
        return "it has no place in the code"
    for addr, data in loads:
        if data is None:
            return f"one of its places ({addr:#x}) is not code"
        if data[0] not in _LOADS or data[1] > 1:
            return f"one of its places ({addr:#x}) is not a load immediate but {data.hex(' ')}"
        if data[1]:
            return "another listener in the guest uses it already"
    return ""


def _types(text: str | None) -> tuple[tuple[CType, ...], str]:
    """Return the types of a format's arguments, or why it has none."""
    if text is None:
        return (), "its format is unreadable or too long"
    try:
        return argument_types(text), ""
    except MarkerFormatError as error:
        return (), str(error)


def _is_name(name: str | None) -> bool:
    return bool(name) and (name or "").replace("_", "a").isalnum()


def _strings(memory: KernelMemory, addrs: Sequence[int], limit: int) -> list[str | None]:
    """Return the string at each address; None where none ends within ``limit`` bytes."""
    good = [addr if addr & _KERNEL_HALF else 0 for addr in addrs]
    # The strings of one owner lie close together: each page is read once.
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
            found.append(escape_unprintable(text) if end else None)
    return found
