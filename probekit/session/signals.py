"""Notes SIGINT, SIGTERM and SIGHUP while a guest is attached, so that the run ends at the next safe moment.

A signal in the middle of an exchange with the stub, or between two writes, must not unwind the stack there. Inside an
:class:`Interrupts` the handlers only note the signal. The loop of :mod:`.run`, and everything that waits for the
guest, reads :attr:`Interrupts.pending`. Tracing then ends as after ``exit()``: every site gets its old bytes back, and
:mod:`probekit.enabling.release` frees our guest memory.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

__all__ = ("Interrupts",)

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Notes signals instead of obeying them. A re-entrant context manager; without effect outside the main thread."""

    def __init__(self) -> None:
        self.pending = 0
        """The number of the first signal that arrived, or 0."""
        self._depth = 0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        self._depth += 1
        if self._depth == 1 and threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1
        if self._depth == 0:
            for number, handler in self._before.items():
                signal.signal(number, handler)
            self._before = {}

    def request(self, number: int = signal.SIGINT) -> None:
        """Ask the run to end, as a signal does. Any thread may call this."""
        self.pending = self.pending or number

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.request(number)
