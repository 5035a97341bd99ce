"""System calls with the arguments of user space, beside other probes at the same place."""

from __future__ import annotations

import json
import re

import pytest

from tests.guest_fixtures import K61, only
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
    script = (
        SCRIPT
        if engine == "guest"
        else SCRIPT.replace("syscall:::return", "syscall::read:return, syscall::write:return")
    )
    done = trace(guest, script, work, engine=engine)
    assert done.trouble() == []
    assert {key[:2]: count for key, count in done.table("entered").items()} == {("read", 0): 7, ("write", 1): 7}
    assert done.table("returned") == {(name, 1000, 1000, 1000): 7 for name in ("read", "write")}
    place = done.table("place")
    assert place["fbt", "__x64_sys_write"] == place["kinst", "__x64_sys_write"] >= 7
    assert place["fbt", "__x64_sys_read"] >= 7


@only(K61)
@pytest.mark.parametrize("engine", ["guest", "stop"])
def test_order_at_one_place(guest: Guest, homes: object, engine: str) -> None:
    """A system call encloses its function, and that its instructions, however the script has them."""
    script = """
        kinst::sys_getppid: /execname == "syscalls"/ { printf("k"); }
        fbt::sys_getppid:return /execname == "syscalls"/ { printf("f"); }
        fbt::sys_getppid:entry /execname == "syscalls"/ { printf("F"); }
        syscall::getppid:return /execname == "syscalls"/ { printf("s"); }
        syscall::getppid:entry /execname == "syscalls"/ { printf("S"); }
    """
    done = trace(guest, script, lines(guest, "syscalls 20 0"), engine=engine)
    assert done.trouble() == []
    calls = "".join(done.texts()).split("S")
    assert calls[0] == "" and len(calls) == 21
    assert set(calls[1:]) == {calls[1]} and re.fullmatch("Fkk+fs", calls[1])


COMPAT = """
    syscall::write:entry /arg2 == 7/ { @entered[execname, curabi, arg0 == 0xffffffff] = count(); }
    syscall::write:return /execname == "compat32" && errno/ { @failed[curabi, arg0, arg1, errno] = count(); }
    syscall::lseek:entry, syscall::openat:entry /execname == "compat32"/ { @calls[probefunc, arg0, arg2] = count(); }
    syscall::lseek:return, syscall::read:return, syscall::write:return /execname == "compat32" && arg1 < 8/
    {
        @returned[probefunc, arg1] = count();
    }
    syscall::getppid: /execname == "compat32"/ { @shared[probename, curabi] = count(); }
"""


@pytest.mark.parametrize("engine", ["guest", "stop"])
def test_system_calls_of_32_bit_programs(guest: Guest, homes: object, engine: str) -> None:
    """By both ways in, beside those of a 64-bit program: names, arguments, results and counts are exact."""
    rounds = 100 if engine == "guest" else 15
    work = f"""
        compat32 {rounds} int80; compat32 {rounds} vdso
        dd if=/dev/zero of=/tmp/native bs=7 count={rounds} 2>/dev/null
    """
    done = trace(guest, COMPAT, lines(guest, work), engine=engine)
    assert [json.loads(line)["wrong"] for line in done.work.splitlines()] == [0, 0]
    assert done.trouble() == []
    both = 2 * rounds
    assert done.table("entered") == {
        ("compat32", "i386", 0): both,
        ("compat32", "i386", 1): both,
        ("dd", "x86_64", 0): rounds,
    }
    assert done.table("failed") == {("i386", -9, -9, 9): both}
    fd = {key: count for key, count in done.table("calls").items() if key[0] == "lseek"}
    assert list(fd.values()) == [both] and done.table("calls") == fd | {("openat", 0xFFFFFF9C, 0o1102): both}
    assert done.table("returned") == {("lseek", 3): both, ("read", 4): both, ("write", 7): both, ("write", -9): both}
    assert done.table("shared") == {("entry", "i386"): both, ("return", "i386"): both}, "one function for all programs"


def test_every_system_call(guest: Guest, homes: object) -> None:
    """All of them at once, beside the functions that they are. What is entered returns, once, wherever it ends."""
    script = """
        syscall:::entry, fbt::sys_*:entry /execname == "mixed"/ { @entered[probeprov] = count(); }
        syscall::: /execname == "compat32"/ { @compat[probename, probefunc] = count(); }
        syscall:::entry /execname == "mixed"/ { @calls[probefunc] = count(); }
        syscall:::return /execname == "mixed"/ { @returns[probefunc] = count(); }
    """
    done = trace(guest, script, lines(guest, "mixed 4 2; compat32 50 int80; compat32 50 vdso"))
    assert done.trouble() == [] and done.stats["sites"] > 1000
    entered, calls, returns = done.table("entered"), done.table("calls"), done.table("returns")
    assert entered["syscall",] == entered["fbt",] > 1000
    ends = {("exit",), ("exit_group",), ("execve",)}  # the first two never return, the third to another program
    assert {key: count for key, count in returns.items() if key not in ends} == {
        key: count for key, count in calls.items() if key not in ends
    }
    assert len(calls) > 15
    compat = done.table("compat")
    rounds = dict.fromkeys(("openat", "lseek", "read", "close", "getppid"), 100) | {"write": 2 * 100 + 2}
    for name in ("entry", "return"):
        assert {call: compat[name, call] for call in rounds} == rounds
