"""Carries out the actions of a script on its output: ``system() freopen() ftruncate() setopt()``.

A renderer calls these between the items that it writes, so that everything happens in the script's order.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TextIO

from probekit.errors import ProbekitError
from probekit.records import replaced

if TYPE_CHECKING:
    from probekit.output.api import TextStyle

__all__ = ("Effects", "HostEffects", "NoEffects")


class Effects(Protocol):
    """Carries out actions for a renderer."""

    def run(self, command: str) -> None:
        """Run a shell command. Its output goes to this process's standard output."""
        ...

    def reopen(self, path: str) -> TextIO:
        """Return the stream for output from now on. An empty path means the first stream. Raises OSError."""
        ...

    def truncate(self, out: TextIO) -> None:
        """Truncate the output file to no bytes. Does nothing for a stream that is no file."""
        ...

    def restyle(self, style: TextStyle, name: str, value: str) -> TextStyle:
        """Return the style after an option was set."""
        ...


class NoEffects:
    """Changes nothing outside the output."""

    def run(self, command: str) -> None:
        """See :class:`Effects`."""

    def reopen(self, path: str) -> TextIO:
        """See :class:`Effects`."""
        raise OSError(0, "files cannot be opened here")

    def truncate(self, out: TextIO) -> None:
        """See :class:`Effects`."""

    def restyle(self, style: TextStyle, name: str, value: str) -> TextStyle:
        """See :class:`Effects`."""
        return style


_LONGEST_WAIT = 0.5  # seconds that a command is waited for at a time


def _nothing() -> None:
    """Do nothing."""


class HostEffects:
    """Uses this host's shell and files."""

    def __init__(self, first: TextIO, waiting: Callable[[], None] = _nothing) -> None:
        """Prepare.

        ``first``: the first output stream, to which an empty path of ``freopen()`` returns. ``waiting``: is called
        twice a second while a command runs.
        """
        self._first = first
        self._waiting = waiting
        self._opened: TextIO | None = None

    def run(self, command: str) -> None:
        """See :class:`Effects`."""
        import subprocess  # slow to import

        sys.stdout.flush()
        try:
            process = subprocess.Popen(["/bin/sh", "-c", command])
        except (OSError, ValueError) as error:  # ValueError: a NUL in the command
            raise ProbekitError(f"failed to run {command!r}: {error}") from error
        with process:
            while True:
                try:
                    process.wait(_LONGEST_WAIT)
                    return
                except subprocess.TimeoutExpired:
                    self._waiting()

    def reopen(self, path: str) -> TextIO:
        """See :class:`Effects`."""
        before, self._opened = self._opened, None
        if path:
            try:
                opened = Path(path).open("a", encoding="utf-8", errors="surrogateescape")  # noqa: SIM115 - outlives us
            except OSError:
                self._opened = before
                raise
            self._opened = opened
        if before is not None:
            before.close()
        return self._opened or self._first

    def truncate(self, out: TextIO) -> None:
        """See :class:`Effects`."""
        if out.seekable():
            out.truncate(0)
            out.seek(0)

    def restyle(self, style: TextStyle, name: str, value: str) -> TextStyle:
        """See :class:`Effects`."""
        on = value.lower() not in ("no", "disable", "disabled", "false", "off", "unset", "0")
        match name:
            case "quiet":
                return replaced(style, quiet=on)
            case "flowindent":
                return replaced(style, flow=on)
            case "rawbytes":
                return replaced(style, raw_bytes=on)
            case "aggzoom":
                return replaced(style, zoom=on)
            case "stackindent" if value.isdecimal():
                return replaced(style, stack_indent=int(value))
        return style

    def close(self) -> None:
        """Close what ``freopen()`` opened."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None
