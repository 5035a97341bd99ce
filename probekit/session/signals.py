"""Notes SIGINT, SIGTERM and SIGHUP while a guest is attached, so that the run ends at the next safe moment.

A signal in the middle of an exchange with the stub, or between two writes, must not unwind the stack there. Inside an
:class:`Interrupts` the handlers only note the signal. The loop of :mod:`.run`, everything that waits for the guest, and
long work (:mod:`probekit.interruption`) look whether one is noted. Tracing then ends as after ``exit()``: every site
gets its old bytes back, and :mod:`probekit.enabling.release` frees our guest memory.

Whoever sends another signal meanwhile gets a line that says what is being waited for.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from probekit.errors import Cancelled
from probekit.interruption import interruptible

__all__ = ("Interrupts",)

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _silent(_: str) -> None:
    """Answer nothing."""


class Interrupts:
    """Notes signals instead of obeying them. A re-entrant context manager; without effect outside the main thread."""

    def __init__(self, answer: Callable[[str], None] = _silent) -> None:
        """Prepare. ``answer``: shows one line to whoever sends a signal while :meth:`waiting` is entered.

        It is called by the signal handler, so it must not block, and nothing that it uses may be in use elsewhere.
        """
        self.pending = 0
        """The number of the first signal that arrived, or 0."""
        self._answer = answer
        self._waiting = ""
        self._depth = 0
        self._count = threading.Lock()
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        with self._count:
            self._depth += 1
            first = self._depth == 1
        if first and _in_main_thread() and not self._before:
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._count:
            self._depth -= 1
            last = self._depth == 0
        if last and _in_main_thread():
            self._give_back()

    def _give_back(self) -> None:
        """Put back the handlers that were there before. Only the main thread can do that."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def request(self, number: int = signal.SIGINT) -> None:
        """Ask the run to end, as a signal does. Any thread may call this."""
        self.pending = self.pending or number

    def wanted(self) -> bool:
        """Return whether the user wants to stop."""
        return self.pending != 0

    @property
    def exit_code(self) -> int:
        """The exit status of a command that the signal ended before it had begun: what a shell shows of such an end."""
        return 128 + (self.pending or signal.SIGINT)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let a signal end the body with :class:`probekit.errors.Cancelled`, at a place where nothing is half done."""
        try:
            with interruptible(self.wanted):
                yield
        except Cancelled as error:
            error.exit_code = self.exit_code
            raise

    @contextmanager
    def waiting(self, doing: str) -> Iterator[None]:
        """Answer every signal during the body. ``doing``: what has to end first, such as ``restoring 35,059 sites``."""
        self._waiting, before = doing, self._waiting
        try:
            yield
        finally:
            self._waiting = before

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._depth == 0:  # another thread was the last to leave: the signal is not for us
            self._give_back()
            signal.raise_signal(number)
            return
        self.request(number)
        if self._waiting:
            self._answer(f"{self._waiting}; kill -9 would leave that to `probekit recover`")


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
