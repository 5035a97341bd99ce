"""How often a guest is stopped to be read, where its memory cannot be read while it runs.

nearly empty rings: less and less often      a ring half full, or records lost: much sooner
"""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ("Pace",)

_SOONEST, _FIRST, _LATEST = 0.01, 0.1, 0.5  # seconds from one reading to the next
_LITTLE, _MUCH = 1 / 8, 1 / 2  # of a ring in use when it was read


class Pace:
    """``stops``: readings so far; ``longest``: seconds that the longest of them has stopped the guest for."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._step = _FIRST
        self._next = clock()
        self.stops = 0
        self.longest = 0.0

    @property
    def wait(self) -> float:
        """Seconds until the next reading is due."""
        return max(self._next - self._clock(), 0.0)

    def visited(self, since: float, fill: float, *, lost: bool) -> None:
        """A reading is over that began at ``since``. ``fill``: of the fullest ring; ``lost``: records were."""
        now = self._clock()
        self.stops += 1
        self.longest = max(self.longest, now - since)
        if lost or fill > _MUCH:
            self._step = max(self._step / 4, _SOONEST)
        elif fill < _LITTLE:
            self._step = min(self._step * 1.5, _LATEST)
        self._next = now + self._step
