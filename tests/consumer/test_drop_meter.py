"""Drops: counted, and never reported twice."""

from __future__ import annotations

from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from probekit.consumer.drop_meter import DropMeter
from probekit.consumer.events import Drop, ProbeIdentity
from probekit.probe.names import ProbeName


def test_only_growth_is_reported() -> None:
    meter = DropMeter()
    assert meter.update("principal", cpu=0, total=0) is None
    assert meter.update("principal", cpu=0, total=12) == Drop("principal", 0, 12, 12)
    assert meter.update("principal", cpu=0, total=12) is None
    assert meter.update("principal", cpu=0, total=15) == Drop("principal", 0, 3, 15)
    assert meter.update("principal", cpu=1, total=2) == Drop("principal", 1, 2, 2)
    assert meter.update("aggregation", cpu=0, total=1) == Drop("aggregation", 0, 1, 1)


def test_each_probe_has_a_counter_of_its_own() -> None:
    meter = DropMeter()
    fast, slow = (ProbeIdentity(n, ProbeName("profile", "", "", f"tick-{n}")) for n in (100, 1))
    assert meter.update("missed", cpu=None, total=3, probe=fast) == Drop("missed", None, 3, 3, fast)
    assert meter.update("missed", cpu=None, total=1, probe=slow) == Drop("missed", None, 1, 1, slow)
    assert meter.update("missed", cpu=None, total=3, probe=fast) is None


def test_a_counter_that_went_back_started_anew() -> None:
    meter = DropMeter()
    meter.update("principal", cpu=0, total=12)
    assert meter.update("principal", cpu=0, total=4) == Drop("principal", 0, 4, 16)
    assert meter.update("principal", cpu=0, total=0) is None


def test_what_the_host_counts_itself() -> None:
    meter = DropMeter()
    assert meter.add("corrupt", cpu=0, count=0) is None
    assert meter.add("corrupt", cpu=0, count=2) == Drop("corrupt", 0, 2, 2)
    assert meter.add("corrupt", cpu=0, count=1) == Drop("corrupt", 0, 1, 3)


@given(st.lists(st.integers(0, (1 << 64) - 1)))
def test_counts_add_up_to_the_total(readings: list[int]) -> None:
    meter = DropMeter()
    updates = [meter.update("principal", cpu=0, total=reading) for reading in readings]
    drops = [drop for drop in updates if drop is not None]
    assert [drop.total for drop in drops] == list(accumulate(drop.count for drop in drops))
