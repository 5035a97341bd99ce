"""Instructions stepped over where they stand: once, element by element, through faults, and when a trap is lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from probekit.enabling.stop_engine.step_in_place import InPlaceStepper
from probekit.errors import TargetTimeout
from probekit.target.api import BreakKind, Regs, StopReason
from tests.support.fake_target import FakeTarget

LOAD, REP, FIXUP, HANDLER, STACK = 0x1000, 0x1100, 0x1200, 0x1300, 0x9000
STEPPED = StopReason("breakpoint", 5, 1, "T05")
INSNS = {LOAD: b"\x48\x8b\x07", REP: b"\xf3\xa4"}  # mov rax, qword ptr [rdi]; rep movsb


def regs(rip: int, *, rsp: int = STACK, user: bool = False, **more: int) -> Regs:
    names = "rax rbx rcx rdx rsi rdi rbp r8 r9 r10 r11 r12 r13 r14 r15".split()
    return Regs({**dict.fromkeys(names, 0), "rip": rip, "rsp": rsp, "cs": 0x33 if user else 0x10, **more}, b"")


@dataclass
class Stub(FakeTarget):
    """``step``: what a step does to the vCPU; raises for one whose trap is lost."""

    does: Callable[[Regs], Regs] = lambda regs: regs
    breakpoints: set[int] = field(default_factory=set)
    steps: int = 0

    def step(self, vcpu: int) -> StopReason:
        self.steps += 1
        self.registers[vcpu] = self.does(self.registers[vcpu])
        return STEPPED

    def set_breakpoint(self, addr: int, kind: BreakKind = "software", size: int = 1) -> None:
        self.breakpoints.add(addr)

    def clear_breakpoint(self, addr: int, kind: BreakKind = "software", size: int = 1) -> None:
        self.breakpoints.discard(addr)


def made(at: int, does: Callable[[Regs], Regs], others: Sequence[int] = ()) -> tuple[Stub, InPlaceStepper]:
    stub = Stub({STACK - 0x100: bytearray(0x200)}, {1: regs(at, rcx=1000)}, does=does)
    anything: object = stub
    return stub, InPlaceStepper(anything, INSNS, dict.fromkeys(INSNS, FIXUP), others)  # type: ignore[arg-type]


def element(now: Regs) -> Regs:
    """One element of a REP MOVSB."""
    left = now["rcx"] - 1
    moved = now.replace(rcx=left, rsi=now["rsi"] + 1, rdi=now["rdi"] + 1)
    return moved if left else moved.replace(rip=now["rip"] + 2)


def fault(now: Regs) -> Regs:
    """A page fault with an error code: the processor's frame is pushed, and the handler begins."""
    return now.replace(rip=HANDLER, rsp=STACK - 48)


def test_one_step_ends_a_plain_instruction() -> None:
    stub, stepper = made(LOAD, lambda now: now.replace(rip=LOAD + 3))
    assert stepper.serves(LOAD) and not stepper.serves(LOAD + 1) and not stepper.continues(stub.registers[1])
    stepper.advance(1, stub.registers[1])
    assert (stub.registers[1]["rip"], stub.steps, stepper.lost_steps, stub.breakpoints) == (LOAD + 3, 1, 0, set())


def test_a_rep_is_stepped_in_pieces_and_fires_once() -> None:
    stub, stepper = made(REP, element)
    stops = fired = 0
    while stub.registers[1]["rip"] == REP:
        fired += not stepper.continues(stub.registers[1])
        stepper.advance(1, stub.registers[1])
        stops += 1
    assert fired == 1 and stops == 4 and stub.registers[1]["rcx"] == 0 and stub.steps == 1000
    assert stub.breakpoints == {FIXUP}, "in the middle of it the task may fault and go to its fix-up"


def test_another_firing_of_the_same_task_is_none_of_the_same_instruction() -> None:
    stub, stepper = made(REP, element)
    stepper.advance(1, stub.registers[1])
    middle = stub.registers[1]
    assert stepper.continues(middle)
    assert stepper.continues(middle.replace(rcx=middle["rcx"] - 5, rsi=middle["rsi"] + 5, rdi=middle["rdi"] + 5))
    for other in ({"rbx": 1}, {"rsp": STACK - 8}, {"rcx": 2000}, {"rsi": 7, "rdi": 9}):
        assert not stepper.continues(middle.replace(**other))


def test_a_fault_goes_on_in_the_instruction_or_in_its_fixup() -> None:
    stub, stepper = made(LOAD, fault)
    stub.write(STACK - 40, LOAD.to_bytes(8, "little"))  # RIP above the error code
    stepper.advance(1, stub.registers[1])
    assert stepper.lost_steps == 0 and stub.breakpoints == {FIXUP}
    back = regs(LOAD, rcx=1000)
    assert stepper.continues(back), "the page was fetched"
    at_fixup = regs(FIXUP, rcx=1000)
    stub.registers[1], stub.does = at_fixup, lambda now: now.replace(rip=FIXUP + 4)
    assert stepper.at_fixup(1, at_fixup) and not stepper.continues(back)
    assert stub.breakpoints == set() and stub.registers[1] == at_fixup, "nobody is waited for there any more"


def test_others_pass_a_fixup_that_is_still_watched() -> None:
    stub, stepper = made(LOAD, fault)
    stub.write(STACK - 40, LOAD.to_bytes(8, "little"))
    stepper.advance(1, stub.registers[1])
    stub.does = lambda now: now.replace(rip=FIXUP + 4)
    stub.registers[2] = other = regs(FIXUP, rsp=STACK - 0x80)
    stub.steps = 0
    assert stepper.at_fixup(2, other) and stub.breakpoints == {FIXUP} and stub.registers[2]["rip"] == FIXUP + 4
    assert not stepper.at_fixup(2, regs(FIXUP, user=True)) and not stepper.at_fixup(2, regs(LOAD))


def test_a_breakpoint_of_the_engine_at_the_fixup_is_left_to_it() -> None:
    stub, stepper = made(LOAD, fault, others=[FIXUP])
    stub.write(STACK - 40, LOAD.to_bytes(8, "little"))
    stepper.advance(1, stub.registers[1])
    assert stub.breakpoints == set() and not stepper.at_fixup(1, regs(FIXUP, rcx=1000))


def test_lost_traps_are_counted() -> None:
    stub, stepper = made(LOAD, lambda now: now.replace(rip=0x4444))
    stepper.advance(1, stub.registers[1])

    def lost(now: Regs) -> Regs:
        raise TargetTimeout("no answer", seconds=1)

    stub.does = lost
    stepper.advance(1, regs(LOAD))
    assert stepper.lost_steps == 2 and stub.breakpoints == set() and not stepper.continues(regs(LOAD))


def test_at_the_end_nothing_is_watched() -> None:
    stub, stepper = made(REP, element)
    stepper.advance(1, stub.registers[1])
    stepper.clear()
    assert stub.breakpoints == set() and not stepper.continues(stub.registers[1])
