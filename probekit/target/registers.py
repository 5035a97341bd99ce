"""Which byte of a ``g`` reply is which register.

A *layout* is the registers in the stub's order, each with its size; the
index is the number that ``P`` takes. It comes from the stub's own target
description when that fits the length of the reply, else from a table:

======  =====================================================================
bytes   stub
======  =====================================================================
608     QEMU x86-64: the core, segment bases, control registers, x87, SSE
164     Xen gdbsx: the core only (16 general, rip, eflags, six selectors)
======  =====================================================================
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from probekit.errors import ProtocolError
from probekit.target.api import Regs

__all__ = ("CORE", "Layout", "Slot", "changes", "decode", "encode", "layout_from_xml", "layout_of_size")

GENERAL: Final = (
    *("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp"),
    *("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"),
)
SEGMENTS: Final = ("cs", "ss", "ds", "es", "fs", "gs")
CORE: Final = (*GENERAL, "rip", "eflags", *SEGMENTS)
"""What every layout has."""
SYSTEM: Final = ("fs_base", "gs_base", "k_gs_base", "cr0", "cr2", "cr3", "cr4", "cr8", "efer")
"""What :class:`Regs` shows beyond the core, where the stub has it."""

_SHOWN: Final = frozenset((*CORE, *SYSTEM))
_X87_CONTROL: Final = ("fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop")
_REG: Final = re.compile(r"<reg\s([^>]*)>")
_ATTRIBUTE: Final = re.compile(r'(\w+)\s*=\s*"([^"]*)"')
_MAX_REGISTERS: Final = 1024


@dataclass(frozen=True, slots=True)
class Slot:
    """One register: its number for ``P``, its place and size in the ``g`` reply (bytes)."""

    name: str
    number: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Layout:
    """The registers of a stub in its order. ``size``: bytes of the ``g`` reply."""

    slots: tuple[Slot, ...]
    size: int


def _layout(registers: list[tuple[str, int]]) -> Layout:
    slots, offset = [], 0
    for number, (name, size) in enumerate(registers):
        slots.append(Slot(name, number, offset, size))
        offset += size
    return Layout(tuple(slots), offset)


_CORE_SIZES: Final = [(n, 8) for n in (*GENERAL, "rip")] + [(n, 4) for n in ("eflags", *SEGMENTS)]
_GDBSX: Final = _layout(_CORE_SIZES)
_QEMU: Final = _layout(
    _CORE_SIZES
    + [(n, 8) for n in SYSTEM]
    + [(f"st{i}", 10) for i in range(8)]
    + [(n, 4) for n in _X87_CONTROL]
    + [(f"xmm{i}", 16) for i in range(16)]
    + [("mxcsr", 4)]
)
_BY_SIZE: Final = {layout.size: layout for layout in (_GDBSX, _QEMU)}


def layout_of_size(size: int) -> Layout:
    """The layout of a ``g`` reply of ``size`` bytes: a known one, else the 164-byte core that every x86-64 stub
    begins with. Raises :class:`ProtocolError` when it is smaller than that."""
    if size < _GDBSX.size:
        raise ProtocolError(
            f"the stub's register reply has {size} bytes: not x86-64",
            hint="probekit traces x86-64 guests; QEMU must be qemu-system-x86_64",
        )
    return _BY_SIZE.get(size, Layout(_GDBSX.slots, size))


def layout_from_xml(xml: str) -> Layout | None:
    """The layout that a target description gives, or None when it is not a usable x86-64 one.

    Not an XML parser on purpose: the text comes from the stub and entities are never expanded.
    """
    registers: list[tuple[str, int]] = []
    for match in _REG.finditer(xml):
        attributes = dict(_ATTRIBUTE.findall(match[1]))
        bits, number = attributes.get("bitsize", ""), attributes.get("regnum", "")
        if not bits.isdecimal() or len(bits) > 4 or len(registers) >= _MAX_REGISTERS:
            return None
        if number and number != str(len(registers)):
            return None
        registers.append((attributes.get("name", ""), int(bits) // 8))
    layout = _layout(registers)
    core = tuple(slot.name for slot in layout.slots[: len(CORE)])
    return layout if core == CORE and layout.slots[: len(CORE)] == _GDBSX.slots else None


def decode(layout: Layout, raw: bytes) -> Regs:
    """The named registers in ``raw``. Raises :class:`ProtocolError` when its length is not the layout's."""
    if len(raw) != layout.size:
        raise ProtocolError(f"a register reply of {len(raw)} bytes, not {layout.size}", reply=raw)
    values = {
        slot.name: int.from_bytes(raw[slot.offset : slot.offset + slot.size], "little")
        for slot in layout.slots
        if slot.name in _SHOWN
    }
    return Regs(values=values, raw=raw)


def encode(layout: Layout, regs: Regs) -> bytes:
    """``regs`` as bytes for the stub: ``raw`` with the named values laid over it.

    Raises :class:`ProtocolError` when ``raw`` is another stub's, :class:`OverflowError` for a value too large.
    """
    if len(regs.raw) != layout.size:
        raise ProtocolError(f"registers of {len(regs.raw)} bytes do not belong to this stub ({layout.size})")
    out = bytearray(regs.raw)
    for slot in layout.slots:
        value = regs.values.get(slot.name)
        if value is not None:
            out[slot.offset : slot.offset + slot.size] = value.to_bytes(slot.size, "little")
    return bytes(out)


def changes(layout: Layout, old: bytes, new: bytes) -> list[tuple[int, bytes]]:
    """The registers that differ, as (number for ``P``, new bytes)."""
    return [
        (slot.number, new[slot.offset : slot.offset + slot.size])
        for slot in layout.slots
        if old[slot.offset : slot.offset + slot.size] != new[slot.offset : slot.offset + slot.size]
    ]
