"""Provider tracepoint, held against what the guest itself says and does."""

from __future__ import annotations

import time

import pytest

from probekit.probe.names import ProbeDescription
from probekit.session.attach import attach
from probekit.session.guest_types import GuestTypes
from probekit.session.recover import recover
from tests.guest_fixtures import SINGLE, only, share
from tests.live.inprocess import trace
from tests.live.refusal import refused
from tests.live.test_kill import EVERY_WAY
from tests.live.tool import Probekit
from tests.live.work import getppid_on_each_cpu, lines
from vm.guest import Guest

pytestmark = [pytest.mark.guest, only(*SINGLE)]

GETPPID = 110
_TRACING = "/sys/kernel/tracing"
EVENTS = f"test -d {_TRACING}/events || mount -t tracefs none {_TRACING}; cd {_TRACING}/events"
ON = f"{EVENTS}; cat */enable | grep -c 1 || true"


def test_every_tracepoint_of_the_guest_is_listed_with_its_system(guest: Guest, homes: object) -> None:
    # What the guest's own tracing has; of syscalls and ftrace it makes events that are no tracepoints.
    found = guest.check(f"{EVENTS}; for d in */*/; do echo $d; done").split()
    events = {tuple(path.strip("/").split("/")) for path in found}
    events = {event for event in events if event[0] not in ("syscalls", "ftrace")}
    with attach(guest.gdb) as attachment:
        probes = list(attachment.registry.match(ProbeDescription.parse("tracepoint:::")))
        types = GuestTypes(attachment)
        unknown = [str(p.name) for p in probes if types.shown(p) is None]
        shown = {p.name.name: types.shown(p) for p in probes if p.name.name == "sched_switch"}
    listed = {(p.name.module, p.name.name) for p in probes}
    assert len(events) > 500 and events <= listed
    extra = [p for p in probes if (p.name.module, p.name.name) not in events]
    assert all(p.tracepoint is not None and not p.tracepoint.system for p in extra), extra[:5]
    assert unknown == []
    assert shown["sched_switch"] == ("bool", "struct task_struct *", "struct task_struct *", "unsigned int")


def test_counts_are_exact(guest: Guest, homes: object) -> None:
    script = f"""
        tracepoint:raw_syscalls::sys_enter /execname == "syscalls" && arg1 == {GETPPID}/ {{ @in[cpu] = count(); }}
        tracepoint:raw_syscalls::sys_enter /execname == "syscalls"/ {{ @ids[arg1] = count(); }}
        tracepoint:raw_syscalls::sys_exit /execname == "syscalls" && arg1 > 0/ {{ @ppids[arg1] = count(); }}
    """
    total = 50_000
    done = trace(guest, script, getppid_on_each_cpu(guest, total))
    assert done.trouble() == []
    assert done.table("in") == {(cpu,): total for cpu in range(guest.smp)}
    assert done.table("ids")[(GETPPID,)] == guest.smp * total
    assert done.table("ppids") and max(done.table("ppids").values()) >= guest.smp * total
    assert guest.check(ON).strip() == "0", "the guest's own tracing is not touched"


def test_forks_and_exits_of_a_known_number_of_processes(guest: Guest, homes: object) -> None:
    script = """
        tracepoint:sched::sched_process_fork /execname == "forker"/ { @forks = count(); }
        tracepoint:sched::sched_process_exit /execname == "true"/ { @exits = count(); }
        tracepoint:sched::sched_process_exec /execname == "true"/ { @execs = count(); }
    """
    work = "cp /bin/busybox /tmp/sh; mkdir -p /tmp/b; ln -sf /bin/busybox /tmp/b/true; ln -sf /bin/busybox /tmp/b/sh;"
    work += "cat > /tmp/b/forker <<'E'\n#!/tmp/b/sh\ni=0; while [ $i -lt 60 ]; do /tmp/b/true; i=$((i+1)); done\nE\n"
    work += "chmod +x /tmp/b/forker; /tmp/b/forker"
    done = trace(guest, script, lines(guest, work))
    assert done.trouble() == []
    assert done.table("forks") == done.table("exits") == done.table("execs") == {(): 60}


def test_all_at_once_under_load(guest: Guest, homes: object) -> None:
    done = trace(
        guest,
        "tracepoint::: { @[probemod, probename] = count(); } fbt::sys_getppid:entry { @f = count(); }",
        lines(guest, "mixed 3 2 >/dev/null & syscalls 20000 1 >/dev/null; wait"),
    )
    assert done.trouble() == []
    seen = done.table()
    # One is connected and disconnected before the other, and softirqs run meanwhile.
    begun, ended = seen[("irq", "softirq_entry")], seen[("irq", "softirq_exit")]
    assert begun > 500 and abs(begun - ended) < 0.05 * begun
    assert seen[("raw_syscalls", "sys_enter")] > 20_000 and done.table("f")[()] >= 20_000
    assert len(seen) > 50
    assert guest.check(ON).strip() == "0"


def test_killed_while_the_kernel_calls_us(guest: Guest, probekit: Probekit) -> None:
    script = "tracepoint:raw_syscalls::, tracepoint:sched::, tracepoint:nullb:: { @[probename] = count(); }"
    running = probekit.live(script)
    running.process.kill()
    running.finish()
    time.sleep(0.2)
    assert guest.exec("true", timeout=30).status == 0  # the kernel goes on calling our functions
    assert guest.exec("rmmod null_blk").status != 0  # and its modules stay
    refused(probekit.run("-n", "BEGIN { exit(0); }"), "recover")
    done = recover(guest.gdb)
    assert done.problems == () and done.freed > 0
    assert recover(guest.gdb).clean
    assert _used(guest) == 0
    again = trace(guest, "tracepoint:raw_syscalls::sys_enter { @ = count(); }", lines(guest, "true"))
    assert again.trouble() == [] and again.table()[()] > 0


def test_killed_at_any_moment_of_it(guest: Guest, probekit: Probekit) -> None:
    points = "tracepoint:sched::, tracepoint:nullb::, tracepoint:raw_syscalls:: { @points[probename] = count(); }"
    script = ("-n", points, *EVERY_WAY)
    # Moments from early to late, in enabling and in restoring; the matrix shares them.
    for turn in share(guest, 10, together=2):
        running = probekit.start("-v", *script, "-n", "tick-100ms { exit(0); }")
        running.wait_said("restoring" if turn % 2 else "enabling")
        time.sleep(0.06 * turn)
        running.process.kill()
        running.finish()
        done = recover(guest.gdb)
        assert done.problems == (), turn
        assert guest.exec("true", timeout=30).status == 0, turn
        assert recover(guest.gdb).clean and _used(guest) == 0, turn
        assert guest.console_problems() == [], turn


def test_a_module_stays_while_it_is_traced(guest: Guest, probekit: Probekit) -> None:
    running = probekit.live("tracepoint:nullb:: { @ = count(); }")
    assert _used(guest) == 1
    held = guest.exec("rmmod null_blk")
    assert held.status != 0 and "unavailable" in held.output
    result = running.finish(2)
    assert result.status == 0 and _used(guest) == 0


def _used(guest: Guest) -> int:
    """The guest's own count of users of null_blk."""
    return int(guest.check("cat /sys/module/null_blk/refcnt"))


def test_the_stop_engine_says_that_it_cannot(probekit: Probekit) -> None:
    script = "tracepoint:sched::sched_switch { @ = count(); }"
    refused(probekit.run("--engine", "stop", "-n", script), "tracepoint", "--engine guest")
