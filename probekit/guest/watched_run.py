"""Let the guest run until it stops by itself; count the pauses, and look now and then whether it is alive."""

from __future__ import annotations

import time
from collections.abc import Callable

from probekit.errors import TargetError
from probekit.guest.health import check_status
from probekit.guest.memory import PauseClock
from probekit.target.api import StopReason, Target

__all__ = ("WatchedRun",)

_ALIVE = (2, 5)  # SIGINT, SIGTRAP; a machine that has shut down or panicked stops with another signal
_LOOK = 2.0  # seconds between two stops that show whether the guest is still there


class WatchedRun:
    """Lets one guest run, in slices of time."""

    def __init__(self, target: Target, clock: PauseClock | None, alive: Callable[[bool], None]) -> None:
        """Prepare. ``clock``: counts every pause. ``alive``: see :class:`probekit.guest.safepoint.SafePoint`."""
        self._target = target
        self._clock = clock
        self._alive = alive
        self._next_look = 0.0
        self._since = 0.0

    def begin(self) -> None:
        """Begin the time until the first look."""
        self._next_look = time.monotonic() + _LOOK

    def run(self, seconds: float) -> StopReason | None:
        """Let the guest run until it stops by itself. Returns None when it still runs after ``seconds``."""
        if not self._target.running:
            self.end_pause()
            self._target.resume()
        stop = self._target.wait(seconds)
        self._since = time.monotonic() if stop is not None else 0.0
        return stop

    def look(self) -> StopReason | None:
        """Look whether the running guest is alive. Now and then it is stopped for that; then the stop is returned."""
        self._alive(False)
        if time.monotonic() < self._next_look:
            return None
        self._next_look = time.monotonic() + _LOOK
        stop = self._target.stop()
        self._since = time.monotonic()
        self._alive(True)
        return stop

    def check(self, stop: StopReason) -> None:
        """Raise :class:`TargetError` or :class:`GuestGone` when the guest stopped because it has ended."""
        if stop.kind == "exited":
            raise TargetError("the guest ended while probekit was waiting for a safe point")
        if stop.signal not in _ALIVE:
            check_status(self._target)

    def end_pause(self) -> None:
        """Count the pause that ends now, as somebody lets the guest run next."""
        if self._clock is not None and self._since:
            self._clock.note(time.monotonic() - self._since)
