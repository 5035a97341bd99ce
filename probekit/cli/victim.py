"""``-c`` and ``-p``: a process of the host whose end ends tracing, and which ``$target`` names."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from types import TracebackType

from probekit.errors import ProbekitError

__all__ = ("Victim",)

# The shell stops itself and becomes the command when tracing has started.
_STOPPED = 'kill -STOP $$; exec "$@"'


class Victim:
    """A context manager. ``pid``: what ``$target`` stands for."""

    def __init__(self, command: str | None, pid: str | None) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        if command is not None:
            self._child = _start(command)
            self.pid = self._child.pid
        else:
            self.pid = _existing(pid or "")

    def __enter__(self) -> Victim:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """A command that tracing outlives goes on; one that never started ends."""
        if self._child is None or self._child.poll() is not None:
            return
        if kind is not None:
            self._child.kill()
        os.kill(self.pid, signal.SIGCONT)

    def go(self) -> None:
        """Tracing has started: let the command run."""
        if self._child is not None:
            os.kill(self.pid, signal.SIGCONT)

    def gone(self) -> bool:
        """It has ended."""
        if self._child is not None:
            return self._child.poll() is not None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        return False


def _start(command: str) -> subprocess.Popen[bytes]:
    words = command.split()
    if not words:
        raise ProbekitError("failed to execute '': no command")
    if shutil.which(words[0]) is None:
        raise ProbekitError(f"failed to execute {words[0]}: there is no such program")
    child = subprocess.Popen(["/bin/sh", "-c", _STOPPED, "sh", *words])
    pid, status = os.waitpid(child.pid, os.WUNTRACED)
    if pid != child.pid or not os.WIFSTOPPED(status):
        raise ProbekitError(f"failed to execute {command}")
    return child


def _existing(text: str) -> int:
    if not text.isdecimal():
        raise ProbekitError(f"invalid pid: {text}")
    try:
        os.kill(int(text), 0)
    except PermissionError:
        pass
    except (ProcessLookupError, OverflowError):
        raise ProbekitError(f"failed to grab pid {text}: there is no such process") from None
    return int(text)
