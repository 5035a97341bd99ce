"""Memory requests as packets: pieces that cross no page, replies put together, edits joined only where they touch."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probekit.errors import ProtocolError
from probekit.target.memory_packets import join_replies, plan_reads, plan_writes

MEMORY = bytes(range(256)) * 64


def _no_rest(addr: int, size: int) -> bytes:
    raise AssertionError("nothing was left out")


@given(
    ranges=st.lists(st.tuples(st.integers(0, 8000), st.integers(0, 5000)), max_size=6),
    piece=st.sampled_from([1, 7, 64, 2048, 4096]),
)
def test_reads_are_cut_and_joined(ranges: list[tuple[int, int]], piece: int) -> None:
    plan = plan_reads(ranges, piece)
    assert all(0 < size <= piece and addr // piece == (addr + size - 1) // piece for addr, size in plan.pieces)
    replies = [MEMORY[addr : addr + size].hex().encode() for addr, size in plan.pieces]
    assert join_replies(plan, replies, _no_rest) == [MEMORY[addr : addr + size] for addr, size in ranges]


def test_one_refused_piece_makes_its_range_unreadable() -> None:
    plan = plan_reads([(0xFF0, 0x20), (0x2000, 2)], 4096)
    assert plan.pieces == [(0xFF0, 16), (0x1000, 16), (0x2000, 2)] and plan.counts == [2, 1]
    assert join_replies(plan, [b"00" * 16, b"E14", b"beef"], _no_rest) == [None, b"\xbe\xef"]


def test_the_rest_of_a_short_reply_is_asked_for() -> None:
    asked: list[tuple[int, int]] = []

    def one_byte(addr: int, size: int) -> bytes:
        asked.append((addr, size))
        return MEMORY[addr : addr + 1].hex().encode()

    plan = plan_reads([(0x10, 4)], 64)
    assert join_replies(plan, [b"1011"], one_byte) == [MEMORY[0x10:0x14]]
    assert asked == [(0x12, 2), (0x13, 1)]
    assert join_replies(plan, [b"1011"], lambda addr, size: b"E14") == [None]


def test_replies_that_are_no_memory() -> None:
    plan = plan_reads([(0x100, 2)], 64)
    for reply, message in ((b"zzzz", "not hex"), (b"010203", "3 bytes of memory where 2")):
        with pytest.raises(ProtocolError, match=message):
            join_replies(plan, [reply], _no_rest)
    for bad in ((-1, 4), (0, -4)):
        with pytest.raises(ValueError, match="cannot read"):
            plan_reads([bad], 64)


def test_writes_share_a_piece_only_where_they_touch() -> None:
    edits = [(0x10, b"ab"), (0x12, b"c"), (0x14, b"d"), (0x13, b"x"), (0x20, b""), (0x14, b"0123456789")]
    assert plan_writes(edits, 4) == [
        (0x10, b"abc"),
        (0x14, b"d"),
        (0x13, b"x"),
        (0x14, b"0123"),
        (0x18, b"4567"),
        (0x1C, b"89"),
    ]
