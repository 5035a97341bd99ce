"""Unwinding by ORC tables: each way to find a caller, both layouts, and tables that make no sense."""

from __future__ import annotations

import struct
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probekit.kernel.c_types import CInt, CMember, CStruct
from probekit.kernel.orc import OrcTable, OrcUnwinder, orc_layout

TEXT = 0xFFFFFFFF81000000
TABLE = 0xFFFFFFFF82000000
STACK = 0xFFFFC90000000000
IRQ = 0xFFFFC90000010000
UNDEFINED, PREV_SP, DI, BP, SP, R10, BP_INDIRECT, SP_INDIRECT = 0, 1, 3, 4, 5, 6, 8, 9


def _layout(*, old: bool) -> CStruct:
    word = CInt("unsigned int", 4, signed=False)
    bits = [("type", 40, 2), ("end", 42, 1)] if old else [("type", 40, 3), ("signal", 43, 1)]
    return CStruct("orc_entry", "struct", 6, tuple(CMember(name, word, at, size) for name, at, size in bits))


def _entry(sp: int, sp_offset: int, bp: int = UNDEFINED, bp_offset: int = 0, kind: str = "call", *, old: bool) -> bytes:
    number = (("call", "regs", "partial") if old else ("undefined", "end", "call", "regs", "partial")).index(kind)
    return struct.pack("<hhH", sp_offset, bp_offset, sp | bp << 4 | number << 8)


def _unwinder(*rows: tuple[int, bytes], old: bool) -> OrcUnwinder:
    """``rows``: where each range of text begins, and its entry."""
    ips = b"".join(struct.pack("<i", TEXT + at - (TABLE + 4 * n)) for n, (at, _) in enumerate(rows))
    entries = b"".join(entry for _, entry in rows)
    return OrcUnwinder([(TEXT, TEXT + 0x10000, OrcTable(TABLE, ips, entries, orc_layout(_layout(old=old))))])


class KernelMemory:
    """Words by address."""

    def __init__(self, words: dict[int, int]) -> None:
        self._words = words

    def __call__(self, addr: int, size: int) -> bytes | None:
        if any(at not in self._words for at in range(addr, addr + size, 8)):
            return None
        return b"".join(struct.pack("<Q", self._words[at]) for at in range(addr, addr + size, 8))


def _callers(unwinder: OrcUnwinder, words: dict[int, int], **regs: int) -> list[int]:
    known = {"rip": TEXT, "rsp": STACK, "rbp": 0, **regs}
    return [ip - TEXT for ip in islice(unwinder.callers(known, KernelMemory(words)), 20)]


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize(
    ("entry", "words", "regs"),
    [
        ((SP, 8), {STACK: TEXT + 0x101}, {}),
        ((SP, 32), {STACK + 24: TEXT + 0x101}, {}),
        ((BP, 16, PREV_SP, -16), {STACK + 40: TEXT + 0x101, STACK + 32: 7}, {"rbp": STACK + 32}),
        ((R10, 0), {STACK + 72: TEXT + 0x101}, {"r10": STACK + 80}),
        ((BP_INDIRECT, -8), {STACK: STACK + 64, STACK + 56: TEXT + 0x101}, {"rbp": STACK + 8}),
        ((SP_INDIRECT, 16), {STACK: STACK + 64, STACK + 72: TEXT + 0x101}, {}),
    ],
    ids=["sp", "frame", "bp", "r10", "bp indirect", "sp indirect"],
)
def test_where_the_caller_is(old: bool, entry: tuple[int, ...], words: dict[int, int], regs: dict[str, int]) -> None:
    end = _entry(UNDEFINED, 0, kind="call", old=True)[:4] + b"\0\4" if old else _entry(0, 0, kind="end", old=False)
    unwinder = _unwinder((0, _entry(*entry, old=old)), (0x100, end), old=old)
    assert _callers(unwinder, words, **regs) == [0, 0x101]


def test_an_interrupts_frame_leads_to_what_it_interrupted(old: bool = False) -> None:
    """From a function on the interrupt stack to what was interrupted: its own address counts, not the one before."""
    rows = (
        (0x000, _entry(SP, 8, old=old)),  # runs on the interrupt stack
        (0x100, _entry(BP_INDIRECT, 0, kind="call", old=old)),  # on the way there: the other stack's place is saved
        (0x200, _entry(SP, 0, kind="regs", old=old)),
        (0x300, _entry(SP, 0, kind="partial", old=old)),
        (0x400, _entry(SP, 8, old=old)),  # begins exactly where it was interrupted
        (0x500, _entry(UNDEFINED, 0, kind="end", old=old)),
    )
    frame = STACK + 0x100
    words = {
        IRQ: TEXT + 0x150,
        IRQ + 0x80: frame,
        frame - 8: TEXT + 0x250,
        **{frame + 8 * n: 0 for n in range(21)},
        frame + 128: TEXT + 0x300,
        frame + 152: STACK + 0x300,
        **dict(zip(range(STACK + 0x300, STACK + 0x328, 8), (TEXT + 0x400, 16, 2, STACK + 0x400, 24), strict=True)),
        STACK + 0x400: TEXT + 0x550,
    }
    unwinder = _unwinder(*rows, old=old)
    assert _callers(unwinder, words, rsp=IRQ, rbp=IRQ + 0x80) == [0, 0x150, 0x250, 0x300, 0x400, 0x550]


def test_an_unwind_ends_at_a_circle_or_outside_of_kernel_text() -> None:
    same = _unwinder((0, _entry(SP, 0, old=False)), old=False)
    assert _callers(same, {STACK - 8: TEXT}) == [0]
    assert _callers(same, {}) == [0]  # nothing there
    assert _callers(same, {STACK - 8: 0x1000}, rip=TEXT + 0x20000) == [0x20000]  # no text of the kernel's
    assert _callers(same, {}, rip=0x401000) == []


@given(st.binary(max_size=60), st.binary(max_size=90), st.booleans(), st.integers(0, 0x300), st.data())
def test_any_table_ends(ips: bytes, entries: bytes, old: bool, at: int, data: st.DataObject) -> None:
    table = OrcTable(TEXT, ips, entries, orc_layout(_layout(old=old)))
    words = st.sampled_from([TEXT + at, TEXT, STACK, STACK + 8, 0, (1 << 64) - 1])

    def read(addr: int, size: int) -> bytes | None:
        return b"".join(struct.pack("<Q", data.draw(words)) for _ in range(size // 8)) if addr % 3 else None

    regs = {"rip": TEXT + at, "rsp": STACK, "rbp": STACK + 16}
    assert len(list(islice(OrcUnwinder([(TEXT, TEXT + 0x400, table)]).callers(regs, read), 10))) <= 10
