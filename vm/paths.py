"""Where things live: downloads and builds in the cache, guests in the runtime directory.

::

    ~/.cache/probekit/vm/kernels/6.1-cloud/…      kept between runs, never in the checkout
    /tmp/probekit-vm-0/NAME/gdb.sock               one directory for each guest, removed by stop
    /dev/shm/probekit-vm-0-NAME-1f2e3d4c.ram       its memory
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vm.errors import VmError

__all__ = (
    "SOURCES",
    "cache_dir",
    "guest_dir",
    "one_at_a_time",
    "private_dir",
    "ram_path",
    "runtime_dir",
    "write_atomic",
)

SOURCES = Path(__file__).resolve().parent

# Where it is does not change while a process runs: tests give what they start another one, and a module
# has to be built for the kernel that was booted, not for the newest that a second cache would fetch.
_CACHE_HOME = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"

# sockaddr_un.sun_path holds 108 bytes with the final NUL; the longest name we use is "exec1.sock".
_MAX_GUEST_DIR = 108 - 1 - len("/exec1.sock")


def cache_dir(*parts: str) -> Path:
    """A directory in the cache, created."""
    path = Path(_CACHE_HOME, "probekit", "vm", *parts)
    path.mkdir(parents=True, exist_ok=True)
    return path


def runtime_dir() -> Path:
    """The directory of this user's guests, created and private."""
    path = Path(os.environ.get("XDG_RUNTIME_DIR") or "/tmp", f"probekit-vm-{os.getuid()}")
    path.mkdir(mode=0o700, exist_ok=True)
    # In /tmp somebody else may have been first with this name.
    if path.is_symlink() or path.stat().st_uid != os.getuid():
        raise VmError(f"{path} belongs to somebody else; set XDG_RUNTIME_DIR to a directory of yours")
    return path


def guest_dir(name: str) -> Path:
    """The directory of one guest, not created."""
    path = runtime_dir() / name
    if len(os.fsencode(path)) > _MAX_GUEST_DIR:
        raise VmError(f"{path} is too long for unix sockets; use a shorter guest name or XDG_RUNTIME_DIR")
    return path


def ram_path(name: str) -> Path:
    """The file that is the guest's memory: in /dev/shm, so that it never reaches a disk."""
    shm = Path("/dev/shm")
    if os.access(shm, os.W_OK):
        # Guests of two runtime directories may have the same name, but not the same memory.
        place = zlib.crc32(os.fsencode(guest_dir(name)))
        return shm / f"probekit-vm-{os.getuid()}-{name}-{place:08x}.ram"
    return guest_dir(name) / "ram"


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write a file that other processes see whole or not at all."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
        temporary.chmod(mode)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Only one process makes ``path``; others wait, and then find it there."""
    with (path.parent / f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def private_dir() -> Iterator[Path]:
    """A temporary directory in the cache, so that a rename into it never crosses file systems."""
    path = Path(tempfile.mkdtemp(prefix=".work.", dir=cache_dir()))
    try:
        yield path
    finally:
        shutil.rmtree(path)
