"""The end of tracing in guests that are not quiet: what still may be used is not freed, and it is said so."""

from __future__ import annotations

import json
import re
import signal
import time

import pytest

from probekit.session.options import Options, set_option
from probekit.session.recover import recover
from tests.guest_fixtures import K61, K61RT, K612, only
from tests.live.inprocess import trace
from tests.live.rawstub import let_run
from tests.live.tool import Probekit
from tests.live.work import lines, our_memory
from vm.guest import Background, Guest
from vm.text import KernelText, differences

pytestmark = pytest.mark.guest

DETOUR = "fbt::sys_getppid:entry { @ = count(); }"
SCRIPT = "kinst::sys_getppid: { @ = count(); }"
"""Traps are on a list of the kernel's, which somebody may be reading: that has to be waited for."""


@only(K61, K612, K61RT)
def test_a_task_that_sleeps_in_a_probed_function_comes_back_to_the_original_one(guest: Guest, homes: object) -> None:
    """It went in past our jump and sleeps on; the probes go, and it returns where the kernel's own return stands."""
    sleepers = [guest.spawn("sleep 5; echo slept") for _ in range(3)]
    script = "fbt::*nanosleep*:, fbt::hrtimer_*sleep*:, fbt::schedule: { @[probefunc, probename] = count(); }"
    work = "for i in 1 2 3; do sleep 7 & done; sleep 0.5; jobs -p"
    done = trace(guest, script, lines(guest, work))
    assert done.trouble() == [] and done.table()
    assert float(done.stats["disable_s"]) < 4, "nobody has to be waited for who only sleeps in the kernel's own code"
    assert [s.wait(30).output.strip() for s in sleepers] == ["slept"] * 3
    for pid in done.work.split():  # those that slept in a probe wake up too
        guest.check(f"while test -e /proc/{pid}; do sleep 0.1; done")


def _starve(guest: Guest, seconds: float) -> Background:
    """Keep a task from running, from now on."""
    said = guest.console.read_text(errors="replace").count("starving")
    starving = guest.spawn(f"exec starve {seconds:g}")
    deadline = time.monotonic() + 30
    while guest.console.read_text(errors="replace").count("starving") == said:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return starving


def _ran(starving: Background) -> int:
    """What its victim ran meanwhile, when it is over."""
    return int(json.loads(starving.wait(60).output.splitlines()[-1])["ran"])


@only(K61, K612, K61RT)
def test_a_guest_that_never_becomes_quiet(guest: Guest, homes: object) -> None:
    """A task that is kept from running may be anywhere, also in a probe: the memory stays until it has moved on."""
    memory, text = our_memory(guest), KernelText.locate(guest)
    before = text.read()
    done = trace(guest, SCRIPT, lambda: _starve(guest, 14), options=set_option(Options(), "quiesce", "3s", "start"))
    starving = done.work
    (said,) = done.trouble()
    named = (
        "" if guest.kernel == K61RT.kernel else r": .* \(\d+\) kept from running"
    )  # RT: RCU's own threads starve too
    assert re.search(rf"\d+ bytes of guest memory are left behind, inert: .* for 3 s now{named}", str(said))
    assert differences(before, text.read()) == [], "the text is restored at once"
    early = recover(guest.gdb, limit=1.0)
    (problem,) = early.problems
    assert early.freed == 0 and "left behind, inert" in problem
    assert _ran(starving) == 0
    assert len(our_memory(guest)) > len(memory)
    late = recover(guest.gdb)
    assert late.problems == () and late.freed > 3 * 4096
    assert our_memory(guest) == memory
    assert recover(guest.gdb).clean


@only(K61, K612)
def test_who_is_kept_from_running_elsewhere_is_not_waited_for(guest: Guest, homes: object) -> None:
    """Of a jump every way in and back is on a stack or in a register: nobody is there, whatever else he waits for."""
    memory = our_memory(guest)
    done = trace(guest, DETOUR, lambda: _starve(guest, 6), options=set_option(Options(), "quiesce", "3s", "start"))
    assert done.trouble() == []
    assert _ran(done.work) == 0
    assert our_memory(guest) == memory
    assert recover(guest.gdb).clean


@only(K61, K612)  # what starves on an RT kernel is also what the test hears of the guest by
def test_killed_while_it_waits(guest: Guest, probekit: Probekit) -> None:
    """What the kernel will write to when the wait is over is known to the journal, and is given back behind that."""
    memory = our_memory(guest)
    running = probekit.live(SCRIPT, options=("-v",))
    starving = _starve(guest, 5)
    running.signal(signal.SIGINT)
    running.wait_said("restoring")
    time.sleep(0.7)
    running.process.kill()
    running.finish()
    let_run(guest.gdb)
    assert len(our_memory(guest)) > len(memory)
    assert _ran(starving) == 0
    assert recover(guest.gdb).problems == ()
    assert our_memory(guest) == memory
    assert recover(guest.gdb).clean
