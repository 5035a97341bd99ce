"""What a script does to the world through its output: ``system() freopen() ftruncate() setopt()``.

A renderer meets these between the items that it writes, so that everything
stays in the script's order; how each is done is here.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TextIO

from probekit.errors import ProbekitError
from probekit.records import replaced

if TYPE_CHECKING:
    from probekit.output.api import TextStyle

__all__ = ("Effects", "HostEffects", "NoEffects")


class Effects(Protocol):
    """What a renderer asks for."""

    def run(self, command: str) -> None:
        """Run a shell command; its output goes where ours goes."""
        ...

    def reopen(self, path: str) -> TextIO:
        """The stream that output goes to from now on; an empty path is the first one. Raises OSError."""
        ...

    def truncate(self, out: TextIO) -> None:
        """Throw away what was written to a file."""
        ...

    def restyle(self, style: TextStyle, name: str, value: str) -> TextStyle:
        """The style after an option was set."""
        ...


class NoEffects:
    """Nothing happens outside the output."""

    def run(self, command: str) -> None:
        """See :class:`Effects`."""

    def reopen(self, path: str) -> TextIO:
        """See :class:`Effects`."""
        raise OSError(0, "there are no files here")

    def truncate(self, out: TextIO) -> None:
        """See :class:`Effects`."""

    def restyle(self, style: TextStyle, name: str, value: str) -> TextStyle:
        """See :class:`Effects`."""
        return style


class HostEffects:
    """This host's shell and files. ``first``: the stream that output starts with."""

    def __init__(self, first: TextIO) -> None:
        self._first = first
        self._opened: TextIO | None = None

    def run(self, command: str) -> None:
        """See :class:`Effects`."""
        import subprocess  # slow to import

        sys.stdout.flush()
        try:
            subprocess.run(["/bin/sh", "-c", command], check=False)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the command
            raise ProbekitError(f"failed to run {command!r}: {error}") from error

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
