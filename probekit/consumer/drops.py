"""Counts data that was lost, so that nothing is ever lost in silence. The words for it are in :mod:`.text.drops`.

The guest's counters only grow. A :class:`DropMeter` remembers the last total of each and turns growth into a
:class:`~probekit.consumer.events.Drop`:

    meter.update("principal", cpu=0, total=12)  ->  Drop("principal", cpu=0, count=12, total=12)
    meter.update("principal", cpu=0, total=15)  ->  Drop("principal", cpu=0, count=3, total=15)
"""

from __future__ import annotations

from probekit.consumer.events import Drop, DropKind

__all__ = ("DropMeter",)


class DropMeter:
    """Remembers each counter's last value. The counters are the guest's, so any value may come."""

    def __init__(self) -> None:
        self._last: dict[tuple[DropKind, int | None], int] = {}
        self._total: dict[tuple[DropKind, int | None], int] = {}

    def update(self, kind: DropKind, *, cpu: int | None, total: int) -> Drop | None:
        """Return what was lost since the counter was read last, or None. ``total``: what it reads now."""
        counter = (kind, cpu)
        last = self._last.get(counter, 0)
        self._last[counter] = total
        # A counter that went back was started anew: all that it shows is new.
        return self._count(counter, total - last if total >= last else total)

    def add(self, kind: DropKind, *, cpu: int | None, count: int) -> Drop | None:
        """Return a drop of ``count`` more items, which the host itself found to be lost; None for 0."""
        return self._count((kind, cpu), count)

    def _count(self, counter: tuple[DropKind, int | None], count: int) -> Drop | None:
        if count <= 0:
            return None
        self._total[counter] = self._total.get(counter, 0) + count
        kind, cpu = counter
        return Drop(kind=kind, cpu=cpu, count=count, total=self._total[counter])
