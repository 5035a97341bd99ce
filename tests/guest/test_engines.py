"""The same script on the same work: in the guest, and on the host at stopped vCPUs."""

from __future__ import annotations

from typing import Any

import pytest

from probekit.session.run import EngineName
from tests.guest.inprocess import Outcome, trace
from tests.guest.work import lines
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


def _shape(done: Outcome) -> dict[str, Any]:
    """Everything that must not depend on the engine."""
    fired = [(e.cpu if e.probe.name.provider == "fbt" else 0, e.probe, e.clause, e.items) for e in done.fired()]
    tables = {name: sorted(done.table(name).items(), key=repr) for name in done.aggregations}
    return {"fired": fired, "tables": tables, "status": done.status, "trouble": done.trouble()}


@pytest.mark.parametrize("name", SCRIPTS)
def test_both_engines_agree(guest: Guest, homes: object, name: str) -> None:
    script, work = SCRIPTS[name]
    first, second = (_shape(trace(guest, script, lines(guest, work), engine=engine)) for engine in ENGINES)
    assert first["trouble"] == []
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
