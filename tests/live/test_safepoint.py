"""Functions of the guest called from outside, with other tasks all around: everything comes back as it was."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from probekit.errors import Cancelled, SafePointTimeout
from probekit.guest.call_points import CallPoints
from probekit.guest.calls import MemoryKind
from probekit.guest.find_facts import find_guest_facts
from probekit.guest.linux import LinuxServices
from probekit.guest.safepoint import SafePoint
from probekit.kernel.kernel import Kernel
from probekit.kernel.open_kernel import open_kernel
from probekit.target.api import Regs, Target
from probekit.target.connect import connect
from tests.guest_fixtures import K61, only
from tests.live.inprocess import trace
from vm.guest import Background, Guest

pytestmark = pytest.mark.guest

KINDS: tuple[tuple[MemoryKind, int], ...] = (("exec", 100_000), ("data", 1 << 20), ("percpu", 64))
CHANGED_BY_TIME = frozenset(("gs_base", "k_gs_base", "fs_base", "cr2"))


@dataclass
class Busy:
    """A guest whose vCPUs both loop over a system call that is a safe point too."""

    guest: Guest
    target: Target
    kernel: Kernel
    services: LinuxServices
    call_points: CallPoints


@pytest.fixture(scope="module")
def load(guest: Guest) -> Iterator[list[Background]]:
    running = [guest.spawn(f"exec syscalls 2000000000 {cpu}") for cpu in range(guest.smp)]
    yield running
    for one in running:
        one.stop("KILL")


@pytest.fixture
def busy(guest: Guest, load: list[Background], homes: object) -> Iterator[Busy]:
    target = connect(guest.gdb)
    try:
        kernel = open_kernel(target)
        facts = find_guest_facts(kernel)
        yield Busy(guest, target, kernel, facts.services, facts.call_points)
    finally:
        target.detach()
    assert all(one.running() for one in load)


def _mine(regs: Regs) -> dict[str, int]:
    return {name: value for name, value in regs.values.items() if name not in CHANGED_BY_TIME}


def _here(busy: Busy) -> tuple[int, Regs]:
    """The borrowed task: the vCPU that stands at a candidate."""
    for vcpu in busy.target.vcpus():
        regs = busy.target.regs(vcpu)
        if regs["rip"] in busy.call_points.candidates and not regs.in_user_mode:
            return vcpu, regs
    raise AssertionError("nobody stands at a safe point")


def _stack(busy: Busy, regs: Regs) -> bytes:
    """What is above its stack pointer, to the end of the page: behind that there may be nothing."""
    return busy.target.read(regs["rsp"], 4096 - regs["rsp"] % 4096)


def test_memory_of_every_kind_comes_and_goes(busy: Busy) -> None:
    with SafePoint(busy.target, busy.call_points) as point:
        made = [busy.services.allocate(point, kind, size) for kind, size in KINDS]
        assert len({memory.addr for memory in made}) == len(made)
        by_kind = {memory.kind: memory for memory in made}
        code, data = by_kind["exec"], by_kind["data"]
        assert code.size == 102_400 and data.size == (1 << 20) + 4096, "whole pages, with room for the stamp"
        assert data.room >= 1 << 20
        # Near enough to the kernel's text for a 5-byte jump.
        assert abs(code.addr - busy.kernel.base) < 1 << 31
        busy.services.make_executable(point, code)
        assert busy.target.read(data.addr, 4096) == bytes(4096)
        offsets = busy.kernel.cpus()
        for cpu in offsets.online:
            slot = (by_kind["percpu"].addr + offsets.offsets[cpu]) & (1 << 64) - 1
            assert busy.target.read(slot, 64) == bytes(64)
        for memory in made:
            busy.services.free(point, memory)
    busy.target.resume()


def test_registers_flags_and_stack_come_back(busy: Busy) -> None:
    for _ in range(5):
        with SafePoint(busy.target, busy.call_points) as point:
            vcpu, before = _here(busy)
            stack = _stack(busy, before)
            memory = busy.services.allocate(point, "data", 4096)
            busy.services.free(point, memory)
            after_vcpu, after = _here(busy)
            # It may have slept and woken on another vCPU; what is the task's own is the same.
            assert _stack(busy, after) == stack
            differs = {
                name: (value, after[name])
                for name, value in _mine(before).items()
                if after[name] != value and not (after_vcpu != vcpu and name in ("cr3", "cr8"))
            }
            assert differs == {}
        busy.target.resume()


def test_two_hundred_calls(busy: Busy) -> None:
    with SafePoint(busy.target, busy.call_points) as point:
        held = []
        for turn in range(100):
            held.append(busy.services.allocate(point, "data", 4096 * (1 + turn % 7)))
            busy.target.write(held[-1].addr, turn.to_bytes(8, "little") * 512)
        for turn, memory in enumerate(held):
            assert busy.target.read(memory.addr, 8) == turn.to_bytes(8, "little")
            busy.services.free(point, memory)
    busy.target.resume()


def test_many_safe_points_one_after_another(busy: Busy) -> None:
    for _ in range(10):
        with SafePoint(busy.target, busy.call_points) as point:
            assert point.call(busy.kernel.symbol("ktime_get_mono_fast_ns")) > 0
        busy.target.resume()


def test_a_place_that_nobody_reaches(busy: Busy) -> None:
    never = replace(busy.call_points, candidates={busy.kernel.symbol("panic"): 5})
    with pytest.raises(SafePointTimeout) as caught, SafePoint(busy.target, never, timeout=0.3):
        pass
    assert caught.value.seconds == 0.3
    busy.target.resume()


def test_an_impatient_user(busy: Busy) -> None:
    never = replace(busy.call_points, candidates={busy.kernel.symbol("panic"): 5})
    asked: list[bool] = []

    def cancelled() -> bool:
        asked.append(True)
        return len(asked) > 2

    with pytest.raises(Cancelled), SafePoint(busy.target, never, timeout=60, cancelled=cancelled):
        pass
    busy.target.resume()


@only(K61)
def test_an_idle_guest(guest: Guest, homes: object) -> None:
    """Nothing but the kernel's own workers, and still a place is found."""
    done = trace(guest, "fbt::vfs_read:entry { @ = count(); } tick-200ms { exit(4); }")
    assert done.status == 4 and done.trouble() == []


@only(K61)
def test_both_vcpus_in_user_space(guest: Guest, homes: object) -> None:
    """No system call at all: interrupts and the kernel's workers have to do."""
    spinning = [guest.spawn("while :; do :; done") for _ in range(guest.smp)]
    try:
        done = trace(guest, "fbt::*timer*:entry { @ = count(); } tick-500ms { exit(4); }")
    finally:
        for one in spinning:
            one.stop("KILL")
    assert done.status == 4 and done.trouble() == [] and done.table()[()] > 0
