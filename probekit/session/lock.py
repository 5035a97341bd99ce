"""Allows one probekit per guest: a lock file, locked with ``flock``.

The kernel releases the lock when its holder ends, for whatever reason, so a file that is left over locks nothing.
Files are never removed: another process may be about to lock the same inode. What is left of a holder that was killed
does say whether it had the guest stopped, so that the next one can tell that from an operator's pause. ::

    lock = acquire("unix:/run/gdb.sock")      BusyError(pid) when another holds it
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
from contextlib import suppress
from enum import Enum
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Self

from probekit.errors import BusyError, JournalError
from probekit.patch.journal import STATE_FOLDER_HINT, default_dir

__all__ = ("Hold", "Lock", "acquire", "default_lock_dir", "no_lock")

_MAX_TEXT = 4096
_HOLD_AT = _MAX_TEXT
_MACHINE_BYTES = 16


class Hold(Enum):
    """How the holder of a lock has the guest: the byte after the text in the lock's file."""

    NONE = b""
    """Not at all, or it ended in order."""
    RUNNING = b"R"
    """Attached; the guest runs, or somebody else has paused it."""
    STOPPED = b"S"
    """Stopped by the holder: the guest ran before."""


def default_lock_dir() -> Path:
    """Return the folder of the locks, which is next to the folder of the journals."""
    return default_dir().parent / "locks"


class Lock:
    """Holds a lock. A context manager. The end of the process releases the lock too."""

    def __init__(self, path: Path, fd: int, left: Hold = Hold.NONE, machine: bytes = b"") -> None:
        """``machine``: identifies the stub's socket: another machine at the same address is not taken for it."""
        self.path = path
        self.left = left
        """How an earlier holder had the guest that was killed, or lost its connection."""
        self._fd = fd
        self._machine = machine
        self._hold = left

    def note_hold(self, held: bool | None) -> None:
        """Write down whether we have the guest stopped, for whoever comes after us if we cannot let it go in order.

        ``held``: None once we have let it go. A disk that does not take the note is no reason to fail here.
        """
        self._write_hold(Hold.NONE if held is None else Hold.STOPPED if held else Hold.RUNNING)

    def note_unchanged(self) -> None:
        """Write down that the guest is still as the earlier holder has left it."""
        self._write_hold(self.left)

    def _write_hold(self, hold: Hold) -> None:
        self._hold = hold
        if self._fd >= 0:
            with suppress(OSError):
                os.pwrite(self._fd, hold.value.ljust(1, b"\0") + self._machine, _HOLD_AT)

    def release(self) -> None:
        """Release the guest. Safe to call twice."""
        if self._fd >= 0:
            with suppress(OSError):
                if self._hold is Hold.NONE:  # a lost connection leaves the guest as the last note says
                    os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def acquire(key: str, *, directory: Path | None = None, command: str | None = None) -> Lock:
    """Lock the guest that ``key`` names (a canonical target: two spellings of one socket must give one key).

    ``command``: the command that other processes see as the holder; this process's command line by default.
    Raises :class:`BusyError` when another process holds it, :class:`JournalError` for a file that cannot be locked.
    """
    folder = directory or default_lock_dir()
    path = folder / f"{sha256(key.encode()).hexdigest()[:24]}.lock"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _failed("opened", path, error) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid, other = _holder(fd)
        os.close(fd)
        who = f"process {pid} ({other})" if pid else "another process"
        raise BusyError(
            f"{key} is already being traced by {who}",
            pid=pid,
            hint="end it first; its probes are removed when it ends",
        ) from None
    except OSError as error:
        os.close(fd)
        raise _failed("locked", path, error) from error
    machine = _machine_at(key)
    note = os.pread(fd, 1 + _MACHINE_BYTES, _HOLD_AT)
    known = note[:1] in (Hold.RUNNING.value, Hold.STOPPED.value) and note[1:] == machine
    left = Hold(note[:1]) if known else Hold.NONE
    _sign(fd, key, " ".join(sys.argv) if command is None else command)
    return Lock(path, fd, left, machine)


def _machine_at(key: str) -> bytes:
    """Return bytes that change when another machine takes over the address: those of its socket, where it has one."""
    kind, _, path = key.partition(":")
    try:
        status = Path(path).stat() if kind == "unix" else None
    except OSError:
        status = None
    text = "" if status is None else f"{status.st_dev} {status.st_ino} {status.st_ctime_ns}"
    return sha256(text.encode()).digest()[:_MACHINE_BYTES]


def _failed(verb: str, path: Path, error: OSError) -> JournalError:
    return JournalError(
        f"the lock file {path} cannot be {verb}: {error.strerror}", path=str(path), hint=STATE_FOLDER_HINT
    )


def no_lock() -> Lock:
    """Return a lock that locks nothing, for a command that changes nothing where there can be no lock file."""
    return Lock(Path(os.devnull), -1)


def _sign(fd: int, key: str, command: str) -> None:
    """Write the holder into the file, for messages only: the flock is what locks.

    The note of an earlier holder stays: whoever is killed before its own note needs it no less.
    """
    text = json.dumps({"pid": os.getpid(), "key": key[:512], "command": command[:512]})
    with suppress(OSError):  # a full disk
        os.pwrite(fd, text.encode()[:_MAX_TEXT].ljust(_MAX_TEXT, b"\0"), 0)


def _holder(fd: int) -> tuple[int, str]:
    """Return the process ID and command of the holder; 0 and "" when the file does not hold them."""
    try:
        facts = json.loads(os.pread(fd, _MAX_TEXT, 0).rstrip(b"\0"))
        pid, command = facts["pid"], facts["command"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return 0, ""
    if not isinstance(pid, int) or not isinstance(command, str):
        return 0, ""
    return pid, "".join(c for c in command if c.isprintable())
