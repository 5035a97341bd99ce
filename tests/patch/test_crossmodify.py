"""The protocol of cross-modifying code: right in every interleaving, wrong without any one of its steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import pytest

from probekit.errors import ConflictError, GuestError, MemoryAccessError, TargetLost
from probekit.patch.crossmodify import INT3, Stage, journal_batches, stages
from probekit.patch.edits import Edit, revert_batches
from probekit.target.api import Regs
from tests.patch.interleavings import Action, explore, program
from tests.support.cross_modify import change
from tests.support.fake_target import FakeTarget

ADDR = 0xFFFFFFFF81000100
NOP5 = bytes.fromhex("0f1f440000")  # nop dword ptr [rax + rax]
JUMP = bytes.fromhex("e911223344")  # jmp rel32
OTHER = bytes.fromhex("e955667788")  # jmp rel32
OFF, ON = b"\xb0\x00", b"\xb0\x01"  # mov al, 0; mov al, 1
FORMS = {
    "marker on": Edit(ADDR, OFF, ON),
    "marker off": Edit(ADDR, ON, OFF),
    "detour": Edit(ADDR, NOP5, JUMP),
    "restored": Edit(ADDR, JUMP, NOP5),
    "another target": Edit(ADDR, JUMP, OTHER),
}


@pytest.fixture(params=FORMS, ids=str)
def edit(request: pytest.FixtureRequest) -> Edit:
    return FORMS[request.param]


def test_no_interleaving_is_wrong(edit: Edit) -> None:
    found = explore(edit, program(edit, stages([edit])))
    assert found.failure == ""
    assert {"executes the old", "executes the new", "traps", "is bypassed"} <= found.seen
    assert found.states > 50


@pytest.mark.parametrize("cpus", [1, 3])
def test_with_fewer_and_more_processors(cpus: int) -> None:
    for form in ("marker on", "marker off"):
        assert explore(FORMS[form], program(FORMS[form], stages([FORMS[form]])), cpus).failure == ""


def test_no_step_can_be_left_out(edit: Edit) -> None:
    actions = program(edit, stages([edit]))
    assert [action.kind for action in actions] == [
        *("bypass on", "write", "serialise", "write", "serialise", "write", "serialise", "leave", "bypass off")
    ]
    for place in range(len(actions) - 1):  # the bypass may well stay for ever
        left_out = (*actions[:place], *actions[place + 1 :])
        found = explore(edit, left_out)
        assert found.failure != "", f"step {place} ({actions[place].kind}) is not needed"


def test_no_two_steps_can_change_places(edit: Edit) -> None:
    actions = program(edit, stages([edit]))
    for place in range(len(actions) - 1):
        swapped = (*actions[:place], actions[place + 1], actions[place], *actions[place + 2 :])
        assert explore(edit, swapped).failure != "", f"steps {place} and {place + 1}"


def test_what_the_model_says_of_simpler_ways(edit: Edit) -> None:
    at_once = (Action("write", frozenset(enumerate(edit.new))), Action("serialise"))
    assert explore(edit, at_once).failure != ""
    trap = Edit(ADDR, edit.old, INT3 + edit.old[1:])  # a kprobe: one byte, the first
    one_byte = (Action("bypass on"), Action("write", frozenset({(0, INT3[0])})), Action("serialise"))
    assert explore(trap, one_byte).failure == ""


# Over a machine.


def _regs(*, enabled: bool = True, user: bool = False) -> Regs:
    return Regs(values={"rip": 0, "eflags": 0x202 if enabled else 0x2, "cs": 0x33 if user else 0x10}, raw=b"")


@dataclass
class Machine:
    """A fake target that is paused and resumed. ``states``: what stood in memory in each run between two pauses."""

    target: FakeTarget
    states: list[bytes] = field(default_factory=list)
    looks: list[tuple[int, ...]] = field(default_factory=list)

    @contextmanager
    def paused(self) -> Iterator[None]:
        self.target.running = False
        try:
            yield
        finally:
            self.states.append(bytes(self.target.memory[ADDR]))
            self.target.running = True


def _machine(data: bytes, vcpus: int = 2) -> Machine:
    return Machine(FakeTarget({ADDR: bytearray(data)}, {n: _regs() for n in range(vcpus)}, running=True))


def _change(machine: Machine, *edits: Edit) -> tuple[Edit, ...]:
    return change(machine.target, machine.target, edits, paused=machine.paused)


def test_each_stage_is_a_pause_of_its_own() -> None:
    machine = _machine(NOP5 + OFF)
    made = _change(machine, FORMS["detour"], Edit(ADDR + 5, OFF, ON))
    assert made == (FORMS["detour"], Edit(ADDR + 5, OFF, ON))
    assert machine.states[:3] == [
        INT3 + NOP5[1:] + INT3 + OFF[1:],
        INT3 + JUMP[1:] + INT3 + ON[1:],
        JUMP + ON,
    ]
    assert set(machine.states[3:]) == {JUMP + ON}


def test_what_stands_already_is_passed_over() -> None:
    machine = _machine(ON)
    assert _change(machine, FORMS["marker on"]) == ()
    assert machine.target.written == [] and len(machine.states) == 1
    machine = _machine(ON + OFF)
    second = Edit(ADDR + 2, OFF, ON)
    assert _change(machine, FORMS["marker on"], second) == (second,)
    assert all(addr >= ADDR + 2 for addr, _ in machine.target.written)


def test_a_window_that_holds_neither_form_changes_nothing() -> None:
    machine = _machine(OFF + b"\xb1\x00")
    with pytest.raises(ConflictError) as caught:
        _change(machine, FORMS["marker on"], Edit(ADDR + 2, OFF, ON))
    assert caught.value.addr == ADDR + 2 and machine.target.written == []
    with pytest.raises(MemoryAccessError):
        _change(machine, Edit(ADDR + 3, OFF, ON))
    assert machine.target.written == []


@pytest.mark.parametrize("writes", range(6))
def test_a_failure_puts_the_old_bytes_back(writes: int) -> None:
    machine = _machine(OFF + NOP5)
    machine.target.die_after = writes
    with pytest.raises(TargetLost):
        _change(machine, FORMS["marker on"], Edit(ADDR + 2, NOP5, JUMP))
    assert bytes(machine.target.memory[ADDR]) == OFF + NOP5


def test_writes_that_do_not_take() -> None:
    machine = _machine(OFF)
    machine.target.ignore = frozenset((ADDR + 1,))
    with pytest.raises(ConflictError, match="read back"):
        _change(machine, FORMS["marker on"])
    assert bytes(machine.target.memory[ADDR]) == OFF


def test_it_waits_for_each_processor_to_be_seen_outside_of_the_handler() -> None:
    machine = _machine(OFF)
    target = machine.target
    # In a handler at first (interrupts off); one leaves and is off again when the other leaves.
    script = iter([(False, False), (True, False), (False, False), (False, True)])
    looked = []

    def regs(vcpu: int) -> Regs:
        if vcpu == 0 or not looked or looked[-1][1]:
            looked.append([next(script), False])
        looked[-1][1] = vcpu == 1
        return _regs(enabled=looked[-1][0][vcpu])

    target.regs = regs  # type: ignore[method-assign]
    _change(machine, FORMS["marker on"])
    assert len(machine.states) == 3 + 4


def test_a_processor_that_never_comes_out_is_told_of() -> None:
    machine = _machine(OFF)
    machine.target.registers[1] = _regs(enabled=False)
    with pytest.raises(GuestError, match="trap handlers"):
        _change(machine, FORMS["marker on"])
    assert bytes(machine.target.memory[ADDR]) == ON  # made, but the bypass must stay
    machine.target.registers[1] = replace(_regs(enabled=False, user=True))
    assert _change(machine, FORMS["marker off"]) != ()


@pytest.mark.parametrize("stage", range(4))
@pytest.mark.parametrize("form", ["marker on", "detour", "another target"])
def test_the_journal_undoes_every_stage(stage: int, form: str) -> None:
    edit = FORMS[form]
    target = FakeTarget({ADDR: bytearray(edit.old)})
    for step in stages([edit])[:stage]:
        target.write_many(step.writes)
    report = revert_batches(target, journal_batches([edit]))
    assert report.clean and bytes(target.memory[ADDR]) == edit.old


def test_edits_that_are_none() -> None:
    with pytest.raises(ValueError):
        stages([Edit(ADDR, b"", b"")])
    with pytest.raises(ValueError):
        stages([Edit(ADDR, b"\x90", b"\x90\x90")])
    one = Edit(ADDR, b"\x90", b"\xf4")
    assert stages([one])[1] == Stage((), ("serialise",)) and journal_batches([one])[1] == ()
