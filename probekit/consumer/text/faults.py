"""Has the text of each fault message, in DTrace's words.

Fault(probe 3 fbt:vmlinux:f:entry, kind 1, value 0x10, clause "clause 2", where "line 7")
-> error in clause 2 for probe ID 3 (fbt:vmlinux:f:entry): invalid address (0x10) at line 7
"""

from __future__ import annotations

from probekit.buffers.layout import FaultKind
from probekit.consumer.events import Fault

__all__ = ("fault_name", "fault_text")

_NAMES: dict[int, str] = {
    FaultKind.BADADDR: "invalid address",
    FaultKind.BADALIGN: "invalid alignment",
    FaultKind.ILLOP: "illegal operation",
    FaultKind.DIVZERO: "divide-by-zero",
    FaultKind.NOSCRATCH: "out of scratch space",
    FaultKind.KPRIV: "invalid kernel access",
    FaultKind.UPRIV: "invalid user access",
    FaultKind.TUPOFLOW: "tuple stack overflow",
    FaultKind.BADSTACK: "bad stack",
}

_WITH_ADDRESS = frozenset((FaultKind.BADADDR, FaultKind.BADALIGN, FaultKind.BADSTACK))


def fault_name(kind: int) -> str:
    """Return DTrace's name for a fault. ``kind``: any number, because it comes from the guest."""
    return _NAMES.get(kind, "unknown fault")


def fault_text(fault: Fault) -> str:
    """Return the fault as one line, without the program's name."""
    value = f" (0x{fault.value:x})" if fault.value is not None and fault.kind in _WITH_ADDRESS else ""
    where = f" at {fault.where}" if fault.where else ""
    clause = fault.clause or "a clause"
    return (
        f"error in {clause} for probe ID {fault.probe.id} ({fault.probe.name}): {fault_name(fault.kind)}{value}{where}"
    )
