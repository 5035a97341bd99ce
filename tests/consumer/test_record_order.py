"""Records of several CPUs by time: what waits, for what, and for how long at most."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from probekit.buffers.layout import RawRecord
from probekit.consumer.record_order import RecordOrder


def records(*times: int, cpu: int = 0) -> list[tuple[int, RawRecord]]:
    return [(cpu, RawRecord(0, time, 0, 0, b"")) for time in times]


def times(found: list[tuple[int, RawRecord]]) -> list[int]:
    return [record.timestamp for _, record in found]


def test_what_a_later_reading_may_precede_waits() -> None:
    order = RecordOrder()
    first = [*records(10), *records(12, 30, cpu=1)]
    assert times(order.add(first, 12, now=0, longest=9)) == [10, 12]
    assert times(order.add(records(25, 31), 30, now=0, longest=9)) == [25, 30]
    assert times(order.add([], 30, now=0, longest=9)) == []
    assert times(order.rest()) == [31] and order.rest() == []


def test_a_reading_after_which_nothing_is_missing_shows_all() -> None:
    order = RecordOrder()
    order.add(records(5), 0, now=0, longest=9)
    assert times(order.add(records(3, 7), None, now=0, longest=9)) == [3, 5, 7]
    assert order.rest() == []


def test_no_record_waits_for_longer_than_it_may() -> None:
    order = RecordOrder()
    assert order.add(records(5, 6), 0, now=0.0, longest=1) == []
    assert order.add(records(7), 0, now=0.6, longest=1) == []
    assert times(order.add(records(8), 0, now=1.0, longest=1)) == [5, 6]
    assert times(order.add([], 0, now=1.7, longest=1)) == [7]
    assert times(order.add([], 0, now=2.0, longest=1)) == [8]


def test_equal_times_stay_as_they_were_read() -> None:
    both = [*records(4, cpu=1), *records(4, cpu=0)]
    assert RecordOrder().add(both, None, now=0, longest=1) == both


@given(
    st.lists(
        st.tuples(st.lists(st.integers(0, 50), max_size=6), st.none() | st.integers(0, 50), st.floats(0, 2)), max_size=8
    )
)
def test_every_record_is_shown_once_and_in_time(readings: list[tuple[list[int], int | None, float]]) -> None:
    order, now = RecordOrder(), 0.0
    waiting: list[tuple[float, int]] = []
    for stamps, until, passed in readings:
        now += passed
        shown = times(order.add(records(*stamps), until, now=now, longest=1.0))
        assert shown == sorted(shown)
        waiting += [(now, stamp) for stamp in stamps]
        for stamp in shown:
            waiting.remove(next(item for item in waiting if item[1] == stamp))  # the one that has waited longest
        assert not [since for since, _ in waiting if now - since >= 1.0]
        assert until is not None or not waiting
    assert times(order.rest()) == sorted(stamp for _, stamp in waiting)
