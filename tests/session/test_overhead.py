"""How much of the guest's time a program takes, and when it is too much."""

from __future__ import annotations

import pytest

from probekit.consumer.events import Cost
from probekit.enabling.api import ClauseCosts
from probekit.errors import UnsupportedError
from probekit.session.overhead import Overhead, refuse_measuring


class _Run:
    """A run whose clock and costs are set by hand. Times are in seconds."""

    def __init__(self, limit: int, cpus: int = 1) -> None:
        self.now = self.paused = self.spent = 0.0
        self.asked = 0
        self.overhead = Overhead(limit, cpus, lambda: self.paused, lambda: self.now)

    def costs(self) -> ClauseCosts:
        self.asked += 1
        return ClauseCosts((Cost(0, 10, self.spent * 1e9),), 0, 0.0)

    def exceeded(self) -> bool:
        return self.overhead.exceeded(self.costs)


def test_costs_are_asked_for_once_a_second() -> None:
    run = _Run(10)
    for moment in (0.2, 0.5, 0.9):
        run.now = moment
        assert not run.exceeded()
    assert run.asked == 0
    run.now = 1.0
    assert not run.exceeded() and run.asked == 1
    run.now = 1.9
    assert not run.exceeded() and run.asked == 1


def test_each_second_is_judged_by_itself() -> None:
    run = _Run(10)
    run.now, run.spent = 1.0, 0.1  # 10 %: what is allowed
    assert not run.exceeded()
    run.now, run.spent = 2.0, 0.21  # 11 % in this second, 10.5 % since the beginning
    assert run.exceeded()
    run.now = 3.0  # it stays too much
    assert run.exceeded() and run.asked == 2
    found = run.overhead.summary(run.costs())
    assert (round(found.percent, 6), found.limit) == (11.0, 10)


def test_a_stop_of_the_guest_is_not_its_time() -> None:
    run = _Run(10)
    run.now, run.paused, run.spent = 1.5, 1.0, 0.2
    assert not run.exceeded() and run.asked == 0  # half a second of its own
    run.now = 2.0
    assert run.exceeded()


def test_all_cpus_share_the_limit() -> None:
    run = _Run(10, cpus=4)
    run.now, run.spent = 1.0, 0.4
    assert not run.exceeded()


def test_without_a_limit_only_the_summary_is_made() -> None:
    run = _Run(0)
    run.now, run.spent = 2.0, 1.0
    assert not run.exceeded() and run.asked == 0
    run.overhead.stop()
    run.now = 10.0  # restoring is no tracing
    found = run.overhead.summary(run.costs())
    assert (found.percent, found.limit) == (50.0, None)


def test_what_cannot_be_measured_is_refused() -> None:
    refuse_measuring(2_000_000, possible=True)
    with pytest.raises(UnsupportedError, match="guest engine"):
        refuse_measuring(2_000_000, possible=False)
    with pytest.raises(UnsupportedError, match="time stamp counter"):
        refuse_measuring(0, possible=True)
