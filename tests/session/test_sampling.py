"""Samples of a guest's CPUs: what each was doing, in one pause of the guest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from probekit.kernel.syscalls import SyscallEntry
from probekit.session.sampling import samples
from tests.enabling.host.test_vcpu import OFFSETS, TASK, memory, regs

KERNEL, USER = 0xFFFFFFFF81000100, 0x401000


class Guest:
    """Two vCPUs, one in the kernel and one in a program; notes what happens in a pause."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.target: Any = self
        self.clock: Any = self
        self.text: Any = memory()
        self.stacks: Any = None
        self.facts: Any = SimpleNamespace(task=OFFSETS, kernel=SimpleNamespace(paths=None, syscalls=SyscallEntry()))

    @contextmanager
    def paused(self) -> Iterator[None]:
        self.events.append("stop")
        yield
        self.events.append("go")

    def vcpus(self) -> tuple[int, ...]:
        return (1, 2)

    def regs(self, vcpu: int) -> Any:
        self.events.append(f"vcpu {vcpu}")
        return regs(rip=KERNEL) if vcpu == 1 else regs(rip=USER, cs=0x33)


def test_a_sample_says_where_its_cpu_is_in_the_kernel_or_in_a_program() -> None:
    guest = Guest()
    found = {cpu: [world.arg(index) for index in range(3)] for cpu, world in samples(guest)}
    assert found == {0: [KERNEL, 0, 0], 1: [0, USER, 0]}


def test_the_guest_stands_still_from_the_first_sample_to_the_last() -> None:
    guest = Guest()
    for _cpu, world in samples(guest):
        guest.events.append("clause")
        assert world.fact("curthread") == TASK
    assert guest.events == ["stop", "vcpu 1", "clause", "vcpu 2", "clause", "go"]


def test_nobody_called_a_sample() -> None:
    (world, _) = [world for _, world in samples(Guest())]
    assert world.fact("caller") == 0
    assert world.fact("execname") == b"sh"
