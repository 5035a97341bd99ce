"""Killed at any moment: ``probekit recover`` puts the guest right, once and for all."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import pytest

from probekit.session.recover import recover
from tests.guest.inprocess import trace
from tests.guest.refusal import PROBE, refused
from tests.guest.tool import Probekit
from tests.guest_fixtures import K61
from vm.guest import Guest
from vm.text import KernelText, differences

pytestmark = pytest.mark.guest

SCRIPT = ("-n", "fbt::vfs_*: { @[probefunc, probename] = count(); }", "-n", "fbt::sys_*:entry { @n = count(); }")
PHASES = ("connecting", "finding the sites", "enabling", "enabling", "restoring", "restoring")


@pytest.fixture(scope="module", autouse=True)
def load(guest: Guest) -> Iterator[None]:
    running = guest.spawn("mixed 900 2")
    yield
    running.stop("KILL")


def _ours(guest: Guest) -> list[str]:
    """Guest memory that probekit asked for: its caller is the first byte of a function."""
    found = guest.check("cat /proc/vmallocinfo", timeout=60).splitlines()
    return [line for line in found if "+0x0/" in line]


def test_killed_at_random_moments(guest: Guest, probekit: Probekit, request: pytest.FixtureRequest) -> None:
    kills = request.config.getoption("--kills")
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    text = KernelText.locate(guest)
    before = text.read()
    memory = _ours(guest)
    left = 0
    # The matrix shares the moments between its kernels.
    for turn in range(-(-kills // 2)):
        phase = PHASES[turn % len(PHASES)]
        delay = chance.uniform(0, 0.9)
        where = f"seed {seed}, turn {turn}: {delay:.3f} s behind {phase!r}"
        running = probekit.start("-v", *SCRIPT, "-n", "tick-200ms { exit(0); }")
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
    assert _ours(guest) == memory
    # And it can be traced as if nothing had been.
    again = trace(guest, "fbt::vfs_read:entry { @ = count(); }", lambda: time.sleep(0.3))
    assert again.trouble() == [] and again.table()[()] > 0


def test_killed_while_it_traces(guest: Guest, probekit: Probekit) -> None:
    clean = probekit.recover()
    assert clean.status == 0 and "nothing to recover" in clean.stdout
    text = KernelText.locate(guest)
    before = text.read()
    running = probekit.live(SCRIPT[1], SCRIPT[3])
    assert differences(before, text.read()) != []
    running.process.kill()
    running.finish()
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
        text = KernelText.locate(second)
        before = text.read()
        done = tool.recover("--json")
        assert done.status == 0 and done.events[0]["rebooted"] == 1, done.stderr
        assert done.events[0]["restored"] == done.events[0]["freed"] == 0
        assert tool.recover("--json").events[0]["clean"]
        assert differences(before, text.read()) == [] and second.console_problems() == []
