"""Text of a guest patched in one pause, never under a thread, and put back as far as it is ours."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import pytest

from probekit.enabling.guest_access import GuestAccess
from probekit.enabling.guest_engine.patches import Patches
from probekit.enabling.sites import EnabledSite
from probekit.errors import ConflictError, GuestError
from probekit.guest.memory import PauseClock
from probekit.patch.detours import site_edit
from probekit.patch.edits import Edit
from probekit.patch.sites import EntrySite, InsnSite
from probekit.probe.names import ProbeName
from probekit.providers.api import Probe
from probekit.target.api import Regs
from tests.support.fake_target import FakeTarget

TEXT, STUB = 0xFFFFFFFF81000100, 0xFFFFFFFFC0000000
PAD = b"\x0f\x1f\x44\x00\x00"  # nop dword ptr [rax + rax]
PUSHES = b"\x55\x53\x50\x51\x52"  # push rbp; push rbx; push rax; push rcx; push rdx
ENTRY = EntrySite(TEXT, PAD, TEXT)
SHARED = InsnSite(TEXT + 16, PUSHES, TEXT, trap=False, first_size=1)
SITES = (ENTRY, SHARED)


class Target(FakeTarget):
    """A fake one that can be stopped; ``rips``: where its vCPU is at each stop, the last of them from then on."""

    def __init__(self, rips: Sequence[int] = (0,), **more: Any) -> None:
        text = bytearray(0x100)
        for site in SITES:
            text[site.addr - TEXT : site.addr - TEXT + len(site.old)] = site.old
        super().__init__({TEXT: text}, running=True, **more)
        self.rips = list(rips)
        self.stop()
        self.running = True

    def stop(self) -> None:
        self.running = False
        rip = self.rips.pop(0) if len(self.rips) > 1 else self.rips[0]
        self.registers = {1: Regs({"rip": rip, "eflags": 0x202, "cs": 0x10}, b"")}


class StackSearch:
    """Finds what the vCPUs' RIP says."""

    def addresses_in_use(self, target: FakeTarget, text: Any, start: int, end: int) -> set[int]:
        return {regs["rip"] for regs in map(target.regs, target.vcpus()) if start <= regs["rip"] < end}


class Log:
    """``edits``: all that the journal has; ``clean``: everything was put back."""

    def __init__(self) -> None:
        self.all: list[Edit] = []
        self.clean = False

    def edits(self, edits: Sequence[Edit]) -> None:
        self.all += edits

    def reverted(self) -> None:
        self.clean = True


class Facts:
    stack_search = StackSearch()


class Built:
    """As much of the code as patches look at."""

    edits = tuple(site_edit(site, STUB + 32 * n) for n, site in enumerate(SITES))
    stubs = MappingProxyType({SHARED.addr: STUB + 32})


def made(target: Target, *, staged: frozenset[int] = frozenset()) -> tuple[Patches, Log]:
    log = Log()
    anything: Any = target
    journal: Any = log
    facts: Any = Facts()
    access = GuestAccess(anything, anything, facts, journal, PauseClock(anything), 1.0, lambda: False)
    probe = Probe(1, ProbeName("fbt", "vmlinux", "f", "entry"), "entry")
    sites = [EnabledSite(n, probe, site, (0,), 0) for n, site in enumerate(SITES)]
    return Patches(access, sites, staged, lambda: None), log


def build() -> Any:
    return Built()


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)


@pytest.mark.parametrize("staged", [frozenset(), frozenset({TEXT})])
def test_the_journal_first_then_the_text_and_back(staged: frozenset[int]) -> None:
    target = Target()
    before = bytes(target.memory[TEXT])
    patches, log = made(target, staged=staged)
    patches.announce(build())
    assert {edit.addr for edit in log.all} >= {site.addr for site in SITES} and target.written == []
    patches.apply_while_running()
    patches.apply_paused()
    assert target.running and all(
        target.memory[TEXT][edit.addr - TEXT :][: len(edit.new)] == edit.new for edit in Built.edits
    )
    assert patches.undo() == [] and log.clean and bytes(target.memory[TEXT]) == before
    assert patches.undo() == [] and patches.bypassed == bool(staged)


def test_a_thread_in_a_site_from_the_start_makes_it_an_int3() -> None:
    target = Target([0, SHARED.addr + 1, 0])
    patches, log = made(target)
    patches.announce(build())
    assert [edit.new for edit in log.all if edit.addr == SHARED.addr] == [b"\xcc" + PUSHES[1:]]
    patches.apply_paused()
    assert target.memory[TEXT][16] == 0xCC and patches.undo() == []


def test_a_thread_that_comes_later_is_waited_for() -> None:
    target = Target([0, 0, SHARED.addr + 1, TEXT + 2, 0])
    patches, _ = made(target)
    patches.announce(build())
    patches.apply_paused()
    assert len(target.rips) == 1 and target.memory[TEXT][16] == 0xE9


def test_a_thread_that_stays_is_an_error_and_nothing_is_written() -> None:
    target = Target([0, 0, TEXT + 2])
    patches, log = made(target)
    patches.announce(build())
    with pytest.raises(GuestError, match="stayed inside"):
        patches.apply_paused()
    assert target.written == [] and patches.undo() == [] and log.clean


def test_a_site_that_changed_since_it_was_found_is_an_error() -> None:
    target = Target()
    target.memory[TEXT][0] = 0xE8
    patches, _ = made(target)
    patches.announce(build())
    with pytest.raises(ConflictError):
        patches.apply_paused()
    assert target.written == []


def test_what_somebody_else_changed_is_left_alone_and_the_journal_keeps_it() -> None:
    target = Target()
    patches, log = made(target)
    patches.announce(build())
    patches.apply_paused()
    target.memory[TEXT][0:5] = b"\xe8\x01\x02\x03\x04"
    (problem,) = patches.undo()
    assert f"{TEXT:#x} was changed by somebody else" in problem and not log.clean
    assert target.memory[TEXT][0] == 0xE8 and target.memory[TEXT][16:21] == PUSHES
    assert patches.undo() == [] and not log.clean, "the second time it is not forgotten"


def test_text_that_cannot_be_read_is_said_and_the_journal_keeps_it() -> None:
    target = Target()
    patches, log = made(target)
    patches.announce(build())
    patches.apply_paused()
    target.memory[TEXT] = target.memory[TEXT][:8]
    (problem,) = patches.undo()
    assert "not mapped" in problem and not log.clean
