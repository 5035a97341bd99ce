"""Unwind a stopped CPU's stack with the kernel's own tables (ORC): from its registers to its callers.

For each range of text an *entry* says where the caller's stack pointer is, and where its frame pointer was saved::

    orc_unwind_ip   s32 each, by address: the distance from the word itself to the range's start
    orc_unwind      sp_offset s16, bp_offset s16, sp_reg:4, bp_reg:4, type, and flags that differ from kernel to kernel

Kernel commits ee9f8fce9964 (v4.14), ffb1b4a41016 (v6.3: ``signal``) and fb799447ae29 (v6.4: ``end`` became a type).
The guest is untrusted: unwinding ends where anything makes no sense.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from probekit.kernel.c_types import CField, CStruct
from probekit.records import record

__all__ = ("OrcLayout", "OrcTable", "OrcUnwinder", "ReadMemory", "orc_layout")

ReadMemory = Callable[[int, int], bytes | None]
"""Reads kernel memory at (address, size); None where it is unreadable."""

_FrameKind = Literal["call", "regs", "partial", "end"]
"""How a frame was entered: by a call, or by an exception that saved all or part of the registers.

``end`` is the first frame of a stack.
"""

_ENTRY_SIZE = 6
_KERNEL_HALF = 1 << 63
_MASK = (1 << 64) - 1
# ORC_REG_* (arch/x86/include/asm/orc_types.h)
_PREV_SP, _DX, _DI, _BP, _SP, _R10, _R13, _BP_INDIRECT, _SP_INDIRECT = 1, 2, 3, 4, 5, 6, 7, 8, 9
_NAMED = {_DX: "rdx", _DI: "rdi", _R10: "r10", _R13: "r13"}
# Byte offsets in struct pt_regs.
_PT_REGS_OFFSETS = {"r13": 16, "rbp": 32, "r10": 56, "rdx": 96, "rdi": 112, "rip": 128, "rsp": 152}
_PT_REGS_SIZE = 168
_KINDS_BEFORE_6_4: dict[int, _FrameKind] = {0: "call", 1: "regs", 2: "partial"}
_KINDS: dict[int, _FrameKind] = {1: "end", 2: "call", 3: "regs", 4: "partial"}


@record
class OrcLayout:
    """How an entry's last two bytes are read."""

    kinds: Mapping[int, _FrameKind]
    """What each value of the type means."""
    type: tuple[int, int]
    """Shift and mask of the bit-field that holds the type."""
    end: tuple[int, int] | None
    """Shift and mask of the flag ``end``, on kernels where that is not a type."""


def orc_layout(entry: CStruct) -> OrcLayout:
    """Tell how this kernel's ``struct orc_entry`` is read. Raises :class:`SymbolError` when it is another one."""
    end = entry.find_field("end")
    return OrcLayout(
        _KINDS_BEFORE_6_4 if end is not None else _KINDS, _bits(entry.field("type")), _bits(end) if end else None
    )


def _bits(field: CField) -> tuple[int, int]:
    return 8 * (field.offset - 4) + field.bit_shift, (1 << (field.bit_size or 8)) - 1


@record
class _OrcEntry:
    """One entry, decoded."""

    sp_offset: int
    """What to add to ``sp_reg``'s value for the caller's stack pointer."""
    bp_offset: int
    """Where the caller's frame pointer was saved, from ``bp_reg``'s value."""
    sp_reg: int
    """``ORC_REG_*`` number."""
    bp_reg: int
    """``ORC_REG_*`` number."""
    kind: _FrameKind
    """How the frame was entered."""


class OrcTable:
    """The entries of the kernel's text or of one module's."""

    def __init__(self, start: int, ips: bytes, entries: bytes, layout: OrcLayout) -> None:
        """Use these bytes of ``orc_unwind_ip`` (``ips``) and ``orc_unwind`` (``entries``).

        ``start``: address of ``ips`` in the guest.
        """
        self._start = start
        self._words = array("i", ips[: len(ips) // 4 * 4])
        self._entries = entries
        self._layout = layout

    def find(self, ip: int) -> _OrcEntry | None:
        """Return the entry for the address ``ip``, or None."""
        words, distance = self._words, ip - self._start
        number = bisect_right(range(len(words)), distance, key=lambda n: words[n] + 4 * n) - 1
        data = self._entries[number * _ENTRY_SIZE : (number + 1) * _ENTRY_SIZE] if number >= 0 else b""
        if len(data) < _ENTRY_SIZE:
            return None
        sp_offset, bp_offset, bits = struct.unpack("<hhH", data)
        shift, mask = self._layout.type
        kind = self._layout.kinds.get(bits >> shift & mask)
        if self._layout.end is not None and bits >> self._layout.end[0] & self._layout.end[1]:
            kind = "end"
        return None if kind is None else _OrcEntry(sp_offset, bp_offset, bits & 15, bits >> 4 & 15, kind)


@dataclass(slots=True)
class _Frame:
    """One frame of a stack."""

    regs: dict[str, int]
    """The registers that are known there."""
    signal: bool
    """Whether ``rip`` was interrupted and is not a return address."""


class OrcUnwinder:
    """Unwinds stacks with ``tables``: (start, end, table) of the kernel's text and each module's."""

    def __init__(self, tables: list[tuple[int, int, OrcTable]]) -> None:
        self._tables = tables

    def callers(self, regs: Mapping[str, int], read: ReadMemory) -> Iterator[int]:
        """Yield ``rip`` and the return addresses above it, as the kernel's own unwinder finds them.

        ``regs``: ``rip``, ``rsp`` and whatever other registers are known. The caller bounds how many it takes.
        """
        frame = _Frame(dict(regs), signal=True)
        while frame.regs["rip"] & _KERNEL_HALF:
            yield frame.regs["rip"]
            entry = self._find(frame.regs["rip"] - (not frame.signal))
            if entry is None or entry.kind == "end":
                return
            before = frame.regs["rsp"]
            caller = _caller_frame(entry, frame, read)
            # The stack may change (interrupts have their own), but not go round in circles.
            if caller is None or (not caller.signal and caller.regs["rsp"] == before):
                return
            frame = caller

    def _find(self, ip: int) -> _OrcEntry | None:
        return next((table.find(ip) for start, end, table in self._tables if start <= ip < end), None)


def _caller_frame(entry: _OrcEntry, frame: _Frame, read: ReadMemory) -> _Frame | None:
    top = _stack_pointer(entry, frame, read)
    if top is None:
        return None
    found = _read_frame(entry.kind, top, read)
    if found is None:
        return None
    match entry.bp_reg:
        case 0:
            found.regs.setdefault("rbp", frame.regs.get("rbp", 0))
        case reg if reg in (_PREV_SP, _BP):
            base = top if reg == _PREV_SP else frame.regs.get("rbp", 0)
            saved = _word(base + entry.bp_offset, read)
            if saved is None:
                return None
            found.regs["rbp"] = saved
        case _:
            return None
    return found


def _stack_pointer(entry: _OrcEntry, frame: _Frame, read: ReadMemory) -> int | None:
    """Return the stack pointer of the caller, or None."""
    regs = frame.regs
    match entry.sp_reg:
        case reg if reg in (_SP, _SP_INDIRECT):
            addr = regs["rsp"] + (entry.sp_offset if reg == _SP else 0)
        case reg if reg in (_BP, _BP_INDIRECT):
            addr = regs.get("rbp", 0) + entry.sp_offset
        case reg if _NAMED.get(reg, "") in regs:
            return regs[_NAMED[reg]]
        case _:
            return None
    if entry.sp_reg in (_SP_INDIRECT, _BP_INDIRECT):
        word = _word(addr, read)
        return None if word is None else word + (entry.sp_offset if entry.sp_reg == _SP_INDIRECT else 0)
    return addr


def _read_frame(kind: _FrameKind, top: int, read: ReadMemory) -> _Frame | None:
    """Read the caller's frame, whose stack ends at ``top``, or None."""
    if kind == "call":
        ip = _word(top - 8, read)
        return None if ip is None else _Frame({"rip": ip, "rsp": top & _MASK}, signal=False)
    if kind == "regs":
        data = read(top & _MASK, _PT_REGS_SIZE)
        if data is None or len(data) < _PT_REGS_SIZE:
            return None
        return _Frame(
            {name: int.from_bytes(data[at : at + 8], "little") for name, at in _PT_REGS_OFFSETS.items()}, signal=True
        )
    ip, sp = _word(top, read), _word(top + 24, read)  # an interrupt pushes rip, cs, rflags, rsp and ss
    return None if ip is None or sp is None else _Frame({"rip": ip, "rsp": sp}, signal=True)


def _word(addr: int, read: ReadMemory) -> int | None:
    data = read(addr & _MASK, 8)
    return int.from_bytes(data, "little") if data is not None and len(data) == 8 else None
