"""Ranges as watchpoints: any where an emulator watches, four small ones where a processor does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probekit.errors import UnsupportedError
from probekit.target.watchpoints import HARDWARE_WATCHPOINTS, Watchpoint, plan_watchpoints

AT = 0xFFFF888000001000


def test_an_emulator_takes_them_as_they_are() -> None:
    wanted = [Watchpoint(AT + 3, 1000, "watch_write"), Watchpoint(AT, 1, "watch_read"), Watchpoint(AT, 1, "watch_read")]
    assert plan_watchpoints(wanted, hardware=False) == tuple(wanted[:2])


def test_a_processor_wants_them_small_and_aligned() -> None:
    planned = plan_watchpoints([Watchpoint(AT + 3, 7, "watch_write")], hardware=True)
    assert [(p.addr - AT, p.size, p.kind) for p in planned] == [
        (3, 1, "watch_write"),
        (4, 4, "watch_write"),
        (8, 2, "watch_write"),
    ]


def test_a_processor_cannot_watch_reads_alone() -> None:
    planned = plan_watchpoints([Watchpoint(AT, 8, "watch_read")], hardware=True)
    assert planned == (Watchpoint(AT, 8, "watch_access"),)
    both = [Watchpoint(AT, 8, "watch_write"), Watchpoint(AT, 8, "watch_read")]
    for order in (both, both[::-1]):
        assert plan_watchpoints(order, hardware=True) == (Watchpoint(AT, 8, "watch_access"),)


def test_a_processor_has_four() -> None:
    four = [Watchpoint(AT + 16 * n, 8, "watch_write") for n in range(HARDWARE_WATCHPOINTS)]
    assert plan_watchpoints(four, hardware=True) == tuple(four)
    with pytest.raises(UnsupportedError, match="needs 5 hardware watchpoints, and a processor has 4") as caught:
        plan_watchpoints([*four, Watchpoint(AT + 0x100, 1, "watch_write")], hardware=True)
    assert "fewer or smaller ranges" in caught.value.hint


@given(st.integers(0, 100), st.integers(1, 32))
def test_pieces_cover_a_range_exactly(offset: int, size: int) -> None:
    try:
        planned = plan_watchpoints([Watchpoint(AT + offset, size, "watch_write")], hardware=True)
    except UnsupportedError:
        assert size > 8
        return
    covered = [byte for p in planned for byte in range(p.addr, p.addr + p.size)]
    assert covered == list(range(AT + offset, AT + offset + size))
    assert all(p.size in (1, 2, 4, 8) and p.addr % p.size == 0 for p in planned)
