"""The record of one firing, and what a fault in it says."""

from __future__ import annotations

from probekit.buffers.layout import FAULT_WORDS, RawRecord
from tests.codegen.machine import Machine


def fired(guest: Machine, **regs: int) -> RawRecord:
    """The one record of one firing."""
    done = guest.fire(**regs)
    assert (done.fault, done.bad) == (0, ())
    (record,) = guest.drain()
    return record


def fault(record: RawRecord) -> tuple[int, int, int, int]:
    """Kind, word, action and place."""
    return (record.fault, *FAULT_WORDS.unpack(record.payload))
