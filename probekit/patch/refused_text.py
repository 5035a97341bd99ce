"""Look up by bisection why text must not be probed by a trap.

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
    """Half-open ranges, each with a reason, sorted and without overlaps. Where two overlap, the first one wins."""

    starts: tuple[int, ...]
    ends: tuple[int, ...]
    reasons: tuple[str, ...]

    @classmethod
    def of(cls, ranges: Iterable[tuple[int, int, str]]) -> RefusedText:
        """Sort ``(start, end, reason)``, cut overlaps, and drop empty ranges."""
        kept: list[tuple[int, int, str]] = []
        for start, end, reason in sorted(ranges):
            begin = max(start, kept[-1][1]) if kept else start
            if begin < end:
                kept.append((begin, end, reason))
        return cls(tuple(k[0] for k in kept), tuple(k[1] for k in kept), tuple(k[2] for k in kept))

    def reason(self, addr: int) -> str | None:
        """Return why nothing may be probed at ``addr``, or None."""
        at = bisect_right(self.starts, addr) - 1
        return self.reasons[at] if at >= 0 and addr < self.ends[at] else None


NO_REFUSED = RefusedText((), (), ())
