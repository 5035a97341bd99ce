"""Functions patched while the guest runs, in stages (``-x stages``): as exact as in one pause, and undone as well."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from probekit.session.options import Options, set_option
from probekit.session.recover import recover
from tests.guest_fixtures import share
from tests.live.inprocess import trace
from tests.live.tool import Probekit
from tests.live.work import getppid_on_each_cpu
from vm.guest import Guest
from vm.kernel_code import KernelCode, differences

pytestmark = pytest.mark.guest

STAGES = set_option(Options(), "stages", "", "start")


@pytest.fixture(scope="module", autouse=True)
def load(guest: Guest) -> Iterator[None]:
    running = guest.spawn("mixed 900 2")
    yield
    running.stop("KILL")


def test_every_function_while_the_guest_works(guest: Guest, homes: object) -> None:
    total = 30_000
    script = """
        fbt::sys_getppid:entry /execname == "syscalls"/ { @in = count(); }
        fbt::sys_getppid:return /execname == "syscalls"/ { @out = count(); }
        fbt::: { @[probename] = count(); }
    """
    done = trace(guest, script, getppid_on_each_cpu(guest, total), options=STAGES)
    assert done.trouble() == []
    assert done.table("in") == done.table("out") == {(): guest.smp * total}
    assert min(done.table("").values()) > 100_000
    assert int(done.stats["sites"]) > 60_000


def test_switched_again_and_again_at_full_speed(guest: Guest, homes: object) -> None:
    """The same few functions, which both vCPUs are in all the time."""
    for _ in share(guest, 5):
        done = trace(guest, "fbt::vfs_*:, fbt::*getppid*: { @[probefunc] = count(); }",
                     getppid_on_each_cpu(guest, 2000), options=STAGES)  # fmt: skip
        assert done.trouble() == []
        assert done.table()[("__x64_sys_getppid",)] >= 2 * guest.smp * 2000


def test_killed_between_any_two_stages(guest: Guest, probekit: Probekit) -> None:
    text = KernelCode.locate(guest)
    before = text.read()
    # Six moments, from early to late in enabling and in restoring; the matrix shares them, as each takes 10 s.
    for turn in share(guest, 6, together=2):
        running = probekit.start(
            "-v",
            "-x",
            "stages",
            "-n",
            "fbt:::entry, fbt::vfs_*:return { @[probename] = count(); }",
            "-n",
            "tick-200ms { exit(0); }",
        )
        running.wait_said("restoring" if turn % 2 else "enabling")
        time.sleep(0.3 + 0.25 * turn if turn % 2 == 0 else 0.1 * turn)
        running.process.kill()
        running.finish()
        done = recover(guest.gdb)
        assert done.problems == (), turn
        assert differences(before, text.read()) == [], turn
        assert guest.exec("true", timeout=30).status == 0, turn
        assert recover(guest.gdb).clean, turn
        assert guest.console_problems() == [], turn
