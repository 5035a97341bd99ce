"""Page-table isolation: vCPUs in user space map almost nothing of the kernel, and it is traced all the same."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from probekit.kernel.open_kernel import open_kernel
from probekit.target.api import Target
from probekit.target.connect import connect
from tests.guest_fixtures import PTI, PTI612, only
from tests.live.inprocess import trace
from tests.live.tool import Probekit
from tests.live.work import getppid_on_each_cpu
from vm.guest import Guest
from vm.kernel_code import KernelCode, differences

pytestmark = pytest.mark.guest


@pytest.fixture
def spinning(guest: Guest) -> Iterator[None]:
    running = [guest.spawn("while :; do :; done") for _ in range(guest.smp)]
    yield
    for one in running:
        one.stop("KILL")


class _WithoutPhysicalMemory:
    """A target whose stub cannot read physical memory."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def __getattr__(self, name: str) -> object:
        if name == "physical_memory":
            raise AttributeError(name)
        return getattr(self._target, name)


def _stop_in_user_mode(target: Target) -> None:
    for _ in range(100):
        if all(target.regs(vcpu).in_user_mode for vcpu in target.vcpus()):
            return
        target.resume()
        target.wait(0.02)
        target.stop()
    pytest.fail("the vCPUs never were both in user mode")


@only(PTI, PTI612)
def test_it_is_on(guest: Guest) -> None:
    assert guest.exec("grep -qw pti /proc/cpuinfo").status == 0


@only(PTI)
@pytest.mark.parametrize("ram", [None, "none"], ids=["ram file", "stub only"])
def test_counts_are_exact(guest: Guest, homes: object, ram: str | None) -> None:
    script = """
        fbt::sys_getppid:entry /execname == "syscalls"/ { @[cpu] = count(); }
        fbt::sys_getppid:return /execname == "syscalls"/ { @r = count(); }
    """
    done = trace(guest, script, getppid_on_each_cpu(guest, 50_000), ram=ram)
    assert done.trouble() == []
    assert done.table() == {(0,): 50_000, (1,): 50_000} and done.table("r") == {(): 100_000}


@only(PTI)
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


@only(PTI, PTI612)
def test_every_symbol_is_found_with_every_vcpu_in_user_space(guest: Guest, request: pytest.FixtureRequest) -> None:
    """It is what is found while they are in the kernel, which other tests compare with the guest's own list."""
    target = connect(guest.gdb)
    try:
        theirs = sorted((s.addr, s.name, s.module) for s in open_kernel(target, cache=False).symbols)
    finally:
        target.detach()
    request.getfixturevalue("spinning")
    target = connect(guest.gdb)
    try:
        _stop_in_user_mode(target)
        kernel = open_kernel(target, cache=False)
        assert sorted((s.addr, s.name, s.module) for s in kernel.symbols) == theirs
        assert any(task.comm == "kthreadd" for task in kernel.tasks())
        # The direct way is really closed, or this test shows nothing.
        assert target.read_many([(kernel.symbol("modules"), 8)]) == [None]
        assert kernel.address_space.translate(kernel.symbol("modules")) is not None
        # The second way in: run until a vCPU is in the kernel.
        plain = open_kernel(_WithoutPhysicalMemory(target), cache=False)
        assert sorted((s.addr, s.name, s.module) for s in plain.symbols) == theirs
    finally:
        target.detach()
    assert guest.exec("true").status == 0
