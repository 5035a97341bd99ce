"""Counts data that was lost, so that nothing is lost in silence. The text of a drop message is in :mod:`.text.drops`.

The guest's counters only grow. A :class:`DropMeter` remembers the last total of each counter and turns its growth into
a :class:`~probekit.consumer.events.Drop`:

    meter.update("principal", cpu=0, total=12)  ->  Drop("principal", cpu=0, count=12, total=12)
    meter.update("principal", cpu=0, total=15)  ->  Drop("principal", cpu=0, count=3, total=15)
"""

from __future__ import annotations

from probekit.consumer.events import Drop, DropKind

__all__ = ("DropMeter",)


class DropMeter:
    """Remembers the last value of each counter. The counters are in guest memory, so they may have any value."""

    def __init__(self) -> None:
        self._last: dict[tuple[DropKind, int | None], int] = {}
        self._total: dict[tuple[DropKind, int | None], int] = {}

    def update(self, kind: DropKind, *, cpu: int | None, total: int) -> Drop | None:
        """Return what was lost since the last reading of a counter, or None. ``total``: its value now."""
        counter = (kind, cpu)
        last = self._last.get(counter, 0)
        self._last[counter] = total
        # A counter that has decreased was restarted, so its whole value is new.
        return self._count(counter, total - last if total >= last else total)

    def add(self, kind: DropKind, *, cpu: int | None, count: int) -> Drop | None:
        """Return a drop of ``count`` more items, whose loss the host itself has found; None for 0."""
        return self._count((kind, cpu), count)

    def _count(self, counter: tuple[DropKind, int | None], count: int) -> Drop | None:
        if count <= 0:
            return None
        self._total[counter] = self._total.get(counter, 0) + count
        kind, cpu = counter
        return Drop(kind=kind, cpu=cpu, count=count, total=self._total[counter])
