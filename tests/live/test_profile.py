"""``profile-N``: what the guest's CPUs are doing; and who called it."""

from __future__ import annotations

import pytest

from tests.live.inprocess import trace
from tests.live.work import getppid_on_each_cpu, lines
from vm.guest import Guest

pytestmark = pytest.mark.guest

CALLS = 1_000_000

SCRIPT = """
profile-47 { @seen[cpu] = count(); }
profile-47 /execname == "syscalls"/ {
    @loop[cpu] = count();
    @where[arg0 != 0, arg1 != 0, pid == tid] = count();
    @functions[mod(arg0)] = count();
    @state[curthread->flags & 0x00200000] = count();
}
fbt::sys_getppid:entry /execname == "syscalls"/ { @calls = count(); }
"""


def test_samples_of_every_cpu(guest: Guest, homes: object) -> None:
    """The loop is where its CPUs are, in the kernel or in its program; probes beside it lose nothing by the stops."""
    done = trace(guest, SCRIPT, getppid_on_each_cpu(guest, CALLS))
    assert done.trouble() == []
    seen, loop, where = done.table("seen"), done.table("loop"), done.table("where")
    assert set(seen) == {(cpu,) for cpu in range(guest.smp)} and len(set(seen.values())) == 1
    assert set(loop) == set(seen) and sum(loop.values()) == sum(where.values()) > 5
    assert set(where) <= {(1, 0, 1), (0, 1, 1)}
    assert ("vmlinux",) in done.table("functions")
    assert set(done.table("state")) == {(0,)}  # no kernel thread
    assert done.table("calls")[()] == CALLS * guest.smp


def test_callers_are_those_that_the_kernel_finds(guest: Guest, homes: object) -> None:
    """The unwinder here, at stopped CPUs, and the kernel's own, which code in the guest asks."""
    script = """
        fbt::vfs_write:entry, fbt::vfs_write:return, kinst::vfs_write:0, kinst::ksys_write:
        /execname == "dd"/ { @[probefunc, probename, stackdepth, stack()] = count(); }
    """
    work = lines(guest, "dd if=/dev/zero of=/tmp/callers bs=100 count=9 2>/dev/null")
    stop, ours = (trace(guest, script, work, engine=engine) for engine in ("stop", "guest"))
    assert stop.trouble() == ours.trouble() == []
    assert stop.table() == ours.table() and sum(ours.table().values()) > 100


def test_callers_of_what_a_cpu_does(guest: Guest, homes: object) -> None:
    script = 'profile-47 /execname == "syscalls" && arg0/ { @[stack()] = count(); }'
    done = trace(guest, script, getppid_on_each_cpu(guest, CALLS))
    assert done.trouble() == []
    stacks = [str(key) for (key,) in done.table()]
    assert any("do_syscall_64" in stack for stack in stacks), stacks
