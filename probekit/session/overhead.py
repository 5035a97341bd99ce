"""What a program takes of the guest's CPU time, and whether that is more than it may.

A program that takes more than ``maxoverhead`` percent in one second is ended: what it has found until then is exact,
which it would not be if it were only slowed down.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from probekit.consumer import events as model
from probekit.errors import UnsupportedError

if TYPE_CHECKING:
    from probekit.enabling.api import ClauseCosts

__all__ = ("Overhead", "refuse_measuring")

_EVERY = 1.0  # seconds


def refuse_measuring(engine: str, tsc_khz: int) -> None:
    """Raise :class:`UnsupportedError` where clauses cannot be measured."""
    if engine != "guest":
        raise UnsupportedError(
            "maxoverhead needs the guest engine",
            feature="maxoverhead",
            hint="under the stop engine the guest's time stands still while clauses run",
        )
    if not tsc_khz:
        raise UnsupportedError("maxoverhead needs a kernel whose time stamp counter is known", feature="maxoverhead")


class Overhead:
    """One run's costs. ``limit``: percent of the time of ``cpus`` CPUs, 0 for any.

    ``paused``: seconds for which the guest has been stopped so far, which are not its own.
    """

    def __init__(
        self, limit: int, cpus: int, paused: Callable[[], float], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit = limit
        self._cpus = cpus
        self._paused = paused
        self._clock = clock
        self._begun = self._last = self._time()
        self._last_ns = 0.0
        self._exceeded = 0.0

    def _time(self) -> float:
        """The guest's own time."""
        return self._clock() - self._paused()

    def _percent(self, ns: float, seconds: float) -> float:
        return ns / (1e7 * self._cpus * seconds) if seconds > 0 else 0.0

    def exceeded(self, costs: Callable[[], ClauseCosts | None]) -> bool:
        """Whether the program has to be ended; looks at its costs once a second."""
        now = self._time()
        if self._exceeded or not self._limit or now - self._last < _EVERY:
            return self._exceeded > 0
        found = costs()
        if found is not None:
            percent = self._percent(found.total_ns - self._last_ns, now - self._last)
            self._last, self._last_ns = now, found.total_ns
            self._exceeded = percent if percent > self._limit else 0.0
        return self._exceeded > 0

    def stop(self) -> None:
        """Tracing ends now."""
        self._last = self._time()

    def summary(self, costs: ClauseCosts) -> model.Costs:
        """All of it, for the user, until tracing was stopped."""
        percent = self._exceeded or self._percent(costs.total_ns, self._last - self._begun)
        limit = self._limit if self._exceeded else None
        return model.Costs(costs.clauses, costs.entries, costs.entries_ns, percent, limit)
