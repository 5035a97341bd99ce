"""A borrowed task: found at a safe point, sent into a function, known again by its stack, and given back whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from probekit.errors import Cancelled, GuestError, SafePointTimeout, TargetError
from probekit.guest.call_points import LANDING, CallPoints
from probekit.guest.calls import CallPurpose, GuestCall, OtherCall, is_pointer
from probekit.guest.memory import PauseClock
from probekit.guest.safepoint import SafePoint
from probekit.target.api import BreakKind, Regs, StopReason
from tests.support.fake_target import FakeTarget

READ, WRITE, LAND, OTHER_LAND, FUNCTION = 0x1000, 0x1100, 0x1200, 0x1300, 0x5000
STACK = 0x9000
POINTS = CallPoints({READ: 4, WRITE: 5}, (LAND, OTHER_LAND))
STOPPED = StopReason("breakpoint", 5, 1, "T05")
GENERAL = "rax rbx rcx rdx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15 rip eflags".split()


def regs(rip: int, *, rsp: int = STACK, user: bool = False, **more: int) -> Regs:
    values = {name: 100 + n for n, name in enumerate(GENERAL)} | {"rip": rip, "rsp": rsp, "eflags": 0x602}
    return Regs({**values, "cs": 0x33 if user else 0x10, "cr3": 7, **more}, b"")


Event = Callable[["Guest"], StopReason | None]


@dataclass
class Guest(FakeTarget):
    """``events``: what each wait sees; None lets the time pass. ``breakpoints``: now."""

    events: list[Event] = field(default_factory=list)
    breakpoints: set[int] = field(default_factory=set)
    status: str = "running"
    calls: list[Regs] = field(default_factory=list)

    def monitor(self, command: str) -> str:
        return f"VM status: paused ({self.status})"

    def stop(self) -> StopReason:
        self.running = False
        return StopReason("interrupt", 2, 1, "T02")

    def wait(self, timeout: float) -> StopReason | None:
        self.running = False
        stop = self.events.pop(0)(self) if self.events else None
        self.running = stop is None
        return stop

    def set_breakpoint(self, addr: int, kind: BreakKind = "software", size: int = 1) -> None:
        self.breakpoints.add(addr)

    def clear_breakpoint(self, addr: int, kind: BreakKind = "software", size: int = 1) -> None:
        self.breakpoints.discard(addr)


class Log:
    """Remembers all, in order."""

    def __init__(self) -> None:
        self.said: list[tuple[Any, ...]] = []
        self.purposes: list[CallPurpose] = []

    def call_started(self, call: GuestCall) -> None:
        self.said.append(("started", call.vcpu, dict(call.regs), call.return_addr, call.rsp))
        self.purposes.append(call.purpose)

    def call_returned(self, rsp: int, value: int) -> None:
        self.said.append(("returned", rsp, value))

    def call_done(self, rsp: int) -> None:
        self.said.append(("done", rsp))


def arrive(vcpu: int, rip: int, **more: Any) -> Event:
    def event(guest: Guest) -> StopReason:
        assert guest.breakpoints >= {READ, WRITE}
        guest.registers[vcpu] = regs(rip, **more)
        return replace(STOPPED, vcpu=vcpu)

    return event


def come_back(value: int, *, vcpu: int = 1, landing: int = LAND) -> Event:
    """The function returns, on any vCPU; all registers that it may change are changed."""

    def event(guest: Guest) -> StopReason:
        assert guest.breakpoints == {landing}
        called = next(r for r in guest.registers.values() if r["rip"] == FUNCTION)
        guest.calls.append(called)
        assert int.from_bytes(guest.read(called["rsp"], 8), "little") == landing
        for number, now in guest.registers.items():
            guest.registers[number] = regs(0x7777, rsp=0x4444) if now is called else now
        guest.registers[vcpu] = called.replace(rip=landing, rsp=called["rsp"] + 8, rax=value, rcx=9, r11=9)
        return replace(STOPPED, vcpu=vcpu)

    return event


def made(*events: Event, land: bytes = LANDING, **options: Any) -> tuple[Guest, SafePoint, Log]:
    memory = bytearray(0x1000)
    memory[LAND - 0x1000 : LAND - 0x1000 + 2] = land
    memory[OTHER_LAND - 0x1000 : OTHER_LAND - 0x1000 + 2] = LANDING
    registers = {1: regs(0x400000, user=True), 2: regs(0x400000, user=True)}
    guest = Guest({0x1000: memory, STACK - 0x800: bytearray(0x1000)}, registers, running=True)
    guest.events = list(events)
    log: Any = Log()
    shown: Any = guest
    return guest, SafePoint(shown, POINTS, log=log, **options), log


def test_a_call_and_everything_given_back() -> None:
    guest, point, log = made(arrive(1, READ), come_back(0x1234))
    with point:
        before = guest.registers[1]
        assert guest.breakpoints == set()
        assert point.call(FUNCTION, 1, -1) == 0x1234
        assert guest.registers[1] == before and guest.breakpoints == set() and not guest.running
    (called,) = guest.calls
    assert (called["rdi"], called["rsi"], called["rdx"]) == (1, (1 << 64) - 1, before["rdx"])
    assert called["rsp"] % 16 == 8 and called["rsp"] <= before["rsp"] - 256 - 8
    assert called["eflags"] == before["eflags"] & ~0x500 | 0x200 and called["rax"] == 0
    started, *rest = log.said
    assert started[:2] == ("started", 1) and started[3:] == (LAND, called["rsp"] + 8)
    frame = called["rsp"] + 8
    assert started[2] == {name: before[name] for name in GENERAL}
    assert rest == [("returned", frame, 0x1234), ("done", frame)] and log.purposes == [OtherCall()]


def test_a_task_may_come_back_on_another_vcpu() -> None:
    guest, point, _ = made(arrive(1, READ), come_back(5, vcpu=2), come_back(6, vcpu=1))
    with point:
        own = {name: guest.registers[1][name] for name in GENERAL}
        assert point.call(FUNCTION) == 5
        assert {name: guest.registers[2][name] for name in GENERAL} == own
        assert guest.registers[1]["rip"] == 0x7777, "what runs on the first vCPU now is somebody else"
        assert point.call(FUNCTION) == 6


def test_who_only_passes_by_is_moved_past_the_pad() -> None:
    guest, point, _ = made(
        arrive(1, READ, user=True), arrive(1, WRITE, eflags=0x2), arrive(2, READ), come_back(1, vcpu=2)
    )
    with point:
        assert guest.registers[1]["rip"] == WRITE + 5, "interrupts were off: it cannot be borrowed"
        assert point.call(FUNCTION) == 1


def test_a_probe_may_cover_a_landing() -> None:
    guest, point, log = made(arrive(1, READ), come_back(1, landing=OTHER_LAND), land=b"\xe9\x00")
    with point:
        point.call(FUNCTION)
    assert log.said[0][3] == OTHER_LAND
    guest, point, log = made(arrive(1, READ), land=b"\xe9\x00")
    with point:
        guest.write(OTHER_LAND, b"\xcc")
        with pytest.raises(GuestError, match="was changed"):
            point.call(FUNCTION)
        assert log.said == [] and guest.registers[1] == regs(READ)


def test_pointers() -> None:
    assert is_pointer(0xFFFFC90000000000) and not is_pointer(0) and not is_pointer((1 << 64) - 12)
    _, point, _ = made(arrive(1, READ), come_back((1 << 64) - 12), come_back(0xFFFFC90000000000))
    with point:
        with pytest.raises(GuestError, match="could not allocate 8 bytes"):
            point.call_pointer(FUNCTION, what="8 bytes")
        assert point.call_pointer(FUNCTION, what="8 bytes") == 0xFFFFC90000000000


def test_a_function_that_does_not_return_keeps_its_task_and_the_journal_has_it() -> None:
    guest, point, log = made(arrive(1, READ))
    with pytest.raises(GuestError, match="did not return"), point:
        point.call(FUNCTION, timeout=0.01)
    assert [said[0] for said in log.said] == ["started"] and guest.registers[1]["rip"] == FUNCTION
    assert guest.breakpoints == set() and not guest.running


def test_nobody_comes() -> None:
    guest, point, _ = made(timeout=0.0)
    with pytest.raises(SafePointTimeout), point:
        pass
    assert guest.breakpoints == set()


def test_a_task_that_comes_at_the_last_moment_is_as_good_as_any() -> None:
    def late(target: Guest) -> None:
        target.registers[2] = regs(READ)

    guest, point, _ = made(lambda target: late(target), timeout=0.0)
    with point:
        assert guest.registers[2]["rip"] == READ


def test_the_user_may_stop_the_wait() -> None:
    guest, point, _ = made(cancelled=lambda: True)
    with pytest.raises(Cancelled), point:
        pass
    assert guest.breakpoints == set() and guest.registers[1] == regs(0x400000, user=True)


@pytest.mark.parametrize(
    ("stop", "status", "error"),
    [
        (StopReason("exited", 0, 1, "W00"), "running", TargetError),
        (StopReason("interrupt", 6, 1, "T06"), "guest-panicked", GuestError),
    ],
)
def test_a_guest_that_ends_meanwhile_is_an_error(stop: StopReason, status: str, error: type[Exception]) -> None:
    def event(target: Guest) -> StopReason:
        target.status = status
        return stop

    guest, point, _ = made(event)
    with pytest.raises(error), point:
        pass
    assert guest.breakpoints == set()


def test_a_kernel_without_safe_points_is_left_alone() -> None:
    guest, _, _ = made()
    shown: Any = guest
    with pytest.raises(GuestError, match="no function of this kernel"), SafePoint(shown, CallPoints({}, (LAND,))):
        pass
    assert guest.running


def test_six_arguments_at_most() -> None:
    _, point, log = made(arrive(1, READ))
    with point, pytest.raises(ValueError, match="six"):
        point.call(FUNCTION, *range(7))
    assert log.said == []


def test_pauses_are_counted() -> None:
    guest, _, _ = made()
    shown: Any = guest
    clock = PauseClock(shown)
    guest, point, _ = made(arrive(1, READ), come_back(1), clock=clock)
    with point:
        point.call(FUNCTION)
    assert clock.count == 2, "from the stop to the call, and from its return to the end"
