"""probekit in a process that is killed, or one of whose system calls fails, at a chosen point of its life.

    python -m tests.live.faulty count FILE -- ARGUMENTS              write the points of a whole run, one a line
    python -m tests.live.faulty KIND STAGE NUMBER -- ARGUMENTS       let the point with this number of a stage fail

A point is a call that the guest or the disk notices: bytes to and from the stub, writes to the guest's memory file, and
what the journal and the lock do with their files. KIND: ``before`` and ``after`` kill the process before or after that
call; ``fail`` lets the call fail, as the kernel would.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from probekit.cli.main import main
from probekit.errors import MemoryAccessError
from probekit.guest.memory import RamData
from probekit.session.guest_tracing import GuestTracing

__all__ = ("KINDS", "STAGES")

STAGES = ("attach", "enable", "trace", "restore", "detach", "recover")
KINDS = ("before", "after", "fail")
_ERRORS = {
    "send": errno.EPIPE,
    "recv": errno.ECONNRESET,
    "write": errno.ENOSPC,
    "pwrite": errno.ENOSPC,
    "posix_fallocate": errno.ENOSPC,
}


def _callers() -> str:
    """Name the functions of probekit that we are in, innermost first."""
    frames = traceback.extract_stack()
    return " < ".join(frame.name for frame in reversed(frames) if "/probekit/" in frame.filename)


def _failure(name: str) -> Exception:
    """Return what a call raises that fails. A process whose mapping of the guest's memory breaks gets a signal."""
    if name == "ram":
        return MemoryAccessError("the guest's memory file cannot be written", addr=0, size=0)
    number = _ERRORS.get(name, errno.EIO)
    return OSError(number, os.strerror(number))


class Points:
    """Counts the points of each stage. Lets one of them fail, or writes all of them down."""

    def __init__(self, kind: str, stage: str, number: int) -> None:
        self._kind, self._wanted, self._number = kind, stage, number
        self.stage = "attach"
        self._counts: Counter[str] = Counter()
        self._seen: list[str] = []

    def wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``function`` as a point of whatever stage it is called in."""

        def point(*args: Any, **more: Any) -> Any:
            stage, number = self.stage, self._counts[self.stage]
            self._counts[stage] += 1
            self._seen.append(f"{stage} {name}")
            chosen = (stage, number) == (self._wanted, self._number)
            if chosen:
                sys.stderr.write(f"fault: {self._kind} {stage} {number} {name} {_callers()}\n")
                sys.stderr.flush()
            if chosen and self._kind == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            if chosen and self._kind == "fail":
                raise _failure(name)
            result = function(*args, **more)
            if chosen and self._kind == "after":
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return point

    def during(self, stage: str, function: Callable[..., Any], then: str) -> Callable[..., Any]:
        """Return ``function``, during which a stage lasts. ``then``: the next stage."""

        def staged(*args: Any, **more: Any) -> Any:
            self.stage = stage
            try:
                return function(*args, **more)
            finally:
                self.stage = then

        return staged

    def install(self) -> None:
        """Put the points into the modules that probekit uses."""
        for name in ("send", "recv"):
            setattr(socket.socket, name, self.wrap(name, getattr(socket.socket, name)))
        for name in ("write", "pwrite", "fsync", "ftruncate", "posix_fallocate", "open", "rename", "unlink"):
            setattr(os, name, self.wrap(name, getattr(os, name)))
        RamData.write = self.wrap("ram", RamData.write)  # type: ignore[method-assign]
        GuestTracing.enable = self.during("enable", GuestTracing.enable, "trace")  # type: ignore[method-assign]
        GuestTracing.disable = self.during("restore", GuestTracing.disable, "detach")  # type: ignore[method-assign]

    def save(self, path: Path) -> None:
        """Write down the points so far."""
        path.write_text("".join(f"{line}\n" for line in self._seen))


def _run() -> int:
    split = sys.argv.index("--")
    own, arguments = sys.argv[1:split], sys.argv[split + 1 :]
    counting = own[0] == "count"
    points = Points(*(("", "", -1) if counting else (own[0], own[1], int(own[2]))))
    if arguments[0] == "recover":
        points.stage = "recover"
    points.install()
    status = main(arguments)
    if counting:
        points.save(Path(own[1]))
    return status


if __name__ == "__main__":
    sys.exit(_run())
