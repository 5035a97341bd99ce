"""Find cache and runtime directories: downloads and builds are in the cache, guests in the runtime directory.

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

# Read once: tests set another cache for the programs that they start, and a module must be built for the
# kernel that was booted, not for a newer one that another cache would fetch.
_CACHE_HOME = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"

# sockaddr_un.sun_path holds 108 bytes with the final NUL; the longest name we use is "exec1.sock".
_MAX_GUEST_DIR = 108 - 1 - len("/exec1.sock")


def cache_dir(*parts: str) -> Path:
    """Return a directory in the cache, and create it if needed."""
    path = Path(_CACHE_HOME, "probekit", "vm", *parts)
    path.mkdir(parents=True, exist_ok=True)
    return path


def runtime_dir() -> Path:
    """Return the private directory of this user's guests, and create it if needed. Raises :class:`VmError`."""
    path = Path(os.environ.get("XDG_RUNTIME_DIR") or "/tmp", f"probekit-vm-{os.getuid()}")
    path.mkdir(mode=0o700, exist_ok=True)
    # In /tmp another user may have made a directory of this name first.
    if path.is_symlink() or path.stat().st_uid != os.getuid():
        raise VmError(f"{path} belongs to another user; set XDG_RUNTIME_DIR to a directory of yours")
    return path


def guest_dir(name: str) -> Path:
    """Return the directory of one guest, without creating it. Raises :class:`VmError` for a path that is too long."""
    path = runtime_dir() / name
    if len(os.fsencode(path)) > _MAX_GUEST_DIR:
        raise VmError(f"{path} is too long for unix sockets; use a shorter guest name or XDG_RUNTIME_DIR")
    return path


def ram_path(name: str) -> Path:
    """Return the file that is the guest's memory. It is in /dev/shm where possible, so that it never reaches a disk."""
    shm = Path("/dev/shm")
    if os.access(shm, os.W_OK):
        # Guests of two runtime directories may have the same name, but not the same memory.
        directory = zlib.crc32(os.fsencode(guest_dir(name)))
        return shm / f"probekit-vm-{os.getuid()}-{name}-{directory:08x}.ram"
    return guest_dir(name) / "ram"


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write a file so that other processes see either the whole file or none."""
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
    """Let only one process make ``path`` at a time; the others wait, and then find it complete."""
    with (path.parent / f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def private_dir() -> Iterator[Path]:
    """Make a temporary directory in the cache, from which a rename into the cache never crosses file systems."""
    path = Path(tempfile.mkdtemp(prefix=".work.", dir=cache_dir()))
    try:
        yield path
    finally:
        shutil.rmtree(path)
