"""Tells when one run ends, and how long it may wait until then."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from probekit.session.host_tracing import HostTracing
from probekit.session.options import Options
from probekit.session.run_state import RunState
from probekit.session.signals import Interrupts

if TYPE_CHECKING:
    from probekit.session.guest_tracing import GuestTracing

__all__ = ("RunLimits",)

_LONGEST_WAIT = 0.2  # seconds; a signal is noticed after at most this time


class RunLimits:
    """The limits of one run: ``exit()``, a signal, its time, ``maxoverhead``, and the end of a process."""

    def __init__(
        self,
        state: RunState,
        interrupts: Interrupts,
        options: Options,
        host: HostTracing,
        guest: GuestTracing | None,
        ended: Callable[[], bool] | None,
    ) -> None:
        """``ended``: returns whether the process of ``-c`` or ``-p`` has ended; None where there is none."""
        self._state = state
        self._interrupts = interrupts
        self._options = options
        self._host = host
        self._guest = guest
        self._ended = ended
        self._end: float | None = None

    def begin(self, seconds: float | None) -> None:
        """Begin the run's time. ``seconds``: how long it is; None for a run that has no limit of time."""
        self._end = None if seconds is None else time.monotonic() + seconds

    @property
    def any(self) -> bool:
        """Whether something ends a run without a guest by itself: a timed probe, its time, or a process."""
        return self._host.timed or self._end is not None or self._ended is not None

    def over(self) -> bool:
        """Return whether tracing must end now."""
        if (
            self._state.over
            or self._interrupts.pending
            or (self._end is not None and time.monotonic() >= self._end)
            or (self._guest is not None and self._guest.too_costly())
        ):
            return True
        return self._ended is not None and self._ended()

    def seconds_to_wait(self) -> float:
        """Return how many seconds the run may wait: until the next reading, timed probe or end."""
        limits = [_LONGEST_WAIT]
        if self._options.switchrate_ns:
            limits.append(self._options.switchrate_ns / 1e9)
        due = self._host.due_in()
        if due is not None:
            limits.append(due)
        if self._end is not None:
            limits.append(self._end - time.monotonic())
        return max(min(limits), 0.0)
