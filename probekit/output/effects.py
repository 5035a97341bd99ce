"""Carries out the actions of a script on its output: ``system() freopen() ftruncate() setopt()``.

A renderer calls these between the items that it writes, so that everything happens in the script's order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from probekit.errors import ProbekitError
from probekit.output.streams import OutputStream, TextStream, process_output
from probekit.records import replaced

if TYPE_CHECKING:
    import subprocess

    from probekit.output.api import TextStyle

__all__ = ("Effects", "HostEffects", "NoEffects")

_TURN_S = 0.1  # seconds between two looks at whether the guest is to be restored


class Effects(Protocol):
    """Carries out actions for a renderer."""

    def run(self, command: str) -> None:
        """Run a shell command. Its output goes to this process's standard output."""
        ...

    def reopen(self, path: str) -> TextStream:
        """Return the stream for output from now on. An empty path means the first stream. Raises OSError."""
        ...

    def truncate(self, out: TextStream) -> None:
        """Truncate the output file to no bytes. Does nothing for a stream that is no file."""
        ...

    def restyle(self, style: TextStyle, name: str, value: str) -> TextStyle:
        """Return the style after an option was set."""
        ...


class NoEffects:
    """Changes nothing outside the output."""

    def run(self, command: str) -> None:
        """See :class:`Effects`."""

    def reopen(self, path: str) -> TextStream:
        """See :class:`Effects`."""
        raise OSError(0, "files cannot be opened here")

    def truncate(self, out: TextStream) -> None:
        """See :class:`Effects`."""

    def restyle(self, style: TextStyle, name: str, value: str) -> TextStyle:
        """See :class:`Effects`."""
        return style


_LONGEST_WAIT = 0.5  # seconds that a command is waited for at a time


def _nothing() -> None:
    """Do nothing."""


class HostEffects:
    """Uses this host's shell and files."""

    def __init__(
        self,
        first: TextStream,
        *,
        hurry: Callable[[], bool] = lambda: False,
        waiting: Callable[[], None] = _nothing,
    ) -> None:
        """Prepare.

        ``first``: the first output stream, to which an empty path of ``freopen()`` returns. ``hurry``: returns whether
        to leave a command of ``system()`` to itself, because the guest is to be restored now. ``waiting``: is called
        again and again while a command runs.
        """
        self._first = first
        self._hurry = hurry
        self._waiting = waiting
        self._opened: OutputStream | None = None
        self._left: list[subprocess.Popen[bytes]] = []

    def run(self, command: str) -> None:
        """See :class:`Effects`."""
        import subprocess  # slow to import

        process_output().out.flush()
        try:
            child = subprocess.Popen(["/bin/sh", "-c", command])
        except (OSError, ValueError) as error:  # ValueError: a NUL in the command
            raise ProbekitError(f"failed to run {command!r}: {error}") from error
        while True:
            try:
                child.wait(_TURN_S)
                return
            except subprocess.TimeoutExpired:
                if self._hurry():
                    self._left.append(child)  # close() waits for it
                    return
                self._waiting()

    def reopen(self, path: str) -> TextStream:
        """See :class:`Effects`."""
        before, self._opened = self._opened, None
        if path:
            try:
                self._opened = process_output().open(path)
            except OSError:
                self._opened = before
                raise
        if before is not None:
            process_output().close(before)
        return self._opened or self._first

    def truncate(self, out: TextStream) -> None:
        """See :class:`Effects`."""
        if isinstance(out, OutputStream):
            out.truncate()

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
        """Close what ``freopen()`` opened, and wait for commands that were left to themselves."""
        if self._opened is not None:
            process_output().close(self._opened)
            self._opened = None
        while self._left:
            self._left.pop().wait()
