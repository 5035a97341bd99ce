"""The host's side of a machine's variables, and the task that runs in the machine."""

from __future__ import annotations

from contextlib import nullcontext

from probekit.enabling.guest_engine.variables import GuestVariables
from tests.codegen.emulated_kernel import (
    DATA,
    GS_BASE,
    OFFSETS,
    PAGE,
    TASK,
)
from tests.codegen.machine import Machine


class GuestBytes:
    """The machine's memory as the host reaches it."""

    live = True

    def __init__(self, guest: Machine) -> None:
        self._guest = guest

    def read(self, addr: int, size: int) -> bytes:
        return self._guest.read(addr, size)

    def write(self, addr: int, data: bytes) -> None:
        self._guest.write(addr, data)


def host(guest: Machine) -> GuestVariables:
    """The host's side of a machine's variables."""
    memory = GuestBytes(guest)
    return GuestVariables(guest.program, guest.storage, base=DATA, memory=lambda: memory, no_clause_running=nullcontext)


def number(guest: Machine, name: str) -> int:
    return next(v.index for v in guest.program.variables if v.name == name)


def be(guest: Machine, task: int, start: int = 1) -> None:
    """Another task runs."""
    assert TASK <= task < TASK + PAGE
    guest.write(GS_BASE + OFFSETS.current, task.to_bytes(8, "little"))
    guest.write(task + (OFFSETS.start or 0), start.to_bytes(8, "little"))
