"""Until when the records are complete, with CPUs that record while their rings are read one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from probekit.buffers.layout import RawRecord
from probekit.consumer.record_order import RecordOrder
from probekit.enabling.guest_engine.read_times import ReadTimes


def test_what_was_read_before_is_complete_where_no_cpu_was_in_a_clause() -> None:
    times = ReadTimes((0, 1))
    assert times.note({0: 10, 1: 30}, (), paused=False) == 10, "CPU 0 has no older record than its last one"
    assert times.note({0: 31}, (), paused=False) == 30
    assert times.note({}, (), paused=False) == 31


def test_a_cpu_in_a_clause_may_still_write_what_follows_its_last_record() -> None:
    times = ReadTimes((0, 1))
    times.note({0: 10, 1: 30}, (), paused=False)
    assert times.note({}, (0,), paused=False) == 10
    assert times.note({0: 20}, (0,), paused=False) == 20
    assert times.note({}, (), paused=False) == 30 == times.complete_until


def test_a_guest_that_stands_still_has_nothing_between_two_rings() -> None:
    times = ReadTimes((0, 1))
    assert times.note({1: 30}, (), paused=True) == 30
    assert times.note({1: 40}, (0,), paused=True) == 30, "it never goes back"


def test_no_cpu() -> None:
    assert ReadTimes(()).note({}, (), paused=False) == 0


@dataclass(frozen=True)
class Firing:
    """When the guard is taken, the time stamp, when the record is visible, when the guard is free again."""

    begin: int
    stamp: int
    visible: int
    end: int


_STEPS = st.integers(1, 8)
_CPU = st.lists(st.tuples(_STEPS, _STEPS, _STEPS, _STEPS), max_size=8)


def _firings(steps: list[tuple[int, int, int, int]]) -> list[Firing]:
    """Even times, so that none is a moment at which the host looks."""
    moments = list(accumulate(2 * step for firing in steps for step in firing))
    return [Firing(*moments[n : n + 4]) for n in range(0, len(moments), 4)]


@given(
    st.lists(_CPU, min_size=1, max_size=3).map(lambda cpus: [_firings(steps) for steps in cpus]),
    st.lists(st.integers(0, 20), max_size=60),
    st.booleans(),
)
def test_what_is_shown_is_in_order_whenever_the_host_looks(
    cpus: list[list[Firing]], gaps: list[int], paused: bool
) -> None:
    """``gaps``: twice the time between two looks of the host: at each CPU's guard, then at each CPU's ring."""
    order, complete = RecordOrder(), ReadTimes(range(len(cpus)))
    looks = iter(list(accumulate((2 * gap for gap in gaps), initial=1)))
    tails = [0] * len(cpus)
    shown: list[int] = []
    last = 1
    for start in looks:
        at = [start] * (2 * len(cpus)) if paused else [start, *(next(looks, start) for _ in range(2 * len(cpus) - 1))]
        at = list(accumulate((last, *at), max))[1:]
        last = at[-1]
        guards, rings = at[: len(cpus)], at[len(cpus) :]
        inside = {n for n, firings in enumerate(cpus) if any(f.begin < guards[n] < f.end for f in firings)}
        found: list[tuple[int, RawRecord]] = []
        newest: dict[int, int] = {}
        for n, firings in enumerate(cpus):
            seen = [f for f in firings[tails[n] :] if f.visible < rings[n]]
            tails[n] += len(seen)
            found += [(n, RawRecord(0, f.stamp, 0, 0, b"")) for f in seen]
            if seen:
                newest[n] = seen[-1].stamp
        until = complete.note(newest, inside, paused=paused)
        shown += [r.timestamp for _, r in order.add(found, until, now=0, longest=1)]
        missing = [f.stamp for n, firings in enumerate(cpus) for f in firings[tails[n] :]]
        assert until <= min(missing, default=until)
    shown += [record.timestamp for _, record in order.rest()]
    assert shown == sorted(shown) and len(shown) == sum(tails)
