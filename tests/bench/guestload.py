"""What the guest does while it is measured: a loop of one system call on one CPU, the rest idle."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from vm.guest import Guest

__all__ = ("FUNCTION", "Loop", "loop", "loops", "steady_work")

FUNCTION = "__x64_sys_getppid"
_CPU = 1
_WARM_UP = 20_000


@dataclass(frozen=True, slots=True)
class Loop:
    """``calls`` made; ``guest_ns`` a call by the guest's clock, ``host_s`` for all of it by ours.

    The guest's clock stands still while the guest is stopped; ours does not.
    """

    calls: int
    guest_ns: float
    host_s: float


def loop(guest: Guest, calls: int, *, timeout: float = 120) -> Loop:
    """Exactly ``calls`` system calls in a tight loop."""
    started = time.monotonic()
    output = guest.check(f"syscalls {calls} {_CPU}", timeout)
    return Loop(calls, json.loads(output)["ns_per_call"], time.monotonic() - started)


def loops(guest: Guest, calls: int, times: int) -> float:
    """Nanoseconds a call in the least disturbed of many short loops.

    Whatever else runs on the host only ever adds to a loop, and never the same, so the least is the measure of
    the code; a loop of some milliseconds finds a moment when nothing else runs even on a busy host. The first loop is
    not counted: it lets QEMU translate what has changed.
    """
    loop(guest, _WARM_UP)
    output = guest.check(f"for i in $(seq {times}); do syscalls {calls} {_CPU}; done", timeout=120)
    return min(float(json.loads(line)["ns_per_call"]) for line in output.splitlines())


def calls_made(calls: int, times: int) -> int:
    """How many calls :func:`loops` makes."""
    return _WARM_UP + calls * times


@contextmanager
def steady_work(guest: Guest) -> Iterator[None]:
    """Light work in the background: some system calls every five milliseconds."""
    work = guest.spawn("exec demo 0")
    try:
        yield
    finally:
        work.stop()
