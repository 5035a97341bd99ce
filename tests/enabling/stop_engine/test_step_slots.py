"""The slots of probed instructions: allocated through the journal, written, and given back or left behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from probekit.enabling.sites import EnabledSite
from probekit.enabling.stop_engine.step_slots import StepSlots
from probekit.errors import GuestError, InternalError
from probekit.guest.linux import Allocation
from probekit.patch.hooks import TracepointHook
from probekit.patch.sites import EntrySite, InsnSite
from probekit.patch.step_slot import STEP_SLOT_SIZE, step_slot
from probekit.probe.names import ProbeName
from probekit.providers.api import Probe
from probekit.target.api import Regs
from tests.support.fake_target import FakeTarget

TEXT, CODE = 0xFFFFFFFF81000100, 0xFFFFFFFFC0000000
ENTRY = EntrySite(TEXT, b"\x0f\x1f\x44\x00\x00", TEXT)
PUSH = InsnSite(TEXT + 16, b"\x41\x57", TEXT, trap=True)  # push r15


def enabled(*sites: Any) -> list[EnabledSite]:
    probe = Probe(1, ProbeName("fbt", "vmlinux", "f", "entry"), "entry")
    return [EnabledSite(n, probe, site, (0,), 0) for n, site in enumerate(sites)]


class Target(FakeTarget):
    """A fake one with a monitor."""

    def monitor(self, command: str) -> str:
        return "VM status: paused (debug)"


class Guest:
    """Its kernel's services, and the journal. ``order``: all that happened; ``fails``: which step does."""

    def __init__(self, fails: str = "") -> None:
        self.fails = fails
        self.order: list[str] = []
        self.target = Target({CODE: bytearray(0x1000)})
        self.text = self.target
        self.facts = SimpleNamespace(services=self, grace=None, tracepoints=None, watchdog=None, module_refs=None)
        self.log = SimpleNamespace(
            borrowed=False,
            allocated=lambda memory: self.step("journal"),
            freed=lambda memory: self.step("forgotten"),
            table_wiped=lambda: None,
        )
        self.clock = None

    def step(self, name: str) -> None:
        self.order.append(name)
        if name == self.fails:
            raise GuestError(f"{name} failed")

    @contextmanager
    def safe_point(self, *, ending: bool = False) -> Iterator[str]:
        self.step("safe point at the end" if ending else "safe point")
        self.target.running = False
        yield "point"

    def allocate(self, point: str, kind: str, size: int) -> Allocation:
        self.step("allocate")
        assert (kind, size) == ("exec", 2 * STEP_SLOT_SIZE)
        return Allocation("exec", CODE, 0x1000)

    def make_executable(self, point: str, memory: Allocation) -> None:
        self.step("executable")

    def synchronize(self, point: str) -> None:
        self.step("synchronize")

    def free(self, point: str, memory: Allocation) -> None:
        self.step("free")


def slots(guest: Guest) -> StepSlots:
    access: Any = guest
    return StepSlots(access, 1.0)


def test_each_site_has_a_slot_of_its_own() -> None:
    guest = Guest()
    made = slots(guest)
    made.make(enabled(ENTRY, PUSH))
    assert guest.order == ["safe point", "allocate", "journal", "executable"] and made.size == 0x1000
    for site, addr in ((ENTRY, CODE), (PUSH, CODE + STEP_SLOT_SIZE)):
        code = step_slot(site, addr)
        assert made.addr(site.addr) == addr and guest.target.read(addr, len(code)) == code


def test_they_are_freed_once_nobody_can_be_in_one() -> None:
    guest = Guest()
    made = slots(guest)
    made.make(enabled(ENTRY, PUSH))
    guest.order.clear()
    assert made.release() == [] and guest.target.running
    assert guest.order == ["safe point at the end", "synchronize", "free", "forgotten"]
    assert made.release() == [] and len(guest.order) == 4


@pytest.mark.parametrize("fails", ["safe point at the end", "synchronize", "free"])
def test_memory_that_cannot_be_freed_is_left_behind_and_said(fails: str) -> None:
    guest = Guest(fails)
    made = slots(guest)
    made.make(enabled(ENTRY, PUSH))
    (problem,) = made.release()
    assert problem == f"4096 bytes of guest memory are left behind, inert: {fails} failed"
    assert guest.target.running and "forgotten" not in guest.order


def test_they_stay_while_a_vcpu_may_be_sent_to_one() -> None:
    guest = Guest()
    made = slots(guest)
    made.make(enabled(ENTRY, PUSH))
    guest.order.clear()
    (problem,) = made.release(keep="a breakpoint stands")
    assert problem == "4096 bytes of guest memory are left behind, inert: a breakpoint stands"
    assert guest.order == ["safe point at the end"] and guest.target.running


def test_they_stay_while_a_vcpu_is_in_one() -> None:
    guest = Guest()
    made = slots(guest)
    made.make(enabled(ENTRY, PUSH))
    guest.target.registers[3] = Regs({"rip": CODE + STEP_SLOT_SIZE + 2}, b"")
    (problem,) = made.release()
    assert "vCPU 3 is still inside" in problem and "free" not in guest.order


@pytest.mark.parametrize(("fails", "given_back"), [("safe point", False), ("allocate", False), ("executable", True)])
def test_what_was_allocated_before_a_failure_is_given_back(fails: str, given_back: bool) -> None:
    guest = Guest(fails)
    made = slots(guest)
    with pytest.raises(GuestError):
        made.make(enabled(ENTRY, PUSH))
    assert made.release() == [] and ("free" in guest.order) == given_back


def test_a_tracepoint_has_no_text_to_step_over() -> None:
    with pytest.raises(InternalError):
        slots(Guest()).make(enabled(TracepointHook(TEXT, 0), ENTRY))
