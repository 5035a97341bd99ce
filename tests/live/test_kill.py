"""Killed at any moment: ``probekit recover`` puts the guest right, once and for all."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from probekit.guest.kernel_text import KernelText as GuestText
from probekit.kernel.open_kernel import open_kernel
from probekit.session.recover import recover
from probekit.session.table_scan import find_tables
from probekit.target.connect import connect
from tests.guest_fixtures import K61, SINGLE, only, share
from tests.live.inprocess import trace
from tests.live.rawstub import let_run
from tests.live.refusal import PROBE, refused
from tests.live.tool import Probekit
from tests.live.work import our_memory
from vm.guest import Guest
from vm.kernel_code import KernelCode, differences

pytestmark = pytest.mark.guest

SCRIPT = ("-n", "fbt::vfs_*: { @[probefunc, probename] = count(); }", "-n", "fbt::sys_*:entry { @n = count(); }")
# Detours, traps, and registrations with the kernel. Those that make the kernel rewrite what its CPUs run are killed in
# test_tracepoints.py, on guests whose emulation bears it.
EVERY_WAY = (
    *SCRIPT,
    *("-n", "kinst::vfs_read:, kinst::vfs_write: { @k = count(); }"),
    *("-n", "profile-97 { @p[pid] = count(); }"),
)
PHASES = ("connecting", "finding the sites", "enabling", "enabling", "restoring", "restoring")


@pytest.fixture(scope="module", autouse=True)
def load(guest: Guest) -> Iterator[None]:
    running = guest.spawn("mixed 900 2")
    yield
    running.stop("KILL")


@pytest.mark.timeout(7200)  # each step of it has its own limit
def test_killed_at_random_moments(guest: Guest, probekit: Probekit, request: pytest.FixtureRequest) -> None:
    kills = request.config.getoption("--kills")
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    text = KernelCode.locate(guest)
    before = text.read()
    memory = our_memory(guest)
    left = 0
    # The matrix shares them, so that each phase has its turn; tests/live/test_faults.py kills at any point.
    for turn in share(guest, kills):
        phase = PHASES[turn % len(PHASES)]
        delay = chance.uniform(0, 0.9)
        where = f"seed {seed}, turn {turn}: {delay:.3f} s behind {phase!r}"
        running = probekit.start("-v", *EVERY_WAY, "-n", "tick-200ms { exit(0); }")
        running.wait_said(phase)
        time.sleep(delay)
        running.process.kill()
        running.finish()
        done = recover(guest.gdb)
        assert done.problems == (), where
        assert done.rebooted == 0, where
        left += not done.clean
        assert differences(before, text.read()) == [], where
        assert guest.exec("true", timeout=30).status == 0, where
        assert recover(guest.gdb).clean, where
        assert guest.console_problems() == [], where
    assert left > 0, "no kill left anything: the moments are badly chosen"
    assert our_memory(guest) == memory
    # And it can be traced as if nothing had been.
    again = trace(guest, "fbt::vfs_read:entry { @ = count(); }", lambda: time.sleep(0.3))
    assert again.trouble() == [] and again.table()[()] > 0


# Dies when the journal is about to hear that the kernel has forgotten something for the n-th time: it never does.
DYING = """
import os, signal, sys
from probekit.cli.main import main
from probekit.session.journal_log import JournalLog
left = int(sys.argv[1])
tell = JournalLog.unregistered
def dying(log, items):
    global left
    left -= 1
    if not left:
        print(items[0].kind, file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    tell(log, items)
JournalLog.unregistered = dying
sys.exit(main(sys.argv[2:]))
"""


@only(*SINGLE)
def test_killed_before_its_journal_hears_what_the_kernel_forgot(guest: Guest, probekit: Probekit) -> None:
    """What is taken back already is not taken back again, by a first recovery or by another: it may be gone."""
    copied = "kinst::copy_user_enhanced_fast_string:, kinst::copy_user_generic_string:, kinst::rep_movs_alternative:"
    script = f"{copied}, tracepoint:nullb::, fbt::vfs_read: {{ @[probename] = count(); }} tick-50ms {{ exit(0); }}"
    text = KernelCode.locate(guest)
    before, memory = text.read(), our_memory(guest)
    seen = []
    heard = ["timer", "tracepoint", "module", "die_notifier", "bpf_ksym"]
    for turn in share(guest, len(heard)):
        command = [sys.executable, "-c", DYING, str(turn + 1), "-Z", "-r", guest.gdb, "-n", script]
        done = subprocess.run(command, env=probekit.env, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == -signal.SIGKILL, done.stderr
        seen.append(done.stderr.splitlines()[-1])
        first = recover(guest.gdb)
        assert first.problems == () and not first.clean, seen
        assert recover(guest.gdb).clean, seen
        assert differences(before, text.read()) == [] and our_memory(guest) == memory, seen
        assert guest.check("cat /sys/module/null_blk/refcnt").strip() == "0", seen
        assert guest.console_problems() == [], seen
    assert seen == [heard[turn] for turn in share(guest, len(heard))]
    command = [sys.executable, "-c", DYING, str(len(heard) + 1), "-Z", "-r", guest.gdb, "-n", script]
    done = subprocess.run(command, env=probekit.env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, "the kernel forgets more than this test knows of"


def test_killed_while_it_traces(guest: Guest, probekit: Probekit) -> None:
    clean = probekit.recover()
    assert clean.status == 0 and "nothing to recover" in clean.stdout
    text = KernelCode.locate(guest)
    before = text.read()
    running = probekit.live(SCRIPT[1], SCRIPT[3])
    assert differences(before, text.read()) != []
    running.process.kill()
    running.finish()
    let_run(guest.gdb)
    time.sleep(0.2)
    assert guest.exec("true", timeout=30).status == 0  # its probes go on in the guest, with nobody to read them
    # Nothing else is done to this guest before it is right again.
    refused(probekit.run(*PROBE), "recover")
    first = probekit.recover("--json")
    (done,) = first.events
    assert first.status == 0 and not done["clean"], first.stderr
    assert done["restored"] > 100 and done["already"] == 0 and done["freed"] > 4096 and done["problems"] == []
    assert differences(before, text.read()) == []
    second = probekit.recover("--json")
    assert second.status == 0 and second.events[0]["clean"]


def test_recovered_without_its_journal(guest: Guest, probekit: Probekit, tmp_path: Path) -> None:
    """The disk of the host that traced is gone: the guest itself has the table."""
    text = KernelCode.locate(guest)
    before, memory = text.read(), our_memory(guest)
    running = probekit.live(SCRIPT[1], SCRIPT[3])
    running.process.kill()
    running.finish()
    elsewhere = Probekit(guest.gdb, {**probekit.env, "XDG_STATE_HOME": str(tmp_path / "elsewhere")})
    refused(elsewhere.run(*PROBE), "recover")
    (done,) = elsewhere.recover("--json").events
    assert done["restored"] > 100 and done["already"] == 0 and done["freed"] > 4096 and done["problems"] == []
    assert differences(before, text.read()) == [] and our_memory(guest) == memory
    assert elsewhere.recover("--json").events[0]["clean"]
    # The journal that came back with its disk finds everything done; what was freed is not freed again.
    (late,) = probekit.recover("--json").events
    assert late["restored"] == late["freed"] == 0 and late["already"] > 100 and late["gone"] == 1, late
    assert differences(before, text.read()) == [] and late["problems"] == []
    assert probekit.recover("--json").events[0]["clean"], "that has ended it"
    assert probekit.run(*PROBE).status == 0 and our_memory(guest) == memory


def test_a_table_that_is_damaged(guest: Guest, probekit: Probekit, tmp_path: Path) -> None:
    running = probekit.live(SCRIPT[1], SCRIPT[3])
    running.process.kill()
    running.finish()
    elsewhere = Probekit(guest.gdb, {**probekit.env, "XDG_STATE_HOME": str(tmp_path / "elsewhere")})
    target = connect(guest.gdb)
    try:
        kernel = open_kernel(target)
        (found,) = find_tables(target, kernel)
        text = GuestText(target, kernel.address_space, kernel.symbol("init_task"))
        (was,) = text.read_many([(found.header.addr + 100, 1)])
        assert was is not None
        text.write_many([(found.header.addr + 100, bytes((was[0] ^ 1,)))])
    finally:
        target.detach()
    refused(elsewhere.recover(), "damaged")
    assert probekit.recover("--json").events[0]["problems"] == []


def test_a_journal_of_a_guest_that_was_booted_again(probekit: Probekit, guest: Guest) -> None:
    """The same socket, another boot: nothing of the old one is written into the new one."""
    if guest.kernel != K61.kernel:
        pytest.skip("once is enough: no part of it depends on the kernel")
    name = "reborn"
    with Guest.start(kernel=K61.kernel, name=name) as first:
        tool = Probekit(first.gdb, probekit.env)
        running = tool.live(SCRIPT[1])
        running.process.kill()
        running.finish()
    with Guest.start(kernel=K61.kernel, name=name) as second:
        assert second.gdb == first.gdb
        text = KernelCode.locate(second)
        before = text.read()
        done = tool.recover("--json")
        assert done.status == 0 and done.events[0]["rebooted"] == 1, done.stderr
        assert done.events[0]["restored"] == done.events[0]["freed"] == 0
        assert tool.recover("--json").events[0]["clean"]
        assert differences(before, text.read()) == [] and second.console_problems() == []
