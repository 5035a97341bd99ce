"""The whole language inside the guest: what only a live kernel can show."""

from __future__ import annotations

import pytest

from probekit.buffers.layout import FaultKind
from probekit.consumer import events as model
from probekit.session.options import Options
from tests.live.inprocess import Outcome, trace
from tests.live.work import getppid_on_each_cpu, lines
from vm.guest import Guest

pytestmark = pytest.mark.guest

CALLS = 500
MINE = '/execname == "syscalls"/'


def no_trouble(done: Outcome) -> Outcome:
    assert done.trouble() == []
    return done


def test_facts_of_a_task(guest: Guest, homes: object) -> None:
    script = f"""
        fbt::sys_getppid:entry {MINE} {{ @[pid, ppid, uid, gid, tid == pid] = count(); this->c = curthread; }}
        fbt::sys_getppid:return {MINE} {{ @r[arg1 == ppid] = count(); }}
        fbt::sys_getppid:entry {MINE} {{ @w = min(walltimestamp); @x = max(walltimestamp); }}
    """
    work = f"date +%s; syscalls {CALLS} 1 >/dev/null & echo $! $$; wait; date +%s"
    done = no_trouble(trace(guest, script, lines(guest, work)))
    first, pids, last = done.work.split("\n")[:3]
    pid, shell = map(int, pids.split())
    assert done.table() == {(pid, shell, 0, 0, 1): CALLS}
    assert done.table("r") == {(1,): CALLS}
    assert int(first) - 1 <= done.table("w")[()] / 1e9 <= done.table("x")[()] / 1e9 <= int(last) + 1


def test_time_on_a_cpu_and_errors(guest: Guest, homes: object) -> None:
    """A sleeper spends none, a busy loop all of it, and it never goes back; a call that fails says why."""
    script = f"""
        self uint64_t v; self uint64_t first;
        fbt::sys_getppid:entry {MINE} {{ @back = min((int64_t)(vtimestamp - self->v)); self->v = vtimestamp; }}
        fbt::sys_getppid:entry /{MINE[1:-1]} && !self->first/ {{ self->first = vtimestamp; self->began = timestamp; }}
        fbt::do_exit:entry {MINE} {{ @cpu = sum(vtimestamp - self->first); @all = sum(timestamp - self->began); }}
        fbt::hrtimer_nanosleep:entry /execname == "sleep"/ {{ self->s = vtimestamp; self->t = timestamp; }}
        fbt::hrtimer_nanosleep:return /self->t/ {{ @slept = sum(timestamp - self->t); }}
        fbt::hrtimer_nanosleep:return /self->t/ {{ @ran = sum(vtimestamp - self->s); }}
        fbt::do_sys_openat2:return /execname == "cat"/ {{ @errors[errno] = count(); }}
        fbt::do_sys_openat2:entry /execname == "cat"/ {{ @none[errno] = count(); }}
    """
    work = "syscalls 300000 1; sleep 0.3; cat /no/such/file 2>/dev/null || cat /dev/null"
    done = no_trouble(trace(guest, script, lines(guest, work)))
    value = {name: done.table(name)[()] for name in ("back", "cpu", "all", "slept", "ran")}
    assert value["back"] >= 0
    assert 0.5 * value["all"] < value["cpu"] <= 1.01 * value["all"], value
    assert value["ran"] < 0.1 * value["slept"] and value["slept"] >= 300_000_000, value
    assert (
        done.table("errors")[(2,)] == 1
        and set(done.table("errors")) == {(0,), (2,)}
        and set(done.table("none")) == {(0,)}
    )


def test_the_stack_at_entry_and_return(guest: Guest, homes: object) -> None:
    script = f"""
        fbt::vfs_read:entry /execname == "dd"/ {{ @e[stack()] = count(); @c[caller] = count(); @d = max(stackdepth); }}
        fbt::vfs_read:return /execname == "dd"/ {{ @r[stack(2)] = count(); stack(1); sym(caller); }}
        fbt::sys_getppid:entry {MINE} {{ @s[stack()] = count(); }}
    """
    done = no_trouble(
        trace(guest, script, lines(guest, f"dd if=/dev/zero of=/dev/null count=9 2>&1; syscalls {CALLS} 0"))
    )
    (stack,) = (key[0].split("\n") for key, n in done.table("e").items() if n >= 9)
    names = [frame.partition("+")[0] for frame in stack]
    assert names[0] == "vmlinux`ksys_read" and names[-1] == "vmlinux`entry_SYSCALL_64_after_hwframe"
    assert "vmlinux`do_syscall_64" in names and done.table("d")[()] >= len(names) >= 3
    assert {key[0].split("\n")[0].partition("+")[0] for key in done.table("r")} == {"vmlinux`ksys_read"}
    frames = [item for e in done.fired() for item in e.items if isinstance(item, model.StackFrames)]
    assert {frame.partition("+")[0] for f in frames for frame in f.frames} == {"vmlinux`ksys_read"}
    (short,) = (key[0].split("\n") for key, n in done.table("s").items() if n == CALLS)
    assert [f.partition("+")[0].partition("`")[2] for f in short][-1] == "entry_SYSCALL_64_after_hwframe"


def test_variables_of_threads_on_both_cpus(guest: Guest, homes: object) -> None:
    """Every thread sees its own, through system calls on two busy CPUs at a time."""
    script = f"""
        fbt::sys_getppid:entry {MINE} {{ self->t = timestamp; self->n++; self->name = execname; self->a[tid] = tid; }}
        fbt::sys_getppid:return /self->t/ {{
            @ = count(); @late = max(timestamp - self->t); @own[self->name, self->a[tid] == tid] = count(); self->t = 0;
        }}
        fbt::do_exit:entry {MINE} {{ @calls[self->n] = count(); }}
    """
    done = no_trouble(trace(guest, script, getppid_on_each_cpu(guest, 20_000)))
    assert done.table() == {(): 40_000} and done.table("own") == {("syscalls", 1): 40_000}
    assert done.table("calls") == {(20_000,): 2}
    assert 0 < done.table("late")[()] < 10**9


def test_threads_that_end_leave_nothing_behind(guest: Guest, homes: object) -> None:
    script = """
        fbt::sys_getppid:entry { self->seen++; @[self->seen > 3 ? 1 : 0] = count(); }
        fbt::do_exit:entry { self->seen = 7; }
    """
    work = "for i in $(seq 150); do syscalls 3 1 > /dev/null; done"
    done = no_trouble(trace(guest, script, lines(guest, work), options=Options(dynvarsize=4096)))
    assert set(done.table()) == {(0,)}, "no thread starts with what another left"
    assert done.table()[(0,)] >= 450


def test_arrays_are_the_same_on_every_cpu_and_on_the_host(guest: Guest, homes: object) -> None:
    script = f"""
        string last; int64_t total[string, int64_t]; int64_t ticks;
        BEGIN {{ total["begin", 1] = 7; last = "nobody"; kinds["x"] = "from the host"; }}
        fbt::sys_getppid:entry {MINE} {{ total[execname, cpu]++; last = execname; }}
        fbt::sys_getppid:entry {MINE} {{ @[kinds["x"], total["begin", 1]] = count(); }}
        tick-50ms {{ ticks++; seen[ticks & 3] = total["syscalls", 0]; }}
        END {{ printf("%d %d %s %d", total["syscalls", 0], total["syscalls", 1], last, total["begin", 1]); }}
    """
    done = no_trouble(trace(guest, script, getppid_on_each_cpu(guest, 30_000)))
    assert done.texts()[-1] == "30000 30000 syscalls 7"
    assert done.table() == {("from the host", 7): 60_000}


def test_elements_under_contention_are_exact_or_counted(guest: Guest, homes: object) -> None:
    """Both CPUs make and free the same elements all the time."""
    script = f"""
        fbt::sys_getppid:entry {MINE} {{ a[timestamp & 7] = cpu + 1; b[cpu, timestamp & 63]++; }}
        fbt::sys_getppid:return {MINE} {{ @[a[timestamp & 7] <= 2] = count(); a[timestamp & 7] = 0; }}
    """
    done = trace(guest, script, getppid_on_each_cpu(guest, 100_000))
    assert all(isinstance(e, model.Drop) and e.kind == "dyndirty" for e in done.trouble())
    assert done.table() == {(1,): 200_000}


def test_many_faults_do_no_harm(guest: Guest, homes: object) -> None:
    script = f"""
        fbt::sys_getppid:entry {MINE} {{ @n = count(); }}
        fbt::sys_getppid:entry {MINE} {{ @never = sum(*(int *)(arg0 & 1 ? 0xf000888000000000 : 16)); }}
        fbt::sys_getppid:entry {MINE} {{ @never = sum(*(int *)0xfffffffffffffff0); }}
        fbt::sys_getppid:return {MINE} {{ @never = sum(*(int *)0xffffffffff600000 / (arg1 - arg1)); }}
        ERROR {{ @errors[arg1, arg4] = count(); }}
    """
    done = trace(guest, script, getppid_on_each_cpu(guest, 60_000))
    assert done.table("n") == {(): 120_000} and "never" not in {n for n, a in done.aggregations.items() if a.rows}
    assert set(done.table("errors")) == {(n, int(FaultKind.BADADDR)) for n in (2, 3, 4)}
    faults = sum(isinstance(e, model.Fault) for e in done.events)
    lost = sum(e.count for e in done.events if isinstance(e, model.Drop) and e.kind == "principal")
    assert faults == sum(done.table("errors").values()) and faults + lost == 3 * 120_000
    assert {e.kind for e in done.trouble() if isinstance(e, model.Drop)} <= {"principal"}


def test_user_memory(guest: Guest, homes: object) -> None:
    script = """
        fbt::do_sys_openat2:entry /execname == "dd"/ { @[copyinstr(arg1)] = count(); }
        fbt::vfs_write:entry /execname == "dd" && arg2 == 5/ { @w[stringof((char *)copyin(arg1, 5))] = count(); }
        fbt::vfs_write:entry /execname == "dd" && arg2 == 5/ { @never[copyinstr(16)] = count(); }
        fbt::vfs_write:entry /execname == "dd" && arg2 == 5/ { @never[copyinstr((uintptr_t)curthread)] = count(); }
    """
    work = "printf hello > /tmp/in; dd if=/tmp/in of=/tmp/out bs=5 2>/dev/null"
    done = trace(guest, script, lines(guest, work))
    assert {("/tmp/in",): 1, ("/tmp/out",): 1}.items() <= done.table().items()
    assert done.table("w") == {("hello",): 1}
    assert [(e.kind, e.clause) for e in done.trouble() if isinstance(e, model.Fault)] == [
        (FaultKind.BADADDR, "clause 3"),
        (FaultKind.BADADDR, "clause 4"),
    ]


def test_user_strings_that_are_empty_or_end_with_their_page(guest: Guest, homes: object) -> None:
    """Kernels differ in what they return for an empty one; glibc's fstat() has one in each call."""
    script = """
        fbt::do_sys_openat2:entry /execname == "badptr" && arg1 > 4096/ { @[copyinstr(arg1, 100)] = count(); }
        fbt::do_sys_openat2:entry /execname == "badptr" && (arg1 & 4095) >= 4088/ { @whole[copyinstr(arg1)] = count(); }
        syscall::newfstatat:entry /execname == "sh"/ { @stat[copyinstr(arg1)] = count(); }
    """
    done = trace(guest, script, lines(guest, 'badptr 30 >/dev/null; for n in 1 2 3 4 5; do test -e ""; done; true'))
    assert done.trouble() == []
    assert {("/" * 100,): 30, ("no/such",): 30, ("",): 30}.items() <= done.table().items()
    assert done.table("whole") == {("no/such",): 30, ("",): 30}
    assert done.table("stat")[("",)] >= 5


def test_every_function_with_loads_and_stacks(guest: Guest, homes: object) -> None:
    """Probes on what the probes themselves call: the fault-safe copies, the unwinder, the page fault's own path."""
    script = """
        fbt::*unwind*:entry, fbt::*stack_trace*:entry, fbt::*fault*:entry, fbt::*extable*:entry, fbt::*exception*:entry
        { @[stack(3)] = count(); @bytes = sum(*(char *)curthread); @n = count(); }
        fbt::sys_getppid:entry /execname == "syscalls"/ { @own[stack()] = count(); @x = sum(*(int *)8); }
    """
    done = trace(guest, script, lines(guest, "syscalls 300 0; mixed 3 2"))
    assert {e.kind for e in done.trouble() if isinstance(e, model.Drop)} <= {"principal", "aggregation"}
    assert sum(done.table("own").values()) == 300 and done.table("n")[()] > 0
