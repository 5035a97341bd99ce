"""Measures how much of the guest's CPU time a program takes, and compares it with the option ``maxoverhead``.

A program that takes more than ``maxoverhead`` percent in one second is ended. Its results until then are exact, which
they would not be if the program were only slowed down.
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

_INTERVAL = 1.0  # seconds between two readings of the costs


def refuse_measuring(tsc_khz: int, *, possible: bool) -> None:
    """Raise :class:`UnsupportedError` where clauses cannot be measured.

    ``tsc_khz``: the frequency of the guest's time stamp counter, 0 when it is unknown. ``possible``: whether the
    engine can measure clauses.
    """
    if not possible:
        raise UnsupportedError(
            "maxoverhead needs the guest engine",
            feature="maxoverhead",
            hint="under the stop engine the guest's time stands still while clauses run",
        )
    if not tsc_khz:
        raise UnsupportedError("maxoverhead needs a kernel whose time stamp counter is known", feature="maxoverhead")


class Overhead:
    """Measures the overhead of one run."""

    def __init__(
        self, limit: int, cpus: int, paused: Callable[[], float], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin to measure now. ``limit``: percent of the time of ``cpus`` CPUs; 0 for no limit.

        ``paused``: returns for how many seconds the guest has been stopped so far; that time does not count.
        """
        self._limit = limit
        self._cpus = cpus
        self._paused = paused
        self._clock = clock
        self._begun = self._last = self._time()
        self._last_ns = 0.0
        self._exceeded = 0.0

    def _time(self) -> float:
        """Return the guest's own time, in seconds."""
        return self._clock() - self._paused()

    def _percent(self, ns: float, seconds: float) -> float:
        return ns / (1e7 * self._cpus * seconds) if seconds > 0 else 0.0

    def exceeded(self, costs: Callable[[], ClauseCosts | None]) -> bool:
        """Return whether the program exceeds the limit and has to end. Calls ``costs`` once a second."""
        now = self._time()
        if self._exceeded or not self._limit or now - self._last < _INTERVAL:
            return self._exceeded > 0
        found = costs()
        if found is not None:
            percent = self._percent(found.total_ns - self._last_ns, now - self._last)
            self._last, self._last_ns = now, found.total_ns
            self._exceeded = percent if percent > self._limit else 0.0
        return self._exceeded > 0

    def stop(self) -> None:
        """Note that tracing ends now."""
        self._last = self._time()

    def summary(self, costs: ClauseCosts) -> model.Costs:
        """Return the costs until :meth:`stop`, as an event for the user."""
        percent = self._exceeded or self._percent(costs.total_ns, self._last - self._begun)
        limit = self._limit if self._exceeded else None
        return model.Costs(costs.clauses, costs.entries, costs.entries_ns, percent, limit)
