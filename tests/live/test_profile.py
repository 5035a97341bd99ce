"""``profile-N``: what the guest's CPUs are doing; and who called it."""

from __future__ import annotations

import pytest

from probekit.consumer import events as model
from tests.guest_fixtures import K61, only
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


@only(K61)
def test_every_sample_is_taken_or_counted_as_missed(guest: Guest, homes: object) -> None:
    """At a rate that the stops of the guest cannot keep up with."""
    seconds = 2
    done = trace(guest, "profile-4999 { @ = count(); } tick-5000 { @ticks = count(); }", limit=seconds)
    names = {str(e.probe.name.name): e.total for e in done.events if isinstance(e, model.Drop) and e.probe is not None}
    assert names.keys() == {"profile-4999", "tick-5000"} and done.trouble() == []
    assert sum(done.table().values()) % guest.smp == names["profile-4999"] % guest.smp == 0
    # The last one may be due when the time is over.
    assert sum(done.table().values()) + names["profile-4999"] >= guest.smp * (seconds * 4999 - 1)
    assert sum(done.table("ticks").values()) + names["tick-5000"] >= seconds * 5000 - 1


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
