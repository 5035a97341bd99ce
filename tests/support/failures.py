"""Let one step of a host process fail: each that the guest or the disk sees has a number.

A step may fail for one time, lose the connection, or be the last one that its process makes (``Killed``): then nothing
that the process does later has an effect, as nothing that stands in ``finally`` has one after SIGKILL.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ("Failures", "JournalDisk", "Killed", "Mode")

Mode = Literal["killed", "lost", "refused"]


class Killed(BaseException):
    """The process is dead."""


@dataclass
class Failures:
    """Counts the steps of one process. ``at``: the number of the step that fails, None when none does."""

    at: int | None = None
    mode: Mode = "killed"
    taken: list[str] = field(default_factory=list)
    dead: bool = False
    lost: bool = False

    def step(self, name: str) -> bool:
        """Take a step. Returns whether it is to be refused. Raises :class:`Killed` in a dead process."""
        if self.dead:
            raise Killed
        self.taken.append(name)
        now = len(self.taken) - 1 == self.at
        if now and self.mode == "killed":
            self.dead = True
            raise Killed
        self.lost = self.lost or (now and self.mode == "lost")
        return now and self.mode == "refused"


class JournalDisk:
    """Stands in for ``os`` in :mod:`probekit.patch.journal`. Writes, and waits for them, are steps."""

    def __init__(self, failures: Failures) -> None:
        self.failures = failures
        self.files: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, *args: Any) -> int:
        self.files.append(os.open(*args))
        return self.files[-1]

    def close(self, fd: int) -> None:
        if fd in self.files:
            self.files.remove(fd)
        os.close(fd)

    def write(self, fd: int, data: memoryview) -> int:
        """Half of it is written when this is what fails."""
        was_dead = self.failures.dead
        try:
            refused = self.failures.step("journal write")
        except Killed:
            if not was_dead:
                os.write(fd, data[: len(data) // 2])
            raise
        if refused:
            os.write(fd, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        return os.write(fd, data)

    def fsync(self, fd: int) -> None:
        if self.failures.step("journal sync"):
            raise OSError(errno.EIO, "Input/output error")

    def ftruncate(self, fd: int, size: int) -> None:
        if self.failures.dead:
            raise Killed
        os.ftruncate(fd, size)

    def close_all(self) -> None:
        """Do what the kernel does for a process that has ended."""
        for fd in self.files:
            os.close(fd)
        self.files.clear()
