"""Counts data that was lost, so that nothing is lost in silence. The text of a drop message is in :mod:`.text.drops`.

The guest's counters only grow. A :class:`DropMeter` remembers the last total of each counter and turns its growth into
a :class:`~probekit.consumer.events.Drop`:

    meter.update("principal", cpu=0, total=12)  ->  Drop("principal", cpu=0, count=12, total=12)
    meter.update("principal", cpu=0, total=15)  ->  Drop("principal", cpu=0, count=3, total=15)
"""

from __future__ import annotations

from probekit.consumer.events import Drop, DropKind, ProbeIdentity

__all__ = ("DropMeter",)

_Counter = tuple[DropKind, int | None, ProbeIdentity | None]
"""What a counter counts: the kind of loss, the CPU and the probe that it belongs to, if any."""


class DropMeter:
    """Remembers the last value of each counter. The counters are in guest memory, so they may have any value."""

    def __init__(self) -> None:
        self._last: dict[_Counter, int] = {}
        self._total: dict[_Counter, int] = {}

    def update(self, kind: DropKind, *, cpu: int | None, total: int, probe: ProbeIdentity | None = None) -> Drop | None:
        """Return what was lost since the last reading of a counter, or None. ``total``: its value now."""
        counter = (kind, cpu, probe)
        last = self._last.get(counter, 0)
        self._last[counter] = total
        # A counter that has decreased was restarted, so its whole value is new.
        return self._count(counter, total - last if total >= last else total)

    def add(self, kind: DropKind, *, cpu: int | None, count: int) -> Drop | None:
        """Return a drop of ``count`` more items, whose loss the host itself has found; None for 0."""
        return self._count((kind, cpu, None), count)

    def _count(self, counter: _Counter, count: int) -> Drop | None:
        if count <= 0:
            return None
        self._total[counter] = self._total.get(counter, 0) + count
        kind, cpu, probe = counter
        return Drop(kind=kind, cpu=cpu, count=count, total=self._total[counter], probe=probe)
