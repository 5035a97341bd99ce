"""Tell which byte of a ``g`` reply belongs to which register.

A *layout* is the registers in the stub's order, each with its size; the
index is the number that ``P`` takes. The layout comes from the stub's own target
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

__all__ = (
    "CORE",
    "SYSTEM",
    "RegisterLayout",
    "RegisterSlot",
    "changes",
    "decode",
    "encode",
    "layout_from_xml",
    "layout_of_size",
)

_GENERAL: Final = (
    *("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp"),
    *("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"),
)
_SEGMENTS: Final = ("cs", "ss", "ds", "es", "fs", "gs")
CORE: Final = (*_GENERAL, "rip", "eflags", *_SEGMENTS)
"""The registers that every layout has."""
SYSTEM: Final = ("fs_base", "gs_base", "k_gs_base", "cr0", "cr2", "cr3", "cr4", "cr8", "efer")
"""The registers that :class:`Regs` shows beyond the core, where the stub has them."""

_SHOWN: Final = frozenset((*CORE, *SYSTEM))
_X87_CONTROL: Final = ("fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop")
_REG: Final = re.compile(r"<reg\s([^>]*)>")
_ATTRIBUTE: Final = re.compile(r'(\w+)\s*=\s*"([^"]*)"')
_MAX_REGISTERS: Final = 1024


@dataclass(frozen=True, slots=True)
class RegisterSlot:
    """One register in the ``g`` reply."""

    name: str
    """Name of the register."""
    number: int
    """Its number for the packet ``P``."""
    offset: int
    """Bytes from the start of the reply."""
    size: int
    """Bytes."""


@dataclass(frozen=True, slots=True)
class RegisterLayout:
    """The registers of a stub in its order."""

    slots: tuple[RegisterSlot, ...]
    """The registers, in the stub's order."""
    size: int
    """Bytes of the ``g`` reply."""


def _layout(registers: list[tuple[str, int]]) -> RegisterLayout:
    slots, offset = [], 0
    for number, (name, size) in enumerate(registers):
        slots.append(RegisterSlot(name, number, offset, size))
        offset += size
    return RegisterLayout(tuple(slots), offset)


_CORE_SIZES: Final = [(n, 8) for n in (*_GENERAL, "rip")] + [(n, 4) for n in ("eflags", *_SEGMENTS)]
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


def layout_of_size(size: int) -> RegisterLayout:
    """Return the layout of a ``g`` reply of ``size`` bytes.

    It is a known one, else the 164-byte core that every x86-64 stub begins with. Raises :class:`ProtocolError` for a
    reply that is smaller than that.
    """
    if size < _GDBSX.size:
        raise ProtocolError(
            f"the stub's register reply has {size} bytes: not x86-64",
            hint="probekit traces x86-64 guests; QEMU must be qemu-system-x86_64",
        )
    return _BY_SIZE.get(size, RegisterLayout(_GDBSX.slots, size))


def layout_from_xml(xml: str) -> RegisterLayout | None:
    """Return the layout that a target description gives, or None when it is not a usable x86-64 one.

    This is not an XML parser on purpose: the text comes from the stub, and entities are never expanded.
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


def decode(layout: RegisterLayout, raw: bytes) -> Regs:
    """Return the named registers in ``raw``. Raises :class:`ProtocolError` when its length is not the layout's."""
    if len(raw) != layout.size:
        raise ProtocolError(f"a register reply of {len(raw)} bytes, not {layout.size}", reply=raw)
    values = {
        slot.name: int.from_bytes(raw[slot.offset : slot.offset + slot.size], "little")
        for slot in layout.slots
        if slot.name in _SHOWN
    }
    return Regs(values=values, raw=raw)


def encode(layout: RegisterLayout, regs: Regs) -> bytes:
    """Return ``regs`` as bytes for the stub: their ``raw`` with the named values written over it.

    Raises :class:`ProtocolError` when ``raw`` came from another stub, :class:`OverflowError` for a value too large.
    """
    if len(regs.raw) != layout.size:
        raise ProtocolError(f"registers of {len(regs.raw)} bytes do not belong to this stub ({layout.size})")
    out = bytearray(regs.raw)
    for slot in layout.slots:
        value = regs.values.get(slot.name)
        if value is not None:
            out[slot.offset : slot.offset + slot.size] = value.to_bytes(slot.size, "little")
    return bytes(out)


def changes(layout: RegisterLayout, old: bytes, new: bytes) -> list[tuple[int, bytes]]:
    """Return the registers that differ, as (number for ``P``, new bytes)."""
    return [
        (slot.number, new[slot.offset : slot.offset + slot.size])
        for slot in layout.slots
        if old[slot.offset : slot.offset + slot.size] != new[slot.offset : slot.offset + slot.size]
    ]
