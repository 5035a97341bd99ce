"""The way into the kernel: breakpoints on its entries, steps until the page tables change, and nothing left set."""

from __future__ import annotations

import struct

import pytest

from probekit.errors import GuestError, SafePointTimeout, TargetError
from probekit.kernel.wait_for_kernel_mode import has_kernel_tables, wait_for_kernel_mode
from probekit.target.api import Regs, StopReason

from .fakes import BASE

IDT = 0xFFFFFE0000000000
USER_CR3, KERNEL_CR3 = 0x11801, 0x10000


def _gate(handler: int) -> bytes:
    return struct.pack("<HHBBHII", handler & 0xFFFF, 0x10, 0, 0x8E, handler >> 16 & 0xFFFF, handler >> 32, 0)


def _regs(cs: int, cr3: int) -> Regs:
    return Regs(values={"cs": cs, "cr3": cr3}, raw=b"")


class _Machine:
    """Stops at an entry with the user's page tables, and has the kernel's after ``steps`` steps (None: never)."""

    paused = False

    def __init__(self, steps: int | None, *, stops: bool = True) -> None:
        self.steps = steps
        self.stops = stops
        self.made = 0
        self.set: list[int] = []
        self.cleared: list[int] = []
        self.asked_to_stop = 0
        self.fail_clearing = False

    def read_many(self, ranges: list[tuple[int, int]]) -> list[bytes | None]:
        table = b"".join(_gate(BASE + 16 * vector) for vector in range(256))
        return [table if addr == IDT else None for addr, _ in ranges]

    def set_breakpoint(self, addr: int, kind: str) -> None:
        assert kind == "hardware"
        self.set.append(addr)

    def clear_breakpoint(self, addr: int, kind: str) -> None:
        self.cleared.append(addr)
        if self.fail_clearing:
            raise TargetError("fake")

    def resume(self) -> None: ...

    def wait(self, timeout: float) -> StopReason | None:
        return StopReason("breakpoint", 5, 2, "") if self.stops else None

    def stop(self) -> None:
        self.asked_to_stop += 1

    def regs(self, vcpu: int) -> Regs:
        assert vcpu == 2
        inside = self.steps is not None and self.made >= self.steps
        return _regs(0x10, KERNEL_CR3 if inside else USER_CR3)

    def step(self, vcpu: int) -> None:
        self.made += 1


@pytest.mark.parametrize(
    ("regs", "inside"),
    [(_regs(0x33, KERNEL_CR3), False), (_regs(0x10, USER_CR3), False), (_regs(0x10, KERNEL_CR3), True)],
)
def test_only_a_vcpu_in_the_kernel_with_its_tables_counts(regs: Regs, inside: bool) -> None:
    assert has_kernel_tables(regs) == inside


def test_it_steps_until_the_tables_are_the_kernels() -> None:
    machine = _Machine(steps=7)
    assert wait_for_kernel_mode(machine, [0xDEAD000, IDT]) == 2
    assert machine.made == 7
    assert machine.set == [BASE + 16 * vector for vector in (0xEC, 14, 0xFB, 0xFD)]
    assert machine.cleared == machine.set


def test_a_breakpoint_that_cannot_be_cleared_keeps_none_of_the_others() -> None:
    machine = _Machine(steps=0)
    machine.fail_clearing = True
    assert wait_for_kernel_mode(machine, [IDT]) == 2
    assert machine.cleared == machine.set and len(machine.set) == 4


@pytest.mark.parametrize("machine", [_Machine(steps=None, stops=False), _Machine(steps=None)])
def test_it_ends_in_time_with_the_guest_stopped_and_no_breakpoint_set(machine: _Machine) -> None:
    with pytest.raises(SafePointTimeout, match="no vCPU entered the kernel"):
        wait_for_kernel_mode(machine, [IDT], timeout=0.05)
    assert machine.cleared == machine.set
    assert machine.asked_to_stop == (not machine.stops)


def test_no_interrupt_table() -> None:
    machine = _Machine(steps=0)
    with pytest.raises(GuestError, match="no readable interrupt table"):
        wait_for_kernel_mode(machine, [0xDEAD000])
    assert machine.set == []
