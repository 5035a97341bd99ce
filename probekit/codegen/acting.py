"""Which actions of a clause do something to the guest, by its record; ``destructive`` has the routines for them."""

from __future__ import annotations

from probekit.buffers.actions import Chill, Panic, Raise, RecordPlan, Stop

__all__ = ("acts_on_guest", "panics", "routine_of", "stops")


def acts_on_guest(record: RecordPlan | None) -> bool:
    """Some action does: its routine changes every register that a function may."""
    return record is not None and any(isinstance(action, Chill | Panic | Raise | Stop) for action in record.actions)


def routine_of(field: int, record: RecordPlan) -> str:
    """What is to be called with the value of a field, or nothing."""
    for action in record.actions:
        if isinstance(action, Chill | Raise) and action.field == field:
            return "chill" if isinstance(action, Chill) else "signal"
    return ""


def stops(record: RecordPlan) -> bool:
    """The clause calls ``stop()``."""
    return any(isinstance(action, Stop) for action in record.actions)


def panics(record: RecordPlan) -> bool:
    """The clause calls ``panic()``."""
    return any(isinstance(action, Panic) for action in record.actions)
