"""What runs: one ``vm.json`` in each guest's directory, and the means to end it.

A process id alone may have been reused, so a record holds the creation time of
its QEMU too, and nothing is ever signalled unless both fit.
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

__all__ = ("Record", "all_records", "directory", "forget", "is_running", "kill", "load", "process_of", "save")

_END_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Record:
    """A guest that was started. ``gdb``, ``qmp`` and ``qmp2`` are addresses such as ``unix:/tmp/…/gdb.sock``."""

    name: str
    kernel: str
    release: str
    pid: int
    created: float
    gdb: str
    qmp: str
    qmp2: str
    console: str
    ram: str
    memory: int
    smp: int
    append: str
    bpftrace: bool
    tcg: str = "multi"


def save(record: Record) -> None:
    """Write the record into the guest's directory."""
    write_atomic(guest_dir(record.name) / "vm.json", json.dumps(asdict(record), indent=1).encode(), mode=0o600)


def load(name: str) -> Record:
    """The record of the guest called ``name``."""
    try:
        data = json.loads((guest_dir(name) / "vm.json").read_text())
        # A guest may have been started by an older or a newer checkout: unknown fields do no harm.
        return Record(**{field.name: data[field.name] for field in fields(Record) if field.name in data})
    except FileNotFoundError:
        raise NoSuchGuestError(name) from None
    except (ValueError, TypeError) as error:
        raise VmError(f"{guest_dir(name) / 'vm.json'} is damaged: {error}") from error


def all_records() -> list[Record]:
    """Every guest of this user, by name."""
    return [load(path.parent.name) for path in sorted(runtime_dir().glob("*/vm.json"))]


def process_of(pid: int, created: float) -> psutil.Process | None:
    """The process if it is still the one we mean and alive."""
    try:
        process = psutil.Process(pid)
        # Both times come from the same kernel counter; the tolerance is for its conversion to seconds.
        if abs(process.create_time() - created) > 1 or process.status() == psutil.STATUS_ZOMBIE:
            return None
    except psutil.NoSuchProcess:
        return None
    return process


def is_running(record: Record) -> bool:
    """Whether its QEMU is there."""
    return process_of(record.pid, record.created) is not None


def kill(pid: int, created: float) -> None:
    """End that QEMU and wait until it is gone."""
    process = process_of(pid, created)
    if process is None:
        return
    try:
        # Not SIGTERM: after a panic QEMU would only pause, and it has nothing to save.
        process.kill()
    except psutil.NoSuchProcess:
        return
    deadline = time.monotonic() + _END_SECONDS
    # Its parent may be another process, which reaps it when it likes: a zombie counts as gone.
    while process_of(pid, created) is not None:
        if time.monotonic() > deadline:
            raise VmError(f"QEMU, process {pid}, does not end")
        time.sleep(0.005)


def forget(name: str) -> None:
    """Remove everything a guest has on disk."""
    ram_path(name).unlink(missing_ok=True)
    directory = guest_dir(name)
    for _ in range(5):
        shutil.rmtree(directory, ignore_errors=True)
        if not directory.exists():
            return
        time.sleep(0.05)  # somebody is just making a lock file in it


def remove_runtime_dir_if_empty() -> None:
    """Leave nothing behind after the last guest."""
    try:
        runtime_dir().rmdir()
    except OSError:
        return  # another guest lives there


def directory(record: Record) -> Path:
    """Where the guest's sockets are."""
    return guest_dir(record.name)
