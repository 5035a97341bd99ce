"""Keep a record of each guest, ``vm.json`` in its directory, and end guests by it.

A process ID alone may have been reused, so a record also has the creation time of
its QEMU process, and no process is signalled unless both match.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import psutil

from vm.errors import NoSuchGuestError, VmError
from vm.paths import guest_dir, ram_path, runtime_dir, write_atomic

__all__ = ("GuestRecord", "all_records", "directory", "forget", "is_running", "kill", "load", "process_of", "save")

_END_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class GuestRecord:
    """A guest that was started."""

    name: str
    kernel: str
    """The row of :data:`vm.kernels.KERNELS`."""
    release: str
    """The output of ``uname -r`` in the guest."""
    pid: int
    """The process ID of its QEMU."""
    created: float
    """The time when that process was created, in seconds since 1970."""
    gdb: str
    """The address of the gdb stub, such as ``unix:/tmp/…/gdb.sock``."""
    qmp: str
    """The address of a QMP socket."""
    qmp2: str
    """The address of another QMP socket."""
    console: str
    """The path of the console's log."""
    ram: str
    """The path of the file that is the guest's memory."""
    memory: int
    """The size of its memory in MiB."""
    smp: int
    """The number of its CPUs."""
    append: str
    """Additional kernel arguments."""
    bpftrace: bool
    """Whether bpftrace is in the guest."""
    tcg: str = "multi"
    """Threads of the emulator: ``multi`` or ``single``."""


def save(record: GuestRecord) -> None:
    """Write the record into the guest's directory."""
    write_atomic(guest_dir(record.name) / "vm.json", json.dumps(asdict(record), indent=1).encode(), mode=0o600)


def load(name: str) -> GuestRecord:
    """Return the record of the guest called ``name``. Raises :class:`NoSuchGuestError`, :class:`VmError`."""
    try:
        data = json.loads((guest_dir(name) / "vm.json").read_text())
        # A guest may have been started by an older or a newer checkout: unknown fields do no harm.
        return GuestRecord(**{field.name: data[field.name] for field in fields(GuestRecord) if field.name in data})
    except FileNotFoundError:
        raise NoSuchGuestError(name) from None
    except (ValueError, TypeError) as error:
        raise VmError(f"{guest_dir(name) / 'vm.json'} is damaged: {error}") from error


def all_records() -> list[GuestRecord]:
    """Return every guest of this user, by name."""
    return [load(path.parent.name) for path in sorted(runtime_dir().glob("*/vm.json"))]


def process_of(pid: int, created: float) -> psutil.Process | None:
    """Return the process if it is still the one with this creation time and alive, else None."""
    try:
        process = psutil.Process(pid)
        # Both times come from the same kernel counter; the tolerance is for its conversion to seconds.
        if abs(process.create_time() - created) > 1 or process.status() == psutil.STATUS_ZOMBIE:
            return None
    except psutil.NoSuchProcess:
        return None
    return process


def is_running(record: GuestRecord) -> bool:
    """Return whether the guest's QEMU runs."""
    return process_of(record.pid, record.created) is not None


def kill(pid: int, created: float) -> None:
    """Kill the QEMU process and wait until it has ended. Raises :class:`VmError` after ten seconds."""
    process = process_of(pid, created)
    if process is None:
        return
    try:
        # Not SIGTERM: after a panic QEMU would only pause, and it has nothing to save.
        process.kill()
    except psutil.NoSuchProcess:
        return
    deadline = time.monotonic() + _END_SECONDS
    # Its parent may be another process, which reaps it later: a zombie counts as ended.
    while process_of(pid, created) is not None:
        if time.monotonic() > deadline:
            raise VmError(f"QEMU, process {pid}, does not end")
        time.sleep(0.005)


def forget(name: str) -> None:
    """Remove all files of a guest."""
    ram_path(name).unlink(missing_ok=True)
    directory = guest_dir(name)
    for _ in range(5):
        shutil.rmtree(directory, ignore_errors=True)
        if not directory.exists():
            return
        time.sleep(0.05)  # another process is making a lock file in it


def remove_runtime_dir_if_empty() -> None:
    """Remove the directory of all guests after the last one has ended."""
    try:
        runtime_dir().rmdir()
    except OSError:
        return  # another guest lives there


def directory(record: GuestRecord) -> Path:
    """Return the directory of the guest's sockets."""
    return guest_dir(record.name)
