"""The state of one run that its parts share: who has called ``exit()``, whether tracing is over, who listens.

exit(3) in BEGIN or a tick       exit_called()      no clause of the host runs any more but END and ERROR
its record is read               exited(3)          the exit status is 3
exit(3) in the guest             exited(3, at=...)  later records of the guest are not shown
a ring with bufpolicy=fill       ring_filled()      tracing ends, with what was recorded until then
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from probekit.consumer.bulk import Sink

__all__ = ("RunState",)


def _nothing() -> None:
    """Do nothing."""


@dataclass(slots=True)
class RunState:
    """Changes only by its methods; every part of a run reads it."""

    exit_called: bool = False
    """A clause has called ``exit()``, or a buffer of the host with the policy ``fill`` is full."""

    status: int = 0
    """The exit status: what ``exit()`` was given, or 0."""

    ring_full: bool = False
    """A ring of the guest is full whose policy is ``fill``."""

    idle: Callable[[], None] = _nothing
    """Called before each wait."""

    sink: Sink | None = None
    """Writes texts, while that is all that matters of a record; None where each event is wanted."""

    _exit_time: int | None = None

    @property
    def over(self) -> bool:
        """Tracing is to end."""
        return self.exit_called or self.ring_full

    @property
    def exited_in_guest(self) -> bool:
        """A clause in the guest has called ``exit()``."""
        return self._exit_time is not None

    def listen(self, *, idle: Callable[[], None], sink: Sink | None) -> None:
        """Name who renders: ``idle`` is called before each wait, ``sink`` takes texts."""
        self.idle = idle
        self.sink = sink

    def call_exit(self) -> None:
        """Note that a clause of the host has called ``exit()``. Its record, which has the status, is read later."""
        self.exit_called = True

    def exited(self, status: int, *, at: int | None = None) -> None:
        """Take the status of an ``exit()`` whose record was read. ``at``: guest time stamp of a clause in the guest."""
        self.exit_called = True
        self.status = status
        if at is not None:
            self._exit_time = at

    def fail(self) -> None:
        """Make the exit status 1, unless ``exit()`` was given another."""
        self.status = self.status or 1

    def fill_ring(self) -> None:
        """Note that a ring of the guest with the policy ``fill`` is full."""
        self.ring_full = True

    def shows(self, timestamp: int) -> bool:
        """Return whether a guest record of this time stamp is shown.

        After ``exit()`` in the guest only older ones are: another CPU's ring may have been read first.
        """
        if not self.exit_called:
            return True
        return self._exit_time is not None and timestamp < self._exit_time
