"""Starts or watches a process of the host for ``-c`` and ``-p``. Tracing ends with it, and ``$target`` is its PID."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from types import TracebackType

from probekit.errors import ProbekitError

__all__ = ("Victim",)

# The shell stops itself, and becomes the command once tracing has started.
_STOPPED = 'kill -STOP $$; exec "$@"'


class Victim:
    """Controls a process of the host whose end ends tracing. A context manager."""

    def __init__(self, command: str | None, pid: str | None) -> None:
        """Start ``command``, stopped, or find the process ``pid``. Raises :class:`ProbekitError`."""
        self._child: subprocess.Popen[bytes] | None = None
        if command is not None:
            self._child = _start(command)
            self.pid = self._child.pid
            """The process ID, which is the value of ``$target``."""
        else:
            self.pid = _existing(pid or "")

    def __enter__(self) -> Victim:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let a command that has not ended go on. After an error, kill it."""
        if self._child is None or self._child.poll() is not None:
            return
        if kind is not None:
            self._child.kill()
        os.kill(self.pid, signal.SIGCONT)

    def let_run(self) -> None:
        """Let the command run: tracing has started."""
        if self._child is not None:
            os.kill(self.pid, signal.SIGCONT)

    def has_ended(self) -> bool:
        """Return whether the process has ended."""
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
