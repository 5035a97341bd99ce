"""Look up sorted address ranges and points by bisection.

r = Ranges.of([(0x10, 0x15), (0x20, 0x22)])
r.overlap(0x14, 0x20)  ->  (0x10, 0x15)        r.overlap(0x15, 0x20)  ->  None
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ("NO_RANGES", "Ranges", "any_inside")


@dataclass(frozen=True, slots=True)
class Ranges:
    """Half-open ``[start, end)`` ranges, sorted and merged."""

    starts: tuple[int, ...]
    """First address of each range."""
    ends: tuple[int, ...]
    """The address after each range."""

    @classmethod
    def of(cls, ranges: Iterable[tuple[int, int]]) -> Ranges:
        """Sort and merge ``(start, end)`` pairs, and drop empty ones."""
        starts: list[int] = []
        ends: list[int] = []
        for start, end in sorted(ranges):
            if end <= start:
                continue
            if ends and start < ends[-1]:
                ends[-1] = max(ends[-1], end)
            else:
                starts.append(start)
                ends.append(end)
        return cls(tuple(starts), tuple(ends))

    def overlap(self, start: int, end: int) -> tuple[int, int] | None:
        """Return the first range that shares a byte with ``[start, end)``, or None."""
        index = bisect_right(self.ends, start)
        if index < len(self.starts) and self.starts[index] < end and start < end:
            return self.starts[index], self.ends[index]
        return None

    def __contains__(self, addr: int) -> bool:
        return self.overlap(addr, addr + 1) is not None

    def __bool__(self) -> bool:
        return bool(self.starts)


NO_RANGES = Ranges((), ())


def any_inside(points: Sequence[int], start: int, end: int) -> bool:
    """Tell whether a point of the sorted ``points`` lies strictly between ``start`` and ``end``."""
    index = bisect_right(points, start)
    return index < len(points) and index < bisect_left(points, end)
