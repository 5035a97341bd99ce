"""Look up by bisection which functions must not get INT3 or an instruction probe, and why.

:func:`probekit.enabling.text_facts.refused_text` fills it: the ranges that the kernel itself refuses
(:mod:`probekit.kernel.exclusions`), the path of INT3 and the handlers of NMIs.

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
    """Sorted ranges of text that do not overlap, each with a reason. The three tuples are equally long."""

    starts: tuple[int, ...]
    """First address of each range."""
    ends: tuple[int, ...]
    """The address after each range."""
    reasons: tuple[str, ...]
    """Why each range is refused."""

    @classmethod
    def of(cls, ranges: Iterable[tuple[int, int, str]]) -> RefusedText:
        """Sort ``(start, end, reason)`` and drop empty ranges. Where two overlap, the one that begins first wins."""
        kept: list[tuple[int, int, str]] = []
        for start, end, reason in sorted(ranges):
            begin = max(start, kept[-1][1]) if kept else start
            if begin < end:
                kept.append((begin, end, reason))
        return cls(tuple(k[0] for k in kept), tuple(k[1] for k in kept), tuple(k[2] for k in kept))

    def reason(self, addr: int) -> str | None:
        """Return why a probe at ``addr`` is refused, or None."""
        at = bisect_right(self.starts, addr) - 1
        return self.reasons[at] if at >= 0 and addr < self.ends[at] else None


NO_REFUSED = RefusedText((), (), ())
