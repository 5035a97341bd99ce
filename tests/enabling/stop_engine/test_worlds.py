"""What a firing on a stopped vCPU sees at each kind of probe, and which system call it belongs to."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from probekit.enabling.sites import EnabledSite
from probekit.enabling.stop_engine.watch import WatchHit, WatchSite
from probekit.enabling.stop_engine.worlds import StoppedWorlds
from probekit.kernel.syscalls import CALL_NUMBER, COMPAT_ARGS, COMPAT_CALL, SYSCALL_ARGS, X32_BIT, SyscallEntry
from probekit.patch.sites import EntrySite
from probekit.probe.names import ProbeName
from probekit.providers.api import Probe, ProbeKind, WatchedRange
from probekit.target.api import Regs
from tests.support.fake_target import FakeTarget

GS, STACK, SAVED, TOP = 0xFFFF888000000000, 0xFFFFC90000001000, 0xFFFFC90000002000, 0xFFFFC90000003000
ENTRY = SyscallEntry(callers=((0x100, 0x200),), stack_top=0x20)
FAILED = (1 << 64) - 2


class Stacks:
    """``skips``: how many frames were left out each time."""

    def __init__(self) -> None:
        self.skips: list[int] = []

    def frames(self, regs: Regs, most: int, *, skip: int = 0) -> list[int]:
        self.skips.append(skip)
        return [9]


def made(*, caller: int = 0x150, entry: SyscallEntry = ENTRY) -> tuple[StoppedWorlds, Stacks]:
    target, stacks = FakeTarget({GS: bytearray(0x100), STACK: bytearray(0x3000)}), Stacks()
    target.write(STACK, caller.to_bytes(8, "little"))
    target.write(GS + 0x20, TOP.to_bytes(8, "little"))
    target.write(TOP + CALL_NUMBER, (0xDEAD << 32 | 39).to_bytes(8, "little"))
    for number, offset in enumerate(SYSCALL_ARGS):
        target.write(SAVED + offset, (number + 50).to_bytes(8, "little"))
    facts: Any = SimpleNamespace(task=None, kernel=SimpleNamespace(paths=None, syscalls=entry))
    text: Any = target
    shown: Any = stacks
    return StoppedWorlds(text, facts, shown), stacks


def site(kind: ProbeKind, offset: int = 0) -> EnabledSite:
    return EnabledSite(0, Probe(1, ProbeName("fbt", "", "f", ""), kind), EntrySite(1, b"", 1), (0,), offset)


def regs(**more: int) -> Regs:
    named = {"rdi": 1, "rsi": 2, "rdx": 3, "rcx": 4, "r8": 5, "r9": 6, "rax": FAILED}
    return Regs({**named, "rip": 0, "rsp": STACK, "cs": 0x10, "gs_base": GS, **more}, b"")


@pytest.mark.parametrize(
    ("kind", "offset", "args", "errno"),
    [
        ("entry", 0, [1, 2, 3, 4, 5, 6], 0),
        ("return", 0x44, [0x44, FAILED, 0, 0, 0, 0], 2),
        ("sysret", 0, [FAILED, FAILED, 0, 0, 0, 0], 2),
    ],
)
def test_arguments_of_each_kind(kind: ProbeKind, offset: int, args: list[int], errno: int) -> None:
    world = made()[0].at_site(site(kind, offset), regs())
    assert [world.arg(n) for n in range(6)] == args and world.fact("errno") == errno


def test_a_system_calls_arguments_are_the_programs() -> None:
    worlds = made()[0]
    world = worlds.at_site(site("syscall"), regs(rdi=SAVED))
    assert [world.arg(n) for n in range(7)] == [50, 51, 52, 53, 54, 55, 0] and world.fact("errno") == 0
    lost = worlds.at_site(site("syscall"), regs(rdi=0x10))
    assert [lost.arg(n) for n in range(6)] == [0] * 6


def test_a_32_bit_programs_arguments_are_in_other_registers_and_have_32_bits() -> None:
    worlds, _ = made()
    target: Any = worlds._text
    for number, offset in enumerate(COMPAT_ARGS):
        target.write(SAVED + offset, (0xDEAD << 32 | number + 70).to_bytes(8, "little"))
    world = worlds.at_site(site("syscall")._replace(compat=True), regs(rdi=SAVED))
    assert [world.arg(n) for n in range(7)] == [70, 71, 72, 73, 74, 75, 0]


def test_a_hit_has_its_own_arguments_and_the_stack_begins_where_it_was_made() -> None:
    worlds, stacks = made()
    probe = Probe(1, ProbeName("mem", "", "", ""), "watch")
    watch = WatchSite(0, probe, WatchedRange(0x1000, 8, "write"), (0,))
    world = worlds.of_hit(WatchHit(watch, 1, regs(), (0x1000, 8, 1, 2, 0x77)))
    assert [world.arg(n) for n in range(6)] == [0x1000, 8, 1, 2, 0x77, 0]
    world.stack(4)
    worlds.at_site(site("entry"), regs()).stack(4)
    assert stacks.skips == [0, 1]


def test_a_function_called_by_the_kernels_entry_code_is_in_the_tasks_system_call() -> None:
    assert made()[0].system_call(regs()) == 39
    assert made(caller=0x200)[0].system_call(regs()) is None, "another function of the kernel called it"
    compat = SyscallEntry((), 0x20, ((0x100, 0x200),))
    assert made(entry=compat)[0].system_call(regs()) == 39 | COMPAT_CALL
    worlds, _ = made()
    target: Any = worlds._text
    target.write(TOP + CALL_NUMBER, (X32_BIT | 39).to_bytes(8, "little"))
    assert worlds.system_call(regs()) == 39, "an x32 program's"
    assert made(entry=SyscallEntry(((0x100, 0x200),), None))[0].system_call(regs()) is None
