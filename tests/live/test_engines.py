"""The same script on the same work: in the guest, and on the host at stopped vCPUs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from probekit.consumer.events import Fault
from probekit.session.options import EngineName
from tests.live.inprocess import Outcome, trace
from tests.live.work import lines
from vm.guest import Guest

pytestmark = pytest.mark.guest

ENGINES: tuple[EngineName, ...] = ("guest", "stop")
CALLS = 60
PINNED_DD = f"taskset 2 dd if=/dev/zero of=/dev/null bs=4096 count={CALLS} 2>/dev/null"
SCRIPTS = {
    "tables": (
        """
        BEGIN { start = 1000; }
        fbt::sys_getppid:entry /execname == "syscalls"/ {
            @ = count(); @k[execname, probefunc, probename, cpu] = count(); @p[pid == tid] = count();
        }
        fbt::sys_getppid:return /execname == "syscalls"/ { @r[arg1 > 0, arg1 == arg1] = count(); }
        fbt::vfs_read:entry /execname == "dd" && arg2 == 4096/ {
            n++; this->x = (n * 7 - 100) / 3; @s = sum(this->x); @lo = min(this->x); @hi = max(this->x);
            @av = avg(this->x); @q = quantize(this->x); @bits[n & 3, n % 5, n << 2] = count();
        }
        END { printf("%d %d\\n", start, n); }
        """,
        f"syscalls {CALLS} 1; {PINNED_DD}",
    ),
    "language": (
        """
        struct call { int n; char name[8]; uint64_t size; };
        int64_t seen[string, int64_t]; string last; struct call o; self string what; struct call by[int64_t];
        BEGIN { last = "none"; seen["begin", 0] = 3; }
        fbt::vfs_read:entry /execname == "dd" && arg2 == 4096/ {
            n++; self->n = n; self->what = strjoin(execname, lltostr(n)); self->a[n & 3] = n;
            seen[self->what, n % 7]++; by[n & 3].n = n; by[n & 3].size += arg2; o = by[n & 3]; o.name[1] = 'x';
            printf("%s %s %d %d", last, self->what, o.n, o.size); trace(uid + gid); trace(ppid == pid);
            last = substr(self->what, n & 3); trace(index(self->what, "1")); trace(basename(last)); trace(caller > 0);
            @k[self->what, self->a[(n - 1) & 3]] = count(); @sd = stddev(n * n - 900); @lq = lquantize(n, 5, 50, 5);
            @ll[n & 1] = llquantize(n * n, 10, 0, 4, 20, n); @qw = quantize(n - 30, n & 3);
        }
        fbt::vfs_read:return /self->n/ { trace(self->what); trace(self->n); self->n = 0; self->what = ""; }
        fbt::vfs_read:return /execname == "dd" && n == 11/ { trace(1); trace(*(int *)(n - 11)); }
        fbt::vfs_read:return /execname == "dd" && n == 12/ { trace(100 / (n - 12)); }
        fbt::vfs_read:entry /execname == "dd" && n > 20 && n < 26/ {
            print(o); trace(curthread->comm); tracemem(curthread->comm, 16); trace(stringof(curthread->comm));
        }
        ERROR { trace(arg1); trace(arg2); trace(arg3); trace(arg4); trace(arg5); }
        END { printf("%d %s %d", seen["dd5", 5], last, seen["begin", 0]); }
        """,
        PINNED_DD,
    ),
    "records": (
        """
        fbt::vfs_read:entry /execname == "dd" && arg2 == 4096/ {
            n++; trace(n); trace(execname); printf("%s:%s:%s %d %x|%-8s|%5d", probemod, probefunc, probename, n,
                arg2, execname, -n);
        }
        fbt::vfs_read:return /execname == "dd" && arg1 == 4096/ { trace((int)arg1); trace(arg0 > 0); }
        fbt::sys_getppid: /execname == "syscalls"/ { }
        """,
        f"{PINNED_DD}; syscalls {CALLS} 0",
    ),
}


def shape(done: Outcome) -> dict[str, Any]:
    """Everything that must not depend on the engine."""
    fired = [(e.cpu if e.probe.name.provider == "fbt" else 0, e.probe, e.clause, e.items) for e in done.fired()]
    tables = {name: sorted(done.table(name).items(), key=repr) for name in done.aggregations}
    trouble = [replace(e, timestamp=0) if isinstance(e, Fault) else e for e in done.trouble()]
    return {"fired": fired, "tables": tables, "status": done.status, "trouble": trouble}


@pytest.mark.parametrize("name", SCRIPTS)
def test_both_engines_agree(guest: Guest, homes: object, name: str) -> None:
    script, work = SCRIPTS[name]
    first, second = (shape(trace(guest, script, lines(guest, work), engine=engine)) for engine in ENGINES)
    assert [e for e in first["trouble"] if not isinstance(e, Fault)] == []
    assert first["fired"] or first["tables"]
    assert first == second


@pytest.mark.parametrize("engine", ENGINES)
def test_exit_ends_with_its_status(guest: Guest, homes: object, engine: EngineName) -> None:
    script = """
        fbt::sys_getppid:entry /execname == "syscalls"/ { n++; trace(n); }
        fbt::sys_getppid:entry /execname == "syscalls" && n == 20/ { exit(n + 3); }
        END { trace("end"); }
    """
    done = trace(guest, script, lines(guest, "syscalls 60 0"), engine=engine)
    assert done.trouble() == []
    assert done.status == 23
    # Nothing behind exit() but END.
    assert done.traced() == [*((n,) for n in range(1, 21)), (), ("end",)]
