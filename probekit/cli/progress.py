"""What is going on, for people: one line on a terminal that goes away, or plain lines with ``-v``."""

from __future__ import annotations

import sys
import time

__all__ = ("Progress",)

_QUIET_S = 0.3  # nothing is said about a start that is quicker than this


class Progress:
    """Call it with what is being done now. ``verbose``: a line each, with the time since the start."""

    def __init__(self, *, verbose: bool, silent: bool = False) -> None:
        self._verbose = verbose
        self._start = time.monotonic()
        self._line = not silent and not verbose and sys.stderr.isatty()
        self._shown = False

    def __call__(self, text: str) -> None:
        """Say it."""
        passed = time.monotonic() - self._start
        if self._verbose:
            print(f"probekit: [{passed:6.3f} s] {text}", file=sys.stderr, flush=True)  # noqa: T201
        elif self._line and passed > _QUIET_S:
            sys.stderr.write(f"\r\x1b[Kprobekit: {text} ...")
            sys.stderr.flush()
            self._shown = True

    def done(self) -> None:
        """Take the line away before anything else is written."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._shown = False
