"""Shows what is being done: one line on a terminal that goes away, or plain lines with ``-v``.

A reader of stderr that has gone away must not stop what is being done, which may be restoring the guest: what cannot
be written is left out.
"""

from __future__ import annotations

import sys
import time
from contextlib import suppress

__all__ = ("Progress",)

_QUIET_S = 0.3  # nothing is said about a start that is quicker than this


class Progress:
    """Shows progress. ``verbose``: a line each, with the time since the start; ``silent``: nothing on a terminal."""

    def __init__(self, *, verbose: bool, silent: bool = False) -> None:
        self._verbose = verbose
        self._start = time.monotonic()
        self._line = not silent and not verbose and sys.stderr.isatty()
        self._shown = False

    def __call__(self, text: str) -> None:
        """Show ``text``: what is being done now."""
        passed = time.monotonic() - self._start
        if self._verbose:
            _write(f"probekit: [{passed:6.3f} s] {text}\n")
        elif self._line and passed > _QUIET_S:
            _write(f"\r\x1b[Kprobekit: {text} ...")
            self._shown = True

    def done(self) -> None:
        """Take the line away before anything else is written."""
        if self._shown:
            _write("\r\x1b[K")
            self._shown = False


def _write(text: str) -> None:
    with suppress(OSError):
        sys.stderr.write(text)
        sys.stderr.flush()
