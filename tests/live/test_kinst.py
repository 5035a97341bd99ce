"""Probes at any instruction: counted exactly, faults where they belong, nothing left behind."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from probekit.patch.insn_sites import instruction_sites
from probekit.patch.jump_windows import jump_window
from probekit.patch.sites import InsnSite
from probekit.session.attach import attach
from probekit.session.options import Options
from probekit.session.recover import recover
from tests.guest_fixtures import K61, only, share
from tests.live.inprocess import trace
from tests.live.rawstub import let_run
from tests.live.tool import Probekit
from tests.live.work import getppid_on_each_cpu, lines
from vm.guest import Background, Guest
from vm.kernel_code import KernelCode, differences

pytestmark = pytest.mark.guest

CALLS = 1_000_000
COPYING = (
    "copy_user_enhanced_fast_string rep_movs_alternative copy_user_short_string _copy_from_user _copy_to_user "
    "_copy_from_iter _copy_to_iter strncpy_from_user strnlen_user fault_in_readable clear_user_erms "
    "rep_stos_alternative read_zero iov_iter_zero copy_page_from_iter_atomic futex_get_value_locked __get_user_8 "
    "__put_user_nocheck_4 copy_iovec_from_user"
).split()
HOT = (*(f"kinst::{name}:" for name in ("vfs_read", "vfs_write", "__x64_sys_getppid")), "fbt::vfs_*:entry")
ANYTHING = Options(zdefs=True)


def test_every_instruction_of_a_system_call_a_million_times_on_each_cpu(guest: Guest, homes: object) -> None:
    """getppid has one way through: each of its instructions is executed as often as it is called."""
    script = 'kinst::sys_getppid: /execname == "syscalls"/ { @[probename] = count(); @each[cpu] = count(); }'
    done = trace(guest, script, getppid_on_each_cpu(guest, CALLS // 10))
    assert done.trouble() == [] and done.refused == ()
    offsets = sorted(int(key[0]) for key in done.table())
    assert len(offsets) >= 10 and offsets[0] == 0
    assert set(done.table().values()) == {guest.smp * CALLS // 10}
    assert done.table("each") == {(cpu,): len(offsets) * CALLS // 10 for cpu in range(guest.smp)}


def test_a_million_traps_on_each_cpu_at_one_instruction(guest: Guest, homes: object) -> None:
    """A short instruction, so a trap; counted in its own stub, in a clause, and beside the function's own probes."""
    listed = trace(guest, "kinst::sys_getppid: { @[probename] = count(); } tick-1s { exit(0); }")
    assert listed.trouble() == []
    code = KernelCode.locate(guest)
    offset = _a_short_instruction(guest, code)
    script = f"""
        kinst::sys_getppid:{offset} {{ @traps = count(); }}
        kinst::sys_getppid:{offset} /execname == "syscalls"/ {{ @each[cpu] = count(); }}
        fbt::sys_getppid:entry, fbt::sys_getppid:return {{ @edges[probename] = count(); }}
    """
    done = trace(guest, script, getppid_on_each_cpu(guest, CALLS))
    assert done.trouble() == []
    assert done.table("each") == {(cpu,): CALLS for cpu in range(guest.smp)}
    total = done.table("traps")[()]
    assert CALLS * guest.smp <= total < CALLS * guest.smp + 100
    assert done.table("edges") == {("entry",): total, ("return",): total}


def _a_short_instruction(guest: Guest, code: KernelCode) -> int:
    """Its offset: of ``mov %gs:..., %rax`` and the like there is always a push, a pop or a test before the return."""
    with attach(guest.gdb) as attachment:
        function = next(f for f in attachment.functions if f.name == "__x64_sys_getppid")
        text = attachment.read_code([(function.addr, function.size)])[0]
        found = instruction_sites(function.addr, text or b"", attachment.text_facts)
    offsets = [offset for offset, site in found.sites.items() if site.trap and len(site.old) > 1]
    assert offsets
    return offsets[0]


def test_registers_are_those_of_the_instruction(guest: Guest, homes: object) -> None:
    """At the first instruction the arguments; dd's third one is its block size."""
    script = """
        kinst::vfs_read:0, fbt::vfs_read:entry /execname == "dd" && arg2 == 4096/ { @[probeprov, arg2] = count(); }
    """
    done = trace(guest, script, lines(guest, "dd if=/dev/zero of=/dev/null bs=4096 count=500 2>/dev/null"))
    assert done.trouble() == []
    assert done.table() == {("fbt", 4096): 500, ("kinst", 4096): 500}


def test_bad_user_pointers_with_probes_on_what_faults(guest: Guest, homes: object) -> None:
    """A fault in a copied instruction finds the original's fix-up: system calls give what they give untraced."""
    rounds = 400
    work = lines(guest, f"badptr {rounds}")
    plain = json.loads(work())
    assert plain["results"]["nanosleep_bad"] == {"-14": rounds} and plain["results"]["read_cut"] == {"100": rounds}
    script = ", ".join(f"kinst::{name}:" for name in COPYING) + " { @[probefunc] = count(); }"
    done = trace(guest, script, work, options=ANYTHING)
    assert json.loads(done.work) == plain
    assert done.trouble() == []
    assert sum(done.table().values()) > 100 * rounds
    assert ("_copy_from_user",) in done.table() and ("strncpy_from_user",) in done.table()


def test_stop_engine_agrees(guest: Guest, homes: object) -> None:
    script = 'kinst::sys_getppid: /execname == "syscalls"/ { @[probename] = count(); }'
    work = lines(guest, "syscalls 40 0")
    ours, reference = trace(guest, script, work), trace(guest, script, work, engine="stop")
    assert reference.trouble() == []
    assert ours.table() == reference.table() and set(ours.table().values()) == {40}


@pytest.fixture
def load(guest: Guest) -> Iterator[None]:
    running = guest.spawn("mixed 600 2")
    yield
    running.stop("KILL")


def test_killed_while_traps_are_hot(
    guest: Guest, probekit: Probekit, load: None, request: pytest.FixtureRequest
) -> None:
    text = KernelCode.locate(guest)
    before = text.read()
    for _ in range(1 + int(request.config.getoption("--kills")) // 30):
        running = probekit.live(f"{', '.join(HOT)} {{ @[probefunc] = count(); }}")
        changed = differences(before, text.read())
        assert sum(text.read()[at] == 0xCC for at in changed) > 20
        running.process.kill()
        running.finish()
        let_run(guest.gdb)
        time.sleep(0.3)
        assert guest.exec("true", timeout=30).status == 0  # it goes on trapping, with nobody to read
        done = probekit.recover("--json")
        assert done.status == 0, done.stderr
        assert done.events[0]["problems"] == [] and done.events[0]["restored"] > 20
        assert differences(before, text.read()) == []
        assert guest.console_problems() == []
    assert probekit.recover("--json").events[0]["clean"]


def _asleep(guest: Guest, seconds: float) -> Background:
    """A task that sleeps in the middle of a copy from user memory, from now on."""
    running = guest.spawn(f"exec faultwait {seconds:g}")
    deadline = time.monotonic() + 20
    while "sleeping" not in running.output():
        assert time.monotonic() < deadline and running.running()
        time.sleep(0.05)
    return running


COPIES = ", ".join(f"kinst::{name}:" for name in COPYING) + " { @ = count(); }"
LEFT = "left behind"


def test_a_task_that_sleeps_in_a_copied_instruction_is_waited_for(guest: Guest, homes: object) -> None:
    sleepers: list[Background] = []
    done = trace(guest, COPIES, lambda: sleepers.append(_asleep(guest, 4)), options=ANYTHING)
    assert done.trouble() == []
    (sleeper,) = sleepers
    assert "filling" in sleeper.output(), "the copy had not gone on"
    last = json.loads(sleeper.wait().output.splitlines()[-1])
    assert last == {"workload": "faultwait", "written": 10, "text": "ok"}


@only(K61)
def test_memory_stays_behind_a_task_that_sleeps_too_long(guest: Guest, homes: object) -> None:
    """Said, inert, and freed by recover once the task is out."""
    sleepers: list[Background] = []
    done = trace(guest, COPIES, lambda: sleepers.append(_asleep(guest, 30)), options=ANYTHING)
    (message,) = done.trouble()
    assert LEFT in str(message) and "faultwait" in str(message)
    assert guest.exec("badptr 20 >/dev/null").status == 0  # sites are restored
    last = json.loads(sleepers[0].wait(60).output.splitlines()[-1])
    assert last == {"workload": "faultwait", "written": 10, "text": "ok"}
    found = recover(guest.gdb)
    assert found.problems == () and found.freed > 4096
    assert recover(guest.gdb).clean


JUMPS = Options(kinstjump=True, zdefs=True)


@only(K61)
def test_several_instructions_under_one_jump(guest: Guest, homes: object, load: None) -> None:
    """Both CPUs run through it while it is written and restored; counts agree with the traps' and the entries'."""
    functions = ("vfs_read", "vfs_write", "__fget_light", "__schedule", "pipe_read", "do_sys_poll", "rw_verify_area")
    with attach(guest.gdb) as attachment:
        facts = replace(attachment.text_facts, side_entries=attachment.side_entries)
        table = {f.name: f for f in attachment.functions}
        probes: list[str] = []
        for name in functions:
            function = table.get(name)
            text = attachment.read_code([(function.addr, function.size)])[0] if function is not None else None
            if function is None or text is None:
                continue
            found = instruction_sites(function.addr, text, facts)
            short = [offset for offset, site in found.sites.items() if site.trap]
            fit = [offset for offset in short if isinstance(jump_window(found, offset, facts), InsnSite)]
            probes += [f"kinst::{name}:{offset}" for offset in fit[:: max(len(fit) // 6, 1)]]
    assert len(probes) > 20
    script = ", ".join(probes) + " { @[probefunc, probename] = count(); }"
    code = KernelCode.locate(guest)
    before = code.read()
    jumps = 0
    for _ in share(guest, 5):
        done = trace(guest, script, lambda: time.sleep(0.5), options=JUMPS)
        assert done.trouble() == []
        jumps = max(jumps, done.stats["sites"])
        assert differences(before, code.read()) == []
    assert jumps == len(probes) and sum(done.table().values()) > 1000


def test_one_jump_counts_what_a_trap_counts(guest: Guest, homes: object) -> None:
    with attach(guest.gdb) as attachment:
        facts = replace(attachment.text_facts, side_entries=attachment.side_entries)
        function = next(f for f in attachment.functions if f.name == "__x64_sys_getppid")
        text = attachment.read_code([(function.addr, function.size)])[0]
    found = instruction_sites(function.addr, text or b"", facts)
    windows = {o: jump_window(found, o, facts) for o, site in found.sites.items() if site.trap}
    offset = next(o for o, site in windows.items() if isinstance(site, InsnSite))
    script = f'kinst::sys_getppid:{offset} /execname == "syscalls"/ {{ @[cpu] = count(); }}'
    code = KernelCode.locate(guest)
    before, seen = code.read(), bytearray()

    def work() -> None:
        changed = differences(before, code.read())
        seen.extend(code.read()[at] for at in changed[:1])
        getppid_on_each_cpu(guest, CALLS // 4)()

    done = trace(guest, script, work, options=JUMPS)
    assert done.trouble() == []
    assert seen == b"\xe9"  # jmp rel32, not int3
    assert done.table() == {(cpu,): CALLS // 4 for cpu in range(guest.smp)}
