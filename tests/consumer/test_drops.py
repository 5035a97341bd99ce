"""Drops and faults: counted, never repeated, in DTrace's words."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probekit.consumer.drops import DROP_KINDS, Drop, DropKind, DropMeter, drop_text
from probekit.consumer.events import Fault, ProbeIdentity
from probekit.consumer.faults import fault_text
from probekit.probe.names import ProbeName


@pytest.mark.parametrize(
    ("kind", "cpu", "count", "expected"),
    [
        ("principal", 0, 12, "12 drops on CPU 0"),
        ("principal", 3, 1, "1 drop on CPU 3"),
        ("aggregation", 1, 5, "5 aggregation drops on CPU 1"),
        ("dynamic", None, 1, "1 dynamic variable drop"),
        ("dynrinse", None, 2, "2 dynamic variable drops with non-empty rinsing list"),
        ("dyndirty", None, 2, "2 dynamic variable drops with non-empty dirty list"),
        ("spec", None, 2, "2 speculative drops"),
        ("specbusy", None, 2, "2 failed speculations (available buffer(s) still busy)"),
        ("specunavail", None, 1, "1 failed speculation (no speculative buffer available)"),
        ("dblerror", None, 2, "2 errors in ERROR probe enabling"),
        ("stkstroverflow", None, 2, "2 jstack()/ustack() string table overflows"),
        ("recursion", 0, 2, "2 recursion drops on CPU 0"),
        ("corrupt", 0, 1, "1 corrupt record on CPU 0"),
    ],
)
def test_words(kind: DropKind, cpu: int | None, count: int, expected: str) -> None:
    assert drop_text(Drop(kind, cpu, count, count)) == expected


def test_every_kind_has_words() -> None:
    assert set(DROP_KINDS) == set(get_args(DropKind))


def test_only_growth_is_reported() -> None:
    meter = DropMeter()
    assert meter.update("principal", cpu=0, total=0) is None
    assert meter.update("principal", cpu=0, total=12) == Drop("principal", 0, 12, 12)
    assert meter.update("principal", cpu=0, total=12) is None
    assert meter.update("principal", cpu=0, total=15) == Drop("principal", 0, 3, 15)
    assert meter.update("principal", cpu=1, total=2) == Drop("principal", 1, 2, 2)
    assert meter.update("aggregation", cpu=0, total=1) == Drop("aggregation", 0, 1, 1)
    assert (meter.total("principal"), meter.total("aggregation"), meter.total("spec")) == (17, 1, 0)


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
    drops = [meter.update("principal", cpu=0, total=reading) for reading in readings]
    assert sum(d.count for d in drops if d) == meter.total("principal")


PROBE = ProbeIdentity(3, ProbeName("fbt", "vmlinux", "f", "entry"))


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (1, 0x10, "invalid address (0x10) at line 7"),
        (2, 3, "invalid alignment (0x3) at line 7"),
        (4, 5, "divide-by-zero at line 7"),
        (9, None, "bad stack at line 7"),
        (77, 1, "unknown fault at line 7"),
    ],
)
def test_fault_text(kind: int, value: int | None, expected: str) -> None:
    fault = Fault(PROBE, kind, value=value, clause="clause 2", where="line 7")
    assert fault_text(fault) == f"error in clause 2 for probe ID 3 (fbt:vmlinux:f:entry): {expected}"


def test_fault_text_without_a_place() -> None:
    text = fault_text(Fault(PROBE, 5))
    assert text == "error in a clause for probe ID 3 (fbt:vmlinux:f:entry): out of scratch space"
