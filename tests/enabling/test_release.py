"""What we hold in a guest is given back in one order, at the end of an enabling and by a recovery, or it all stays.

In each test the same thing stands in the way of both (:data:`ENDS`); where they differ, it is said.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from probekit.patch.recovery_table import HEADER_SIZE, NO_HEADER, read_header
from tests.support.fake_guest import FakeGuest
from tests.support.fake_guest_facts import DATA, EXEC, FACTS, RESIDENT, TEXT
from tests.support.small_enabling import ENTRY, INSN, STAGED, SmallEnabling, check_journal, quick

__all__ = ("quick",)
pytestmark = pytest.mark.usefixtures("quick")

LEFT = "bytes of guest memory are left behind, inert: "


@pytest.fixture
def world(tmp_path: Path) -> SmallEnabling:
    return SmallEnabling(tmp_path)


def end(world: SmallEnabling, between: Callable[[FakeGuest], object]) -> tuple[str, ...]:
    """An enabling that comes to its end after ``between``. Returns the problems."""
    with world.process():
        engine = world.live()
        between(world.guest)
        world.guest.calls.clear()
        problems = tuple(world.end(engine))
        assert world.guest.running
    return problems


def recovery(world: SmallEnabling, between: Callable[[FakeGuest], object]) -> tuple[str, ...]:
    """A recovery after ``between`` of an enabling whose process was killed. Returns the problems."""
    with world.process():
        world.live()
    between(world.guest)
    world.guest.calls.clear()
    with world.process():
        return world.recover().problems


ENDS = pytest.mark.parametrize("finish", [end, recovery])
Finish = Callable[[SmallEnabling, Callable[[FakeGuest], object]], tuple[str, ...]]


def nothing(_: FakeGuest) -> None: ...


def names(guest: FakeGuest) -> list[str]:
    return [name for name, _ in guest.calls]


def silenced(guest: FakeGuest) -> bool:
    return int.from_bytes(guest.memory[DATA][:8], "little") == 1


@ENDS
def test_the_order(world: SmallEnabling, finish: Finish) -> None:
    assert finish(world, nothing) == ()
    world.guest.check_clean()
    unregister = "batch" if finish is end else "tracepoint_unregister"
    assert names(world.guest) == [
        "hrtimer_cancel", unregister,
        "vzalloc", "call_rcu", "call_rcu_tasks", "call_srcu",
        "module_put", "unregister_die_notifier", "bpf_ksym_del", "synchronize_rcu",
        "vfree", "execmem_free", "vfree", "free_percpu", "vfree",
    ]  # fmt: skip


@ENDS
def test_the_journal_has_each_step_when_it_is_done(world: SmallEnabling, finish: Finish) -> None:
    """The header is wiped after all readers are gone and before anything is freed; each page is said to be freed."""
    finish(world, nothing)
    written = world.guest.written
    wiped = max(n for n, (addr, data) in enumerate(written) if (addr, data) == (EXEC, NO_HEADER))
    restored = max(n for n, (addr, _) in enumerate(written) if TEXT <= addr < TEXT + 0x2000)
    assert wiped > restored and world.journal() is None


@ENDS
def test_without_a_callback_the_guest_waits_in_calls(world: SmallEnabling, finish: Finish) -> None:
    """Readers of tracepoints too, which a process that was killed may have unregistered."""
    world.facts = replace(FACTS, grace=None)
    assert finish(world, nothing) == ()
    assert names(world.guest)[2:5] == ["synchronize_rcu_tasks", "synchronize_rcu", "synchronize_srcu"]
    world.guest.check_clean()


def test_a_recovery_waits_for_readers_of_tracepoints_that_are_gone_already(tmp_path: Path) -> None:
    """The process was killed right after it had unregistered its tracepoints, and the journal has that."""
    for step in range(200):
        world = SmallEnabling(tmp_path, facts=replace(FACTS, grace=None))
        with world.process() as failures:
            engine = world.live()
            failures.at = len(failures.taken) + step
            world.end(engine)
        state = world.journal()
        assert failures.dead and state is not None
        gone = all(item.kind != "tracepoint" for item in state.registrations)
        world.guest.calls.clear()
        world.check_recovered()
        if gone:
            assert "tracepoint_unregister" not in names(world.guest) and "synchronize_srcu" in names(world.guest)
            return
    raise AssertionError("they were never unregistered")


@ENDS
@pytest.mark.parametrize("site", [ENTRY, INSN, STAGED], ids=["jump", "trap", "in stages"])
def test_text_that_somebody_else_has_changed(world: SmallEnabling, finish: Finish, site: object) -> None:
    """He may have kept a copy of our jump: nothing is freed, but the kernel calls us by itself no more."""
    addr = site.addr  # type: ignore[attr-defined]

    ours = bytearray()

    def change(guest: FakeGuest) -> None:
        ours[:] = guest.memory[TEXT][addr - TEXT :][:1]
        guest.memory[TEXT][addr - TEXT] = 0xE8

    *said, left = finish(world, change)
    assert any(f"{addr:#x}" in problem for problem in said) and LEFT in left and "lead there" in left
    guest = world.guest
    assert {kind for kind, _ in guest.registered()} == {"module", "die_notifier", "bpf_ksym"}
    assert len(guest.allocated) == 4 and "free" not in str(names(guest)) and silenced(guest)
    check_journal(world)
    # A second recovery finds the same, and takes nothing more of the guest.
    with world.process():
        again = world.recover().problems
    assert again[-1].split(LEFT)[0] == left.split(LEFT)[0] and len(guest.allocated) == 4
    guest.memory[TEXT][addr - TEXT] = ours[0]
    world.check_recovered()


@ENDS
def test_text_that_cannot_be_read_may_still_lead_there(world: SmallEnabling, finish: Finish) -> None:
    def hide(guest: FakeGuest) -> None:
        text = guest.memory.pop(TEXT)
        guest.memory[TEXT] = text[: ENTRY.addr - TEXT]
        guest.memory[TEXT + 0x500] = text[0x500:]
        guest.original = guest.original[: ENTRY.addr - TEXT]

    problems = finish(world, hide)
    assert any("is not mapped any more" in problem for problem in problems) and LEFT in problems[-1]
    assert len(world.guest.allocated) == 4 and silenced(world.guest)


@ENDS
def test_a_vcpu_that_stays_in_our_code(world: SmallEnabling, finish: Finish) -> None:
    """After the wait for readers nobody should be there: it is looked all the same."""

    def stay(guest: FakeGuest) -> None:
        kept = guest._pass_time

        def passes() -> None:
            kept()
            guest.registers[RESIDENT] = guest.registers[RESIDENT].replace(rip=EXEC + 0x40)

        guest._pass_time = passes  # type: ignore[method-assign]

    (problem,) = finish(world, stay)
    assert LEFT in problem and f"vCPU {RESIDENT} is still inside" in problem
    assert "free" not in str(names(world.guest)) and silenced(world.guest)
    assert read_header(bytes(world.guest.memory[EXEC][:HEADER_SIZE])) is not None, "it keeps its table"
    check_journal(world)


@ENDS
def test_a_vcpu_that_may_be_in_the_handler_of_an_int3_that_is_gone(world: SmallEnabling, finish: Finish) -> None:
    """One with interrupts off, after instructions were changed in stages."""

    def off(guest: FakeGuest) -> None:
        kept = guest._pass_time

        def passes() -> None:
            kept()
            guest.registers[RESIDENT] = guest.registers[RESIDENT].replace(rip=TEXT + 0x900, eflags=2, cs=0x10)

        guest._pass_time = passes  # type: ignore[method-assign]
        passes()

    (problem,) = finish(world, off)
    assert LEFT in problem and "trap handlers" in problem and "free" not in str(names(world.guest))
    check_journal(world)


@ENDS
@pytest.mark.parametrize("number", range(15))
def test_each_guest_call_in_turn_does_not_return(world: SmallEnabling, finish: Finish, number: int) -> None:
    """Its task is inside: no other call is made, and nothing is freed after it, until it has come back."""

    def get_stuck(guest: FakeGuest) -> None:
        guest.stuck = {guest._begun + number}

    problems = finish(world, get_stuck)
    guest = world.guest
    assert "did not return" in problems[-1] and LEFT in problems[-1]
    size = sum(size for _, size in guest.allocated.values())
    assert problems[-1].startswith(f"{size} ") or names(guest)[-1] == "vzalloc", "what is freed is not left behind"
    assert len(guest.borrowed()) == 1
    check_journal(world)
    with world.process():
        again = world.recover()
    assert "has not come back" in again.problems[0] and again.freed == 0 and len(guest.borrowed()) == 1
    assert world.journal() is not None
    guest.stuck.clear()
    assert world.check_recovered().tasks == 1


@pytest.mark.parametrize("number", range(11))
def test_each_guest_call_of_an_enabling_does_not_return(world: SmallEnabling, number: int) -> None:
    world.guest.stuck = {number}
    with world.process(), pytest.raises(Exception, match="did not return"):
        world.live()
    assert len(world.guest.borrowed()) == 1 and world.guest.changed() == set()
    check_journal(world)
    world.guest.stuck.clear()
    assert world.check_recovered().tasks == 1


def test_what_a_recovery_has_put_right_it_does_not_touch_again(world: SmallEnabling) -> None:
    """Its text is restored and the journal has that, also when the rest fails: it may belong to another one by then."""

    def get_stuck(guest: FakeGuest) -> None:
        guest.stuck = {guest._begun}

    recovery(world, get_stuck)
    state = world.journal()
    assert state is not None and state.batches == () and state.allocations != ()
    world.guest.stuck.clear()
    world.guest.patch_original(ENTRY.addr, b"\xe8\x01\x02\x03\x04")  # another tracer
    with world.process():
        done = world.recover()
    assert done.problems == () and (done.restored, done.already) == (0, 0)
    assert world.guest.allocated == {} and world.guest.memory[TEXT][ENTRY.addr - TEXT] == 0xE8


def test_what_somebody_else_has_recovered_is_left_to_him(world: SmallEnabling) -> None:
    """The header of the table is gone and the journal says that it stands: what is there now is not ours."""

    def wipe(guest: FakeGuest) -> None:
        guest.memory[EXEC][:HEADER_SIZE] = NO_HEADER
        guest.memory[TEXT][:] = guest.original

    assert recovery(world, wipe) == ()
    assert names(world.guest) == [] and world.journal() is None and len(world.guest.allocated) == 4
