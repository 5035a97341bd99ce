"""Read the records and counters of the guest's clauses while they run, and decide how often.

Where guest memory can be read while the guest runs, it is read every 20 ms. Where every reading stops the guest,
:class:`DrainPace` reads as seldom as the rings allow.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from probekit.enabling.api import Drained, EngineOptions
from probekit.enabling.guest_engine.data_memory import ProgramData
from probekit.enabling.guest_engine.resources import GuestResources
from probekit.guest.health import check_status
from probekit.target.api import Target

__all__ = (
    "Drain",
    "DrainPace",
)

_SHORTEST, _FIRST, _LONGEST = 0.01, 0.1, 0.5  # seconds between two readings that stop the guest
_NEARLY_EMPTY, _HALF_FULL = 1 / 8, 1 / 2  # parts of a ring that are in use when it is read


_NOTHING = Drained((), {}, {}, {})
_LIVE_INTERVAL = 0.02  # seconds between two readings that do not stop the guest
_LONGEST_STEP = 0.05  # seconds; a signal is noticed after at most this time


def _never() -> bool:
    """Return that nobody wants to stop."""
    return False


class Drain:
    """Reads the rings and counters of one enabling."""

    def __init__(
        self, target: Target, options: EngineOptions, resources: GuestResources, cancelled: Callable[[], bool] = _never
    ) -> None:
        """Prepare. ``cancelled``: returns whether the user wants to stop, so that nobody need wait any more."""
        self._target = target
        self._cancelled = cancelled
        self._options = options
        self._resources = resources
        self._next_switch = 0.0
        self._last = _NOTHING
        self._complete_until: int | None = 0
        self.pace = DrainPace()

    def poll(self, timeout: float) -> Drained:
        """Return the records in the rings; wait up to ``timeout`` seconds while they are empty.

        It returns as well when it has learnt that of the records of the last reading none is missing.
        Raises :class:`probekit.errors.GuestError` when the guest has died or rebooted.
        """
        program_data = self._resources.program_data
        if program_data is None:
            return _NOTHING
        deadline = time.monotonic() + timeout
        while True:
            drained = self._read_if_due(program_data)
            left = deadline - time.monotonic()
            news = drained.complete_until != self._complete_until
            if drained.records or drained.filled or news or left <= 0 or self._cancelled():
                self._complete_until = drained.complete_until
                return drained
            step = _LIVE_INTERVAL if program_data.memory.live else min(self.pace.seconds_left, _LONGEST_STEP)
            self._let_run(min(step, left))

    def _read_if_due(self, program_data: ProgramData) -> Drained:
        """Drain the rings, or repeat the last counters without records while the next stop is not due."""
        live = program_data.memory.live
        if not live and self.pace.seconds_left > 0:
            return replace(self._last, records=(), corrupt=0)
        begun = time.monotonic()
        drained = program_data.drain(take=self._rings_due(program_data))
        heartbeat = self._resources.heartbeat
        if heartbeat is not None:
            heartbeat.send()
            drained = replace(drained, watchdog_timeouts=heartbeat.timeouts)
        if not live:
            lost = sum(drained.principal_drops.values()) > sum(self._last.principal_drops.values())
            self.pace.note_reading(begun, drained.fill, lost=lost)
        self._last = drained
        return drained

    def _rings_due(self, program_data: ProgramData) -> bool:
        """Return whether to read the rings now. With a policy other than ``switch`` they are read only at the end."""
        if program_data.frozen:
            return True
        if self._options.bufpolicy != "switch":
            return False
        rate = self._options.switchrate_s
        if rate is not None and time.monotonic() < self._next_switch:
            return False
        self._next_switch = time.monotonic() + (rate or 0.0)
        return True

    def _let_run(self, seconds: float) -> None:
        """Wait while the guest runs. Raises :class:`GuestError` when it has died or rebooted."""
        if not self._target.running:
            time.sleep(seconds)
            return
        stop = self._target.wait(seconds)
        if stop is not None:
            check_status(self._target)  # raises for a dead guest; a guest that somebody else has paused is resumed
            self._target.resume()


class DrainPace:
    """Decides when to read next, if every reading stops the guest."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._interval = _FIRST
        self._next = clock()
        self.stops = 0
        """How many readings there were so far."""
        self.longest = 0.0
        """How many seconds the longest reading has stopped the guest for."""

    @property
    def seconds_left(self) -> float:
        """How many seconds are left until the next reading is due."""
        return max(self._next - self._clock(), 0.0)

    def note_reading(self, since: float, fill: float, *, lost: bool) -> None:
        """Note a reading that began at ``since`` and is over now.

        ``fill``: the part of the fullest ring that was in use, from 0 to 1. ``lost``: whether records were lost since
        the last reading.
        """
        now = self._clock()
        self.stops += 1
        self.longest = max(self.longest, now - since)
        if lost or fill > _HALF_FULL:
            self._interval = max(self._interval / 4, _SHORTEST)
        elif fill < _NEARLY_EMPTY:
            self._interval = min(self._interval * 1.5, _LONGEST)
        self._next = now + self._interval
