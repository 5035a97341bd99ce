"""Work in a guest whose every call is known beforehand."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from vm.guest import Guest

__all__ = ("demo", "getppid_on_each_cpu", "lines", "our_memory")

LIMIT = 180.0


def getppid_on_each_cpu(guest: Guest, calls: int) -> Callable[[], list[dict[str, Any]]]:
    """Exactly ``calls`` calls of getppid on each vCPU, all vCPUs at the same time."""

    def work() -> list[dict[str, Any]]:
        script = "".join(f"syscalls {calls} {cpu} & " for cpu in range(guest.smp)) + "wait"
        done = [json.loads(line) for line in guest.check(script, timeout=LIMIT).splitlines()]
        assert sorted((d["cpu"], d["calls"]) for d in done) == [(cpu, calls) for cpu in range(guest.smp)]
        return done

    return work


def demo(guest: Guest, seconds: float) -> Callable[[], dict[str, Any]]:
    """The ``demo`` workload; returns its own exact counts."""
    return lambda: json.loads(guest.check(f"exec demo {seconds:g}", timeout=LIMIT))


def lines(guest: Guest, script: str, limit: float = LIMIT) -> Callable[[], str]:
    """A shell script; ``limit``: in seconds."""
    return lambda: guest.check(script, timeout=limit)


def our_memory(guest: Guest) -> list[str]:
    """Guest memory that probekit asked for: its caller is a place where the kernel's own calls never come back to."""
    found = guest.check("cat /proc/vmallocinfo", timeout=60).splitlines()
    return [line for line in found if " __startup_64+" in line]
