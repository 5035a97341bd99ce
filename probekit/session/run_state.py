"""Holds the state that the parts of one run share: whether ``exit()`` was called, its status, whether tracing ends.

Every part of a run reads it. It changes only by these methods, each named after what has happened:

    exit(3) in BEGIN or a tick       call_exit()           only clauses of END and ERROR run on the host from now on
    its record is read               exited(3)             the exit status is 3
    exit(3) in the guest             exited(3, at=...)     later records of the guest are not shown
    a ring with bufpolicy=fill       fill_ring()           tracing ends, and all records until then are shown
    more than maxoverhead            fail()                the exit status is 1, unless exit() was given another
"""

from __future__ import annotations

from collections.abc import Callable

from probekit.consumer.bulk import TextSink

__all__ = ("RunState",)


def _nothing() -> None:
    """Do nothing."""


def _no() -> bool:
    """Return that no output is lost."""
    return False


class RunState:
    """Holds the state of one run. Only its methods change it; its properties are read-only."""

    def __init__(self) -> None:
        self._exit_called = False
        self._exit_time: int | None = None
        self._status = 0
        self._ring_full = False
        self._idle: Callable[[], None] = _nothing
        self._sink: TextSink | None = None
        self._lost: Callable[[], bool] = _no

    @property
    def exit_called(self) -> bool:
        """Whether a clause has called ``exit()``, or a buffer of the host with the policy ``fill`` is full."""
        return self._exit_called

    @property
    def exited_in_guest(self) -> bool:
        """Whether a clause in the guest has called ``exit()``."""
        return self._exit_time is not None

    @property
    def over(self) -> bool:
        """Whether tracing is to end."""
        return self._exit_called or self._ring_full or self._lost()

    @property
    def status(self) -> int:
        """The exit status: the argument of ``exit()``, or 0."""
        return self._status

    @property
    def sink(self) -> TextSink | None:
        """Receives the printed text of records, where nothing else of them is needed; None to produce every event."""
        return self._sink

    def shows(self, timestamp: int, *, late: bool = False) -> bool:
        """Return whether a guest record is shown. ``timestamp``: the record's, by the guest's clock.

        After ``exit()`` in the guest only older ones are: another CPU's ring may have been read first. After ``exit()``
        on the host only those are that were recorded before it, and are read ``late``.
        """
        if self._exit_time is not None:
            return timestamp < self._exit_time
        return late or not self._exit_called

    @property
    def output_lost(self) -> bool:
        """Whether output could not be written, so that nobody sees the rest of it either."""
        return self._lost()

    def set_output(
        self,
        *,
        idle: Callable[[], None] = _nothing,
        sink: TextSink | None = None,
        lost: Callable[[], bool] = _no,
    ) -> None:
        """Set where the output goes.

        ``idle``: is called before each wait. ``sink``: receives printed text. ``lost``: returns whether output could
        not be written; the run ends then.
        """
        self._idle = idle
        self._sink = sink
        self._lost = lost

    def idle(self) -> None:
        """Note that the run is about to wait, so that the output is flushed."""
        self._idle()

    def call_exit(self) -> None:
        """Note that a clause on the host has called ``exit()``. Its status is in a record that is read later."""
        self._exit_called = True

    def exited(self, status: int, *, at: int | None = None) -> None:
        """Set the exit status from the record of an ``exit()``.

        ``at``: the record's guest time stamp; None for a clause that ran on the host.
        """
        self._exit_called = True
        self._status = status
        if at is not None:
            self._exit_time = at

    def fail(self) -> None:
        """Make the exit status 1, unless ``exit()`` was given another."""
        self._status = self._status or 1

    def fill_ring(self) -> None:
        """Note that a ring of the guest with the policy ``fill`` is full."""
        self._ring_full = True
