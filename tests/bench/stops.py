"""Firings a second of tracers for which each firing stops the guest.

By our clock: the guest's own stands still while it is stopped.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass

from tests.bench.guestload import FUNCTION, loop
from tests.bench.tracers import BenchError, Probekit, gdb_firings
from vm.guest import Guest

__all__ = ("StopRates", "measure_stops")


@dataclass(frozen=True, slots=True)
class StopRates:
    """Firings a second: a gdb Python breakpoint, and probekit's stop engine."""

    gdb: float
    stop_engine: float

    def json(self) -> dict[str, object]:
        """Everything."""
        return asdict(self)


def _address(guest: Guest, function: str) -> int:
    return int(guest.check(f"grep -w {function} /proc/kallsyms").split()[0], 16)


def _gdb(guest: Guest, firings: int) -> float:
    # More calls than gdb waits for, so that it never waits in vain; the rest is done in no time.
    work = guest.spawn(f"exec syscalls {firings + 5_000_000} 1")
    try:
        return gdb_firings(guest, _address(guest, FUNCTION), firings)
    finally:
        work.stop()


def _stop_engine(guest: Guest, firings: int) -> float:
    script = f"fbt::{FUNCTION}:entry {{ @ = count(); }}"
    with Probekit(guest, script, engine="stop") as tracer:
        took = loop(guest, firings).host_s
    if not firings <= tracer.result.count <= firings + 1000:
        raise BenchError(f"the stop engine counted {tracer.result.count} of {firings} calls")
    return tracer.result.count / took


def measure_stops(guest: Guest, *, rounds: int, firings: int, progress: Callable[[str], None]) -> StopRates:
    """Both, taking turns."""
    gdb, engine = [], []
    for number in range(1, rounds + 1):
        progress(f"stopping tracers: round {number} of {rounds}")
        gdb.append(_gdb(guest, firings))
        engine.append(_stop_engine(guest, firings))
    return StopRates(statistics.median(gdb), statistics.median(engine))
