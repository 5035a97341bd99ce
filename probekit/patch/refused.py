"""Text that must not be probed by a trap, and why: ranges with a reason each, looked up by bisection.

r = RefusedText.of([(0x10, 0x20, "noinstr"), (0x18, 0x28, "NOKPROBE")])
r.reason(0x19)  ->  "noinstr"        r.reason(0x28)  ->  None
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ("NO_REFUSED", "RefusedText")


@dataclass(frozen=True, slots=True)
class RefusedText:
    """Half-open ranges, sorted, none overlapping; of two reasons for a place the first to begin is kept."""

    starts: tuple[int, ...]
    ends: tuple[int, ...]
    reasons: tuple[str, ...]

    @classmethod
    def of(cls, ranges: Iterable[tuple[int, int, str]]) -> RefusedText:
        """Sort ``(start, end, reason)`` and cut overlaps; empty ranges are dropped."""
        kept: list[tuple[int, int, str]] = []
        for start, end, reason in sorted(ranges):
            begin = max(start, kept[-1][1]) if kept else start
            if begin < end:
                kept.append((begin, end, reason))
        return cls(tuple(k[0] for k in kept), tuple(k[1] for k in kept), tuple(k[2] for k in kept))

    def reason(self, addr: int) -> str | None:
        """Why nothing may be probed at ``addr``, or None."""
        at = bisect_right(self.starts, addr) - 1
        return self.reasons[at] if at >= 0 and addr < self.ends[at] else None


NO_REFUSED = RefusedText((), (), ())
