"""Actions that change the guest: what works, how it looks from inside, what is refused before anything is touched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from probekit.buffers.layout import FaultKind
from probekit.consumer import events as model
from probekit.errors import UnsupportedError
from probekit.ir.build import compile_program
from probekit.session.attach import AttachOptions, attach
from probekit.session.options import Options
from probekit.session.run import Run
from tests.guest_fixtures import K61, Kind
from tests.live.inprocess import trace
from tests.live.refusal import PROBE, refused
from tests.live.test_engines import ENGINES
from tests.live.tool import Probekit
from tests.live.work import lines
from vm.guest import Guest

pytestmark = pytest.mark.guest

GETPPID = 'fbt::sys_getppid:entry /execname == "syscalls"/'
ONLY_CODE = (
    *("chill(1);", "panic();", "raise(9);", "stop();"),
    *("copyout((void *)arg0, arg1, 8);", 'copyoutstr("x", arg1, 2);'),
)
SAYS_SO = 'fbt::wake_up_process:entry {{ printf("first\\n"); {} exit(0); }}'


def test_what_is_refused(guest: Guest, probekit: Probekit) -> None:
    """By either engine, and nothing was touched."""
    for engine in ENGINES:
        done = probekit.run("-w", "--engine", engine, "-n", f"{GETPPID} {{ breakpoint(); }}")
        refused(done, "no breakpoint() in a guest: ")
    assert "nothing to recover" in probekit.recover().stdout


def test_what_only_code_can_do_is_refused_elsewhere(guest: Guest, homes: object) -> None:
    with attach(guest.gdb, AttachOptions()) as attachment:
        for text in [f"{GETPPID} {{ {call} }}" for call in ONLY_CODE]:
            with pytest.raises(UnsupportedError, match=r"line 1: .*\(\)"):
                Run(attachment, compile_program(text), Options(), engine="stop")
        for engine in ENGINES:
            with pytest.raises(UnsupportedError, match="chill"):
                Run(attachment, compile_program("profile-97 { chill(1); }"), Options(), engine=engine)
            with pytest.raises(UnsupportedError, match="raise"):
                Run(attachment, compile_program("profile-97 { raise(9); }"), Options(), engine=engine)


def test_they_need_w(guest: Guest, probekit: Probekit) -> None:
    for action in ("panic();", 'copyoutstr("x", arg1, 2);'):
        done = probekit.run("-n", f"{GETPPID} {{ {action} }}")
        refused(done, "Destructive actions not allowed", action.partition("(")[0])


@pytest.mark.parametrize("engine", ENGINES)
def test_what_the_host_does_for_a_probe_of_the_guest(
    guest: Guest, probekit: Probekit, engine: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    clause = SAYS_SO.format(f'system("echo by the %s", "host"); freopen("{out}"); printf("to a file\\n");')
    done = probekit.run("-q", "-w", "--engine", engine, "-n", clause)
    assert (done.status, done.stdout) == (0, "first\nby the host\n"), done.stderr
    assert out.read_text().strip() == "to a file"


# -- waiting ------------------------------------------------------------------------------------------------------


def test_chill(guest: Guest, homes: object) -> None:
    """A dozen calls that want to wait for 100 ms each: five of them may, and that is all for this second."""
    script = f"""
        {GETPPID} {{ this->begin = timestamp; chill(100000000); @least = min(timestamp - this->begin); @ok = count(); }}
        {GETPPID} {{ @calls = count(); }}
        ERROR {{ trace(arg4); }}
    """
    done = trace(guest, script, lines(guest, "syscalls 12 0"))
    faults = [event.kind for event in done.events if isinstance(event, model.Fault)]
    assert set(faults) == {FaultKind.ILLOP}
    assert done.traced() == [(int(FaultKind.ILLOP),)] * len(faults), "nothing else is said"
    assert done.table("calls") == {(): 12}
    # More of them where the guest itself was kept waiting until the next second.
    assert 5 <= done.table("ok")[()] == 12 - len(faults)
    assert 100_000_000 - 1 <= done.table("least")[()] < 1_000_000_000


# -- signals ------------------------------------------------------------------------------------------------------


def test_raise(guest: Guest, homes: object) -> None:
    """The program ends by the signal, at its third call; a kernel thread gets none, and there is no signal 65."""
    script = f"""
        {GETPPID} {{ n++; }}
        {GETPPID[:-1]} && n == 3/ {{ trace(n); raise(SIGTERM); }}
        fbt::sys_getppid:return /execname == "syscalls"/ {{ @returned = count(); }}
        {GETPPID[:-1]} && n == 1/ {{ raise(65); }}
        fbt::wake_up_process:entry /(int64_t)curthread->mm == 0 && !asked++/ {{ raise(9); }}
        ERROR {{ trace(arg5); }}
    """
    done = trace(guest, script, lines(guest, "set +e; syscalls 1000000 0; echo status $?; sync; sleep 0.3"))
    assert "status 143" in done.work
    assert (3,) in done.traced() and (65,) in done.traced()
    faults = [event for event in done.events if isinstance(event, model.Fault)]
    assert {(fault.kind, fault.value) for fault in faults} == {(FaultKind.ILLOP, 65), (FaultKind.ILLOP, 9)}
    assert done.table("returned") == {(): 3}


def test_raise_where_interrupts_are_off(guest: Guest, homes: object) -> None:
    """A function that the scheduler calls with its lock held: sending a signal there would never come back."""
    script = 'fbt::dequeue_task_fair:entry /execname == "sleep" && !done++/ { raise(SIGKILL); }'
    done = trace(guest, script, lines(guest, "set +e; sleep 50; echo status $?"))
    assert "status 137" in done.work and done.trouble() == []


def test_stop(guest: Guest, homes: object) -> None:
    """It stands still until somebody lets it go on."""
    work = """
        syscalls 5 0 & p=$!
        for i in 1 2 3 4 5 6 7 8 9 10; do grep -q '^State:.T' /proc/$p/status && break; sleep 0.1; done
        grep '^State' /proc/$p/status; kill -CONT $p; wait $p; echo status $?
    """
    done = trace(guest, f"{GETPPID[:-1]} && n++ == 1/ {{ stop(); }} {GETPPID} {{ @ = count(); }}", lines(guest, work))
    assert "T (stopped)" in done.work and "status 0" in done.work
    assert done.table() == {(): 5}


# -- memory of a program ------------------------------------------------------------------------------------------

READ = 'fbt::vfs_read:return /execname == "dd" && self->to && arg1 == 12/'
COPY = "printf 'hello, world' >/tmp/in; dd if=/tmp/in of=/tmp/out bs=4096 count=1 2>/dev/null; cat /tmp/out"


def test_a_program_reads_what_was_never_there(guest: Guest, homes: object) -> None:
    script = f"""
        fbt::vfs_read:entry /execname == "dd" && arg2 == 4096/ {{ self->to = arg1; }}
        {READ} {{ this->p = (char *)alloca(4); this->p[0] = 'j'; copyout(this->p, self->to, 1); }}
        {READ} {{ copyoutstr("guest, and more", self->to + 7, 5); }}
        {READ} {{ copyoutstr("!", self->to + 12, 2); @read[copyinstr(self->to)] = count(); }}
        {READ} {{ copyoutstr("x", 16, 2); @never = count(); }}
        {READ} {{ copyoutstr("x", (uintptr_t)curthread, 2); @never = count(); }}
        {READ} {{ copyout((void *)16, self->to, 2); @never = count(); }}
    """
    done = trace(guest, script, lines(guest, COPY))
    assert done.work == "jello, guest"
    assert done.table("read") == {("jello, guest!",): 1}
    assert "never" not in done.aggregations or done.table("never") == {}
    faults = [event for event in done.events if isinstance(event, model.Fault)]
    assert [fault.kind for fault in faults] == [FaultKind.BADADDR] * 3


def test_a_kernel_thread_has_no_memory_of_its_own(guest: Guest, homes: object) -> None:
    """Whatever program's memory is mapped while it runs: nothing is written there."""
    script = """
        fbt::wake_up_process:entry /(int64_t)curthread->mm == 0/ { copyoutstr("x", 0x400000, 1); @never = count(); }
        fbt::wake_up_process:entry /(int64_t)curthread->mm == 0/ { @seen = count(); }
    """
    done = trace(guest, script, lines(guest, "sync; sleep 0.5"))
    assert "never" not in done.aggregations or done.table("never") == {}
    assert done.table("seen")[()] > 0


# -- the end ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [K61], ids=str)
def test_panic(kind: Kind, tool: Callable[[str], Probekit]) -> None:
    """The kernel panics and hangs. What was recorded is shown, and the tool says what has happened and ends."""
    with Kind(kind.kernel, append="panic=0").boot() as doomed:
        probekit = tool(doomed.gdb)
        running = probekit.live(f'{GETPPID} {{ trace("last words"); panic(); }}', options=("-w",))
        doomed.spawn("sleep 0.3; syscalls 1 0")
        done = running.finish(limit=30)
        refused(done, "panicked")
        assert "last words" in done.stdout
        assert "panic() by a probe of probekit" in doomed.console_text()
        # The journal is gone with the guest, and who comes later is told at once.
        refused(probekit.run("--timeout", "2", *PROBE, limit=15), "panicked")
        refused(probekit.recover("--timeout", "2"), "panicked")
