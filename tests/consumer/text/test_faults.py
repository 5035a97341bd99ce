"""Fault messages: DTrace's words."""

from __future__ import annotations

import pytest

from probekit.consumer.events import Fault, ProbeIdentity
from probekit.consumer.text.faults import fault_text
from probekit.probe.names import ProbeName

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
