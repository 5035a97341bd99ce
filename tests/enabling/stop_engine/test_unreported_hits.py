"""Hits that the stub kept to itself: asked for by a step that does nothing, and put right when its trap is lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from probekit.enabling.stop_engine.unreported_hits import UnreportedHits
from probekit.errors import GuestError, TargetTimeout
from probekit.guest.call_points import LANDING
from probekit.target.api import BreakKind, Regs, StopReason
from tests.support.fake_target import FakeTarget

LAND, HERE, IDLE, OTHER = 0x1010, 0x1100, 0x1200, 0x1300
STEPPED = StopReason("breakpoint", 5, 1, "T05thread:p01.01;")
KEPT = replace(STEPPED, kind="watch", watch_addr=0x9000, watch_kind="watch_write")


def _regs(rip: int, *, rsp: int = 0x8000, user: bool = False) -> Regs:
    return Regs({"rip": rip, "rsp": rsp, "cs": 0x33 if user else 0x10, "rax": 7}, b"")


@dataclass
class _Stub(FakeTarget):
    """``steps``: what each step answers; a callable moves the vCPU first."""

    steps: list[StopReason | Callable[[_Stub], StopReason]] = field(default_factory=list)
    stepped_at: list[int] = field(default_factory=list)
    breakpoints: set[int] = field(default_factory=set)
    waits: list[Callable[[_Stub], None]] = field(default_factory=list)

    def use_memory_of(self, vcpu: int | None) -> None: ...

    def monitor(self, command: str) -> str:
        assert command == "info registers -a"
        return "\r\nCPU#0\r\nRAX=0 HLT=1\r\n\r\nCPU#1\r\nRAX=0 HLT=0\r\n"

    def step(self, vcpu: int) -> StopReason:
        self.stepped_at.append(self.registers[vcpu]["rip"])
        answer = self.steps.pop(0)
        return answer if isinstance(answer, StopReason) else answer(self)

    def set_breakpoint(self, addr: int, kind: BreakKind = "software", size: int = 1) -> None:
        self.breakpoints.add(addr)

    def clear_breakpoint(self, addr: int, kind: BreakKind = "software", size: int = 1) -> None:
        self.breakpoints.discard(addr)

    def wait(self, timeout: float) -> StopReason | None:
        self.running = False
        self.waits.pop(0)(self)
        return STEPPED


@pytest.fixture
def stub() -> _Stub:
    memory = bytearray(0x1000)
    memory[LAND - 0x1000 : LAND - 0x1000 + 2] = LANDING
    memory[IDLE - 0x1002 : IDLE - 0x1000] = b"\xfb\xf4"
    memory[OTHER - 0x1001] = 0xF4
    return _Stub(memory={0x1000: memory}, registers={1: _regs(HERE), 2: _regs(HERE, rsp=0x9000)})


def test_nothing_was_kept(stub: _Stub) -> None:
    stub.steps = [STEPPED]
    unreported = UnreportedHits(stub, (LAND,))
    before = stub.registers[1]
    assert unreported.query(1, before) is None
    assert stub.stepped_at == [LAND] and stub.registers[1] == before and unreported.lost_steps == 0


def test_what_was_kept_is_told(stub: _Stub) -> None:
    stub.steps = [KEPT]
    before = stub.registers[1]
    assert UnreportedHits(stub, (LAND,)).query(1, before) == (0x9000, "watch_write")
    assert stub.registers[1] == before


def test_who_is_not_asked(stub: _Stub) -> None:
    unreported = UnreportedHits(stub, (LAND,))
    assert unreported.query(1, _regs(HERE, user=True)) is None
    assert unreported.query(1, _regs(IDLE)) is None  # sti; hlt
    assert unreported.query(1, _regs(OTHER)) is None  # hlt, the monitor says
    assert UnreportedHits(stub, ()).query(1, _regs(HERE)) is None
    assert stub.stepped_at == []
    stub.steps = [STEPPED]
    assert unreported.query(2, _regs(OTHER, rsp=0x9000)) is None
    assert stub.stepped_at != []  # the byte before it is no hlt of its own


def test_a_lost_trap_is_counted_and_the_vcpu_comes_back(stub: _Stub) -> None:
    """It took an interrupt at the landing; when it is back, it goes on where it was."""

    def away(stub: _Stub) -> StopReason:
        stub.registers[1] = _regs(OTHER, rsp=0x7F00)
        return replace(STEPPED, kind="interrupt")

    stub.steps = [away]
    unreported = UnreportedHits(stub, (LAND,))
    assert unreported.query(1, _regs(HERE)) is None
    assert unreported.lost_steps == 1 and stub.breakpoints == {LAND}
    unreported.put_back_returned()
    assert stub.registers[1]["rip"] == OTHER
    stub.registers[1] = _regs(LAND)
    unreported.put_back_returned()
    assert stub.registers[1] == _regs(HERE) and stub.breakpoints == set()


def test_the_end_waits_for_who_is_away(stub: _Stub) -> None:
    def away(stub: _Stub) -> StopReason:
        stub.registers[1] = _regs(OTHER, rsp=0x7F00)
        return STEPPED

    stub.steps = [away]
    unreported = UnreportedHits(stub, (LAND,))
    unreported.query(1, _regs(HERE))
    stub.waits = [lambda stub: None, lambda stub: stub.registers.update({1: _regs(LAND)})]
    unreported.wait_for_displaced()
    assert stub.registers[1] == _regs(HERE) and stub.waits == []


def test_a_step_that_does_not_end(stub: _Stub) -> None:
    def never(stub: _Stub) -> StopReason:
        raise TargetTimeout("a step did not end", seconds=10)

    stub.steps = [never]
    unreported = UnreportedHits(stub, (LAND,))
    assert unreported.query(1, _regs(HERE)) is None
    assert unreported.lost_steps == 1 and stub.registers[1] == _regs(HERE) and stub.breakpoints == set()

    def gone(stub: _Stub) -> StopReason:
        stub.running = True
        raise TargetTimeout("a step did not end", seconds=10)

    stub.steps = [gone]
    with pytest.raises(GuestError):
        unreported.query(1, _regs(HERE))
