"""SIGINT, SIGTERM and SIGHUP while a guest is attached: noted at once, obeyed at the next safe moment.

A signal in the middle of an exchange with the stub, or between two writes, must not unwind the stack there. Inside an
:class:`Interrupts` the handlers only note the signal. The loop of :mod:`.run`, and everything that waits for the
guest, asks :attr:`Interrupts.pending`; then tracing ends as after ``exit()`` and the guest is restored.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

__all__ = ("Interrupts",)

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """A context manager, re-entrant, that only notes signals. Outside of the main thread it has no effect."""

    def __init__(self) -> None:
        self.pending = 0
        """The signal that arrived, or 0."""
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
        """Ask for the end as a signal does. Any thread may call it."""
        self.pending = self.pending or number

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.request(number)
