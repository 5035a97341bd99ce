"""The kernel's own unwind tables (ORC): from a stopped CPU's registers to its callers.

For each range of text an *entry* says where the caller's stack pointer is, and where its frame pointer was saved::

    orc_unwind_ip   s32 each, by address: how far the range's start is from the word itself
    orc_unwind      sp_offset s16, bp_offset s16, sp_reg:4, bp_reg:4, type, and flags that differ from kernel to kernel

Kernel commits ee9f8fce9964 (v4.14), ffb1b4a41016 (v6.3: ``signal``) and fb799447ae29 (v6.4: ``end`` became a type).
The guest is untrusted: an unwinding is bounded, and ends where anything makes no sense.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from probekit.kernel.types import Field, StructType
from probekit.records import record

__all__ = ("OrcTable", "OrcUnwinder", "Reader", "orc_layout")

Reader = Callable[[int, int], bytes | None]
"""``size`` bytes of kernel memory at ``addr``; None where there is none."""

Kind = Literal["call", "regs", "partial", "end"]

_ENTRY = 6
_KERNEL = 1 << 63
_MASK = (1 << 64) - 1
_DX, _DI, _BP, _SP, _R10, _R13, _BP_INDIRECT, _SP_INDIRECT = 2, 3, 4, 5, 6, 7, 8, 9
_PREV_SP = 1
_NAMED = {_DX: "rdx", _DI: "rdi", _R10: "r10", _R13: "r13"}
# struct pt_regs
_SAVED = {"r13": 16, "rbp": 32, "r10": 56, "rdx": 96, "rdi": 112, "rip": 128, "rsp": 152}
_PT_REGS = 168
_OLD: dict[int, Kind] = {0: "call", 1: "regs", 2: "partial"}
_NEW: dict[int, Kind] = {1: "end", 2: "call", 3: "regs", 4: "partial"}


@record
class _Layout:
    """Shift and mask of the bit-fields in the entry's last two bytes. ``end``: only where it is no type."""

    kinds: Mapping[int, Kind]
    type: tuple[int, int]
    end: tuple[int, int] | None


def orc_layout(entry: StructType) -> _Layout:
    """How this kernel's ``struct orc_entry`` is read. Raises :class:`SymbolError` when it is another one."""
    end = entry.find_field("end")
    return _Layout(_OLD if end is not None else _NEW, _bits(entry.field("type")), _bits(end) if end else None)


def _bits(field: Field) -> tuple[int, int]:
    return 8 * (field.offset - 4) + field.bit_shift, (1 << (field.bit_size or 8)) - 1


@record
class _Entry:
    sp_offset: int
    bp_offset: int
    sp_reg: int
    bp_reg: int
    kind: Kind


class OrcTable:
    """The entries of one text. ``start``: of ``ips`` in the guest, ``ips`` and ``entries``: as they are there."""

    def __init__(self, start: int, ips: bytes, entries: bytes, layout: _Layout) -> None:
        self._start = start
        self._words = array("i", ips[: len(ips) // 4 * 4])
        self._entries = entries
        self._layout = layout

    def find(self, ip: int) -> _Entry | None:
        """The entry that holds at ``ip``."""
        words, distance = self._words, ip - self._start
        number = bisect_right(range(len(words)), distance, key=lambda n: words[n] + 4 * n) - 1
        data = self._entries[number * _ENTRY : (number + 1) * _ENTRY] if number >= 0 else b""
        if len(data) < _ENTRY:
            return None
        sp_offset, bp_offset, bits = struct.unpack("<hhH", data)
        shift, mask = self._layout.type
        kind = self._layout.kinds.get(bits >> shift & mask)
        if self._layout.end is not None and bits >> self._layout.end[0] & self._layout.end[1]:
            kind = "end"
        return None if kind is None else _Entry(sp_offset, bp_offset, bits & 15, bits >> 4 & 15, kind)


@dataclass(slots=True)
class _State:
    """One frame. ``regs``: registers that are known there; ``signal``: ``rip`` is no return address."""

    regs: dict[str, int]
    signal: bool


class OrcUnwinder:
    """``tables``: of the kernel and its modules, with the range of text that each is for."""

    def __init__(self, tables: list[tuple[int, int, OrcTable]]) -> None:
        self._tables = tables

    def callers(self, regs: Mapping[str, int], read: Reader) -> Iterator[int]:
        """``rip`` and the return addresses above it, as the kernel's own unwinder finds them. Unbounded: take some."""
        state = _State(dict(regs), signal=True)
        while state.regs["rip"] & _KERNEL:
            yield state.regs["rip"]
            entry = self._find(state.regs["rip"] - (not state.signal))
            if entry is None or entry.kind == "end":
                return
            before = state.regs["rsp"]
            after = _step(entry, state, read)
            # The stack may change (interrupts have their own), but not go round in circles.
            if after is None or (not after.signal and after.regs["rsp"] == before):
                return
            state = after

    def _find(self, ip: int) -> _Entry | None:
        return next((table.find(ip) for start, end, table in self._tables if start <= ip < end), None)


def _step(entry: _Entry, state: _State, read: Reader) -> _State | None:
    top = _stack_pointer(entry, state, read)
    if top is None:
        return None
    found = _caller(entry.kind, top, read)
    if found is None:
        return None
    match entry.bp_reg:
        case 0:
            found.regs.setdefault("rbp", state.regs.get("rbp", 0))
        case reg if reg in (_PREV_SP, _BP):
            base = top if reg == _PREV_SP else state.regs.get("rbp", 0)
            saved = _word(base + entry.bp_offset, read)
            if saved is None:
                return None
            found.regs["rbp"] = saved
        case _:
            return None
    return found


def _stack_pointer(entry: _Entry, state: _State, read: Reader) -> int | None:
    regs = state.regs
    match entry.sp_reg:
        case reg if reg in (_SP, _SP_INDIRECT):
            place = regs["rsp"] + (entry.sp_offset if reg == _SP else 0)
        case reg if reg in (_BP, _BP_INDIRECT):
            place = regs.get("rbp", 0) + entry.sp_offset
        case reg if _NAMED.get(reg, "") in regs:
            return regs[_NAMED[reg]]
        case _:
            return None
    if entry.sp_reg in (_SP_INDIRECT, _BP_INDIRECT):
        word = _word(place, read)
        return None if word is None else word + (entry.sp_offset if entry.sp_reg == _SP_INDIRECT else 0)
    return place


def _caller(kind: Kind, top: int, read: Reader) -> _State | None:
    if kind == "call":
        ip = _word(top - 8, read)
        return None if ip is None else _State({"rip": ip, "rsp": top & _MASK}, signal=False)
    if kind == "regs":
        data = read(top & _MASK, _PT_REGS)
        if data is None or len(data) < _PT_REGS:
            return None
        return _State({name: int.from_bytes(data[at : at + 8], "little") for name, at in _SAVED.items()}, signal=True)
    ip, sp = _word(top, read), _word(top + 24, read)  # what an interrupt pushes: rip cs rflags rsp ss
    return None if ip is None or sp is None else _State({"rip": ip, "rsp": sp}, signal=True)


def _word(addr: int, read: Reader) -> int | None:
    data = read(addr & _MASK, 8)
    return int.from_bytes(data, "little") if data is not None and len(data) == 8 else None
