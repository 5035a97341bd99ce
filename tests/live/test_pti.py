"""Page-table isolation: vCPUs in user space map almost nothing of the kernel, and it is traced all the same."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.guest_fixtures import PTI, only
from tests.live.inprocess import trace
from tests.live.tool import Probekit
from tests.live.work import getppid_on_each_cpu
from vm.guest import Guest
from vm.kernel_code import KernelCode, differences

pytestmark = [pytest.mark.guest, only(PTI)]


@pytest.fixture
def spinning(guest: Guest) -> Iterator[None]:
    running = [guest.spawn("while :; do :; done") for _ in range(guest.smp)]
    yield
    for one in running:
        one.stop("KILL")


def test_it_is_on(guest: Guest) -> None:
    assert guest.exec("grep -qw pti /proc/cpuinfo").status == 0


@pytest.mark.parametrize("ram", [None, "none"], ids=["ram file", "stub only"])
def test_counts_are_exact(guest: Guest, homes: object, ram: str | None) -> None:
    script = """
        fbt::sys_getppid:entry /execname == "syscalls"/ { @[cpu] = count(); }
        fbt::sys_getppid:return /execname == "syscalls"/ { @r = count(); }
    """
    done = trace(guest, script, getppid_on_each_cpu(guest, 50_000), ram=ram)
    assert done.trouble() == []
    assert done.table() == {(0,): 50_000, (1,): 50_000} and done.table("r") == {(): 100_000}


def test_with_every_vcpu_in_user_space(guest: Guest, probekit: Probekit, spinning: None) -> None:
    before = KernelCode.locate(guest).read()
    running = probekit.live("fbt::*timer*: { @[probefunc, probename] = count(); }", options=("--no-cache",))
    running.process.kill()
    running.finish()
    assert differences(before, KernelCode.locate(guest).read()) != []
    done = probekit.recover("--json")
    assert done.status == 0 and done.events[0]["restored"] > 10, done.stderr
    assert differences(before, KernelCode.locate(guest).read()) == []
    again = probekit.live("fbt::*timer*: { @[probefunc, probename] = count(); }").finish(signal.SIGINT)
    assert again.status == 0 and sum(again.table().values()) > 0 and again.of("drop") == []
