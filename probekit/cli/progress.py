"""Shows progress: one line on a terminal, which is cleared afterwards, or plain lines with ``-v``.

It never waits for the reader of standard error, and no error of writing ends the command: the guest may be just being
restored.
"""

from __future__ import annotations

import os
import select
import sys
import time
from contextlib import suppress

from probekit.output.streams import process_output

__all__ = ("Progress", "answer")

_QUIET_S = 0.3  # seconds from the start in which nothing is shown on a terminal


class Progress:
    """Shows progress."""

    def __init__(self, *, verbose: bool, silent: bool = False) -> None:
        """Begin to count the time.

        ``verbose``: write a line for each step, with the time since the start. ``silent``: show nothing otherwise.
        Without ``verbose`` and ``silent``, progress is shown if standard error is a terminal.
        """
        self._verbose = verbose
        self._start = time.monotonic()
        self._line = not silent and not verbose and process_output().messages.isatty()
        self._shown = False

    def __call__(self, text: str) -> None:
        """Show ``text``, which names the step that begins now."""
        passed = time.monotonic() - self._start
        if self._verbose:
            _write(f"probekit: [{passed:6.3f} s] {text}\n")
        elif self._line and passed > _QUIET_S:
            _write(f"\r\x1b[Kprobekit: {text} ...")
            self._shown = True

    def done(self) -> None:
        """Clear the line. Call this before anything else is written."""
        if self._shown:
            _write("\r\x1b[K")
            self._shown = False


def answer(text: str) -> None:
    """Write a line to standard error from a signal handler: past Python's buffers, and only if that does not block."""
    with suppress(OSError, ValueError):
        number = sys.__stderr__.fileno() if sys.__stderr__ is not None else -1
        if select.select([], [number], [], 0)[1]:
            os.write(number, f"\nprobekit: {text}\n".encode())


def _write(text: str) -> None:
    process_output().messages.offer(text)
