"""System calls with the arguments of user space, beside other probes at the same place."""

from __future__ import annotations

import pytest

from tests.live.inprocess import trace
from tests.live.work import lines
from vm.guest import Guest

pytestmark = pytest.mark.guest

SCRIPT = """
syscall::write:entry, syscall::read:entry /execname == "dd" && arg2 == 1000/ {
    @entered[probefunc, arg0, arg5 == 0] = count();
    self->size = arg2;
}
syscall:::return /self->size/ {
    @returned[probefunc, arg0, arg1, self->size] = count();
    self->size = 0;
}
fbt::sys_write:entry, kinst::sys_write:0, kprobe:__x64_sys_read /execname == "dd"/ {
    @place[probeprov, probefunc] = count();
}
"""


@pytest.mark.parametrize("engine", ["guest", "stop"])
def test_arguments_and_results(guest: Guest, homes: object, engine: str) -> None:
    work = lines(guest, "dd if=/dev/zero of=/tmp/syscalls bs=1000 count=7 2>/dev/null")
    done = trace(guest, SCRIPT, work, engine=engine)
    assert done.trouble() == []
    assert {key[:2]: count for key, count in done.table("entered").items()} == {("read", 0): 7, ("write", 1): 7}
    assert done.table("returned") == {(name, 1000, 1000, 1000): 7 for name in ("read", "write")}
    place = done.table("place")
    assert place["fbt", "__x64_sys_write"] == place["kinst", "__x64_sys_write"] >= 7
    assert place["fbt", "__x64_sys_read"] >= 7


def test_every_system_call(guest: Guest, homes: object) -> None:
    """All of them at once, beside the functions that they are. What is entered returns, once, wherever it ends."""
    script = """
        syscall:::entry, fbt::sys_*:entry /execname == "mixed"/ { @entered[probeprov] = count(); }
        syscall:::entry /execname == "mixed"/ { @calls[probefunc] = count(); }
        syscall:::return /execname == "mixed"/ { @returns[probefunc] = count(); }
    """
    done = trace(guest, script, lines(guest, "mixed 4 2"))
    assert done.stats["sites"] > 1000
    entered, calls, returns = done.table("entered"), done.table("calls"), done.table("returns")
    assert entered["syscall",] == entered["fbt",] > 1000
    ends = {("exit",), ("exit_group",), ("execve",)}  # the first two never return, the third to another program
    assert {key: count for key, count in returns.items() if key not in ends} == {
        key: count for key, count in calls.items() if key not in ends
    }
    assert len(calls) > 15
