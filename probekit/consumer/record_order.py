"""Put the records of all CPUs in order of time, although their rings are read one after the other.

While the ring of CPU 1 is read, CPU 0 goes on recording: the next reading finds a record of CPU 0 that is older than
what this one has found of CPU 1. So each reading says until which time it is complete
(:attr:`probekit.enabling.api.Drained.complete_until`), and newer records are held back::

    reading 1   CPU 0: 10        CPU 1: 12 30     complete until 12    shows 10 12
    reading 2   CPU 0: 25 31     CPU 1:           complete until 30    shows 25 30

A CPU may be inside a clause for long, when the host does not let it run. Then nothing is complete, so a record is held
back for a limited time only.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence

from probekit.buffers.layout import RawRecord

__all__ = ("RecordOrder",)

CpuRecord = tuple[int, RawRecord]
"""A CPU's number and a record from that CPU."""


def _time(item: CpuRecord) -> int:
    return item[1].timestamp


class RecordOrder:
    """Holds back the records that a later reading may precede."""

    def __init__(self) -> None:
        self._held: list[CpuRecord] = []  # in order of time
        self._readings: deque[tuple[float, int]] = deque()  # (when, time stamp of the newest record until then)

    def add(
        self, records: Sequence[CpuRecord], complete_until: int | None, *, now: float, longest: float
    ) -> list[CpuRecord]:
        """Add what one reading has found. Return all records that are to be shown now, in order of time.

        ``complete_until``: the time stamp until which no record is missing; None when none is. ``now``: in seconds.
        ``longest``: for how many seconds a record may be held back.
        """
        ordered = sorted((*self._held, *records), key=_time)
        if complete_until is None:
            self._held, shown = [], len(ordered)
        else:
            while self._readings and now - self._readings[0][0] >= longest:
                complete_until = max(complete_until, self._readings.popleft()[1])
            shown = bisect_right(ordered, complete_until, key=_time)
            self._held = ordered[shown:]
        if not self._held:
            self._readings.clear()
        elif records:
            self._readings.append((now, _time(ordered[-1])))
        return ordered[:shown]

    def rest(self) -> list[CpuRecord]:
        """Return the records that are still held back, in order of time, when no more will be read."""
        held, self._held = self._held, []
        self._readings.clear()
        return held
