"""Reading what the guest's clauses leave behind, again and again, while they run.

Where guest memory can be read at any time it is looked at often; where every reading is a stop, as seldom as
:mod:`probekit.enabling.guest_engine.drain_pace` thinks right.
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

_SOONEST, _FIRST, _LATEST = 0.01, 0.1, 0.5  # seconds from one reading to the next
_LITTLE, _MUCH = 1 / 8, 1 / 2  # of a ring in use when it was read


_NOTHING = Drained((), {}, {}, {})
_LOOK = 0.02  # seconds between two looks at memory that can be read at any time


class Drain:
    """``held``: what is in the guest, or was."""

    def __init__(self, target: Target, options: EngineOptions, resources: GuestResources) -> None:
        self._target = target
        self._options = options
        self._resources = resources
        self._next_switch = 0.0
        self._last = _NOTHING
        self.pace = DrainPace()

    def poll(self, timeout: float) -> Drained:
        """Take what is in the rings; waits in small steps while they are empty."""
        program_data = self._resources.program_data
        if program_data is None:
            return _NOTHING
        deadline = time.monotonic() + timeout
        while True:
            drained = self._read_if_due(program_data)
            left = deadline - time.monotonic()
            if drained.records or drained.filled or left <= 0:
                return drained
            step = _LOOK if program_data.memory.live else self.pace.seconds_left
            self._let_run(min(step, left))

    def _read_if_due(self, program_data: ProgramData) -> Drained:
        """What there is now; what there was, without the records, when a stop for it is not due yet."""
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
        """Whether the rings are to be read now. Those with another policy than ``switch`` are read when all is over."""
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
        """Let time pass, and notice when the guest stops or goes."""
        if not self._target.running:
            time.sleep(seconds)
            return
        stop = self._target.wait(seconds)
        if stop is not None:
            check_status(self._target)  # paused by somebody else: it goes on; dead: it is said
            self._target.resume()


class DrainPace:
    """``stops``: readings so far; ``longest``: seconds that the longest of them has stopped the guest for."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._step = _FIRST
        self._next = clock()
        self.stops = 0
        self.longest = 0.0

    @property
    def seconds_left(self) -> float:
        """Seconds until the next reading is due."""
        return max(self._next - self._clock(), 0.0)

    def note_reading(self, since: float, fill: float, *, lost: bool) -> None:
        """A reading is over that began at ``since``. ``fill``: of the fullest ring; ``lost``: records were."""
        now = self._clock()
        self.stops += 1
        self.longest = max(self.longest, now - since)
        if lost or fill > _MUCH:
            self._step = max(self._step / 4, _SOONEST)
        elif fill < _LITTLE:
            self._step = min(self._step * 1.5, _LATEST)
        self._next = now + self._step
