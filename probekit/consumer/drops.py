"""Data that was lost, counted and put in DTrace's words. Nothing is ever lost silently.

The guest's counters only grow. A :class:`DropMeter` remembers the last total
of each and turns growth into a :class:`Drop`:

    meter.update("principal", cpu=0, total=12)  ->  Drop("principal", cpu=0, count=12, total=12)
    drop_text(...)                              ->  "12 drops on CPU 0"
"""

from __future__ import annotations

from typing import Literal

from probekit.records import record

__all__ = ("DROP_KINDS", "Drop", "DropKind", "DropMeter", "drop_text")

DropKind = Literal[
    "principal",
    "aggregation",
    "recursion",
    "corrupt",
    "silenced",
    "dynamic",
    "dynrinse",
    "dyndirty",
    "spec",
    "specbusy",
    "specunavail",
    "stkstroverflow",
    "dblerror",
    "unseen",
    "undecoded",
    "steps",
]


@record
class _Words:
    """``12 <noun>s<suffix>``."""

    noun: str
    suffix: str = ""


DROP_KINDS: dict[DropKind, _Words] = {
    "principal": _Words("drop"),
    "aggregation": _Words("aggregation drop"),
    # Ours: a probe fired while its CPU already ran a clause; a record that made no sense.
    "recursion": _Words("recursion drop"),
    "corrupt": _Words("corrupt record"),
    "silenced": _Words("silence", ": nobody had looked after the probes for some seconds, so they did nothing"),
    "dynamic": _Words("dynamic variable drop"),
    "dynrinse": _Words("dynamic variable drop", " with non-empty rinsing list"),
    "dyndirty": _Words("dynamic variable drop", " with non-empty dirty list"),
    "spec": _Words("speculative drop"),
    "specbusy": _Words("failed speculation", " (available buffer(s) still busy)"),
    "specunavail": _Words("failed speculation", " (no speculative buffer available)"),
    "stkstroverflow": _Words("jstack()/ustack() string table overflow"),
    "dblerror": _Words("error", " in ERROR probe enabling"),
    # Ours, of the stop engine: memory that changed with no access seen; an access by nobody knows what.
    "unseen": _Words("unseen change", " of watched memory"),
    "undecoded": _Words("unknown instruction", " at watched memory"),
    "steps": _Words("single step", " without a trap"),
}


@record
class Drop:
    """``count`` items lost since the last report, ``total`` since tracing began. ``cpu``: None when not one CPU's."""

    kind: DropKind
    cpu: int | None
    count: int
    total: int


def drop_text(drop: Drop) -> str:
    """The drop as DTrace words it, without the program's name."""
    words = DROP_KINDS[drop.kind]
    plural = "" if drop.count == 1 else "s"
    cpu = "" if drop.cpu is None else f" on CPU {drop.cpu}"
    return f"{drop.count} {words.noun}{plural}{words.suffix}{cpu}"


class DropMeter:
    """Remembers each counter's last value. Counters are the guest's, so any value may come."""

    def __init__(self) -> None:
        self._last: dict[tuple[DropKind, int | None], int] = {}
        self._total: dict[tuple[DropKind, int | None], int] = {}

    def update(self, kind: DropKind, *, cpu: int | None, total: int) -> Drop | None:
        """The counter now reads ``total``; what was lost since it was read last, or None."""
        counter = (kind, cpu)
        last = self._last.get(counter, 0)
        self._last[counter] = total
        # A counter that went back was started anew: all it shows is new.
        return self._count(counter, total - last if total >= last else total)

    def add(self, kind: DropKind, *, cpu: int | None, count: int) -> Drop | None:
        """``count`` more items were lost, as the host itself found."""
        return self._count((kind, cpu), count)

    def total(self, kind: DropKind) -> int:
        """All that was lost of one kind, over all CPUs."""
        return sum(total for (counted, _), total in self._total.items() if counted == kind)

    def _count(self, counter: tuple[DropKind, int | None], count: int) -> Drop | None:
        if count <= 0:
            return None
        self._total[counter] = self._total.get(counter, 0) + count
        kind, cpu = counter
        return Drop(kind=kind, cpu=cpu, count=count, total=self._total[counter])
