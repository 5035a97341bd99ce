"""A stopped vCPU as a firing's world: arguments by the ABI, facts of its task, and what a kernel may lack."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from probekit.enabling.host.vcpu import STOPPED_FACTS, VcpuWorld, kernel_gs_base
from probekit.errors import GuestError, UnsupportedError
from probekit.guest.offsets import TaskOffsets
from probekit.kernel.syscalls import CALL_NUMBER, X32_BIT, SyscallEntry
from probekit.records import replaced
from probekit.target.api import Regs
from tests.support.fake_target import FakeTarget

GS, TASK, PARENT, CRED, STACK = 0xFFFF888000000000, 0xFFFF888000001000, 0xFFFF888000001400, 0xFFFF888000001800, 0x8000
OFFSETS = TaskOffsets(
    current=0x10, cpu=0x20, pid=0x30, tgid=0x34, comm=0x40, parent=0x60, start=0x68, cred=0x70, uid=4, gid=8
)
REGS = dict(zip(("rdi", "rsi", "rdx", "rcx", "r8", "r9"), range(10, 16), strict=True))


def memory() -> FakeTarget:
    """One task, its parent, which is its own parent, and a stack."""
    target = FakeTarget({GS: bytearray(0x2000), STACK: bytearray(0x100)})
    words = {
        (GS + OFFSETS.current, 8): TASK,
        (GS + OFFSETS.cpu, 4): 3,
        (TASK + OFFSETS.pid, 4): 41,
        (TASK + OFFSETS.tgid, 4): 40,
        (TASK + 0x60, 8): PARENT,
        (TASK + 0x70, 8): CRED,
        (PARENT + OFFSETS.tgid, 4): 1,
        (PARENT + 0x60, 8): PARENT,
        (CRED + 4, 4): 1000,
        (CRED + 8, 4): 1001,
        (STACK, 8): 0xFFFFFFFF81000123,
        (STACK + 8, 8): 16,
        (STACK + 16, 8): 17,
    }
    for (addr, size), value in words.items():
        target.write(addr, value.to_bytes(size, "little"))
    target.write(TASK + OFFSETS.comm, b"sh\0rubbish")
    return target


def regs(**more: int) -> Regs:
    return Regs({**REGS, "rip": 1, "rsp": STACK, "rax": 5, "cs": 0x10, "gs_base": GS, **more}, b"")


def world(task: TaskOffsets | None = OFFSETS, **options: Any) -> VcpuWorld:
    facts: Any = SimpleNamespace(task=task, kernel=SimpleNamespace(paths=None, syscalls=SyscallEntry()))
    text: Any = memory()
    return VcpuWorld(options.pop("regs", regs()), text, facts, **options)


def test_arguments_are_in_registers_and_then_on_the_stack_above_the_return_address() -> None:
    assert [world().arg(n) for n in range(8)] == [10, 11, 12, 13, 14, 15, 16, 17]
    assert world(arg=lambda n: -n).arg(2) == -2


def test_facts_of_the_task() -> None:
    seen = world()
    expected = {
        "cpu": 3, "curthread": TASK, "pid": 40, "tid": 41, "ppid": 1, "uid": 1000, "gid": 1001, "execname": b"sh",
        "caller": 0xFFFFFFFF81000123, "percpu_offset": GS,
    }  # fmt: skip
    assert {name: seen.fact(name) for name in expected} == expected and expected.keys() <= STOPPED_FACTS
    assert seen.thread() == TASK


@pytest.mark.parametrize(
    ("status", "number", "x32", "abi"),
    [
        (0, 4, True, b"x86_64"),
        (2, 4, True, b"i386"),
        (1, 4 | X32_BIT, True, b"x32"),
        (0, 4 | X32_BIT, False, b"x86_64"),
        (0, -1 & (1 << 64) - 1, True, b"x86_64"),
    ],
)
def test_the_abi_of_the_system_call(status: int, number: int, x32: bool, abi: bytes) -> None:
    target, top = memory(), GS + 0x1800
    target.write(TASK + 0x10, status.to_bytes(4, "little"))
    target.write(GS + 0x1F00, top.to_bytes(8, "little"))
    target.write(top + CALL_NUMBER, number.to_bytes(8, "little"))
    entry = SyscallEntry(stack_top=0x1F00, x32=x32)
    facts: Any = SimpleNamespace(
        task=replaced(OFFSETS, status=0x10), kernel=SimpleNamespace(paths=None, syscalls=entry)
    )
    text: Any = target
    assert VcpuWorld(regs(), text, facts).fact("curabi") == abi
    with pytest.raises(UnsupportedError, match="thread_info"):
        world().fact("curabi")


def test_errno_is_in_what_the_function_returns() -> None:
    assert world(returned=(1 << 64) - 13).fact("errno") == 13
    assert world(returned=0xFFFFFFF3).fact("errno") == 13, "an int is returned in half of the register"
    assert world(returned=7).fact("errno") == 0 == world().fact("errno")


def test_descent_ends_where_a_task_is_its_own_parent() -> None:
    seen = world()
    assert seen.progenyof(40) and seen.progenyof(1) and not seen.progenyof(2)


def test_what_the_kernel_does_not_tell_is_said() -> None:
    seen = world(None)
    assert seen.thread() == 0 and seen.fact("percpu_offset") == GS
    for call in (
        lambda: seen.fact("pid"),
        lambda: seen.progenyof(1),
        lambda: world().fact("cwd"),
        lambda: seen.stack(3),
    ):
        with pytest.raises(UnsupportedError):
            call()
    with pytest.raises(GuestError, match="cannot be read"):
        world(regs=regs(gs_base=0xFFFF990000000000)).fact("cpu")


def test_the_stack_begins_with_the_caller_unless_the_current_function_is_asked_for() -> None:
    class Stacks:
        def frames(self, regs: Regs, most: int, *, skip: int = 0) -> list[int]:
            return [1, 2, 3][skip : skip + most]

    assert world(stacks=Stacks()).stack(2) == (2).to_bytes(8, "little") + (3).to_bytes(8, "little")
    assert world(stacks=Stacks(), with_current=True).stack(1) == (1).to_bytes(8, "little")
    assert world(stacks=Stacks()).fact("stackdepth") == 2


def test_the_kernels_base_is_found_swapped_or_not() -> None:
    assert kernel_gs_base(regs()) == GS
    assert kernel_gs_base(regs(gs_base=0x7F0000001000, k_gs_base=GS)) == GS
    assert kernel_gs_base(regs(gs_base=0x7F0000001000)) == 0x7F0000001000, "a stub that does not tell the other"
