"""Printed events a second, from the first of them in the guest to the last line that somebody can read, none lost.

A pinned loop fires a clause that prints a line each time, as fast as it can; buffers are large enough for all of it.
probekit's lines are written on the host, bpftrace's in the guest.
"""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.bench.guestload import FUNCTION
from tests.bench.tracers import BenchError, probekit_command
from vm.guest import Guest

__all__ = ("EventRow", "measure_events")

_PROGRAM = "syscalls"
_LIMIT = 120.0
_READY = "live"


@dataclass(frozen=True, slots=True)
class EventRow:
    """``printf("%d %s %d\\n", pid, execname, arg0)``: lines a second, medians; how many were fired each time."""

    events: int
    probekit: float
    bpftrace: float

    @property
    def ratio(self) -> float:
        """How many times as many."""
        return self.probekit / self.bpftrace

    def json(self) -> dict[str, object]:
        """Everything."""
        return {**asdict(self), "ratio": self.ratio}


def measure_events(guest: Guest, *, rounds: int, events: int, progress: Callable[[str], None]) -> EventRow:
    """In turns. Raises :class:`BenchError` when a line is missing."""
    ours, theirs = list[float](), list[float]()
    for number in range(1, rounds + 1):
        progress(f"events: round {number} of {rounds}")
        ours.append(_probekit(guest, events))
        theirs.append(_bpftrace(guest, events))
    return EventRow(events, statistics.median(ours), statistics.median(theirs))


def _rate(guest: Guest, events: int, lines: Callable[[], int], who: str) -> float:
    started = time.monotonic()
    guest.check(f"{_PROGRAM} {events} 1", _LIMIT)
    while (found := lines()) < events:
        if time.monotonic() - started > _LIMIT:
            raise BenchError(f"{who} printed {found} of {events} lines")
        time.sleep(0.02)
    return events / (time.monotonic() - started)


def _probekit(guest: Guest, events: int) -> float:
    script = (
        f'fbt::{FUNCTION}:entry /execname == "{_PROGRAM}"/ {{ printf("%d %s %d\\n", pid, execname, arg0); }} '
        f'int said; tick-100ms /!said/ {{ said = 1; printf("{_READY}\\n"); }}'
    )
    with tempfile.NamedTemporaryFile() as out:
        path = Path(out.name)
        argv = (*probekit_command(), "-q", "-r", guest.gdb, "-x", "bufsize=128m", "-o", out.name, "-n", script)
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
        try:
            _await(lambda: path.read_bytes().startswith(_READY.encode()), process)
            return _rate(guest, events, lambda: path.read_bytes().count(b"\n") - 1, "probekit")
        finally:
            process.terminate()
            process.communicate(timeout=_LIMIT)


def _await(ready: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _LIMIT
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise BenchError("probekit does not trace")
        time.sleep(0.05)


def _bpftrace(guest: Guest, events: int) -> float:
    out = "/tmp/bench.events"
    script = f'kprobe:{FUNCTION} /comm == "{_PROGRAM}"/ {{ printf("%d %s %d\\n", pid, comm, arg0); }}'
    running = guest.spawn(f"exec env BPFTRACE_PERF_RB_PAGES=16384 bpftrace -e '{script}' > {out} 2>/dev/null")
    ready = "i=0; until grep -q . /sys/kernel/debug/kprobes/list; do i=$((i+1)); [ $i -gt 300 ] && exit 1; sleep 0.1"
    try:
        guest.check(f"{ready}; done; sleep 0.5", _LIMIT)
        count = f"grep -c ' {_PROGRAM} ' {out} || true"
        return _rate(guest, events, lambda: int(guest.check(count, _LIMIT)), "bpftrace")
    finally:
        running.stop("KILL")
        guest.check(f"rm -f {out}")
