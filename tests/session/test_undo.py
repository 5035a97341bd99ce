"""Whatever step of an enabling or of its end fails, the journal has what is in the guest, and a recovery finishes.

The guest is a fake that notices what would kill it (:mod:`tests.support.fake_guest`): memory that is freed while text,
a timer, a tracepoint, a list or a reader leads to it, a table's header that is freed with its memory, a task that goes
on with registers that are not its own.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from probekit.errors import ProbekitError
from probekit.guest.calls import Allocate, GetModule, PutModule, RemoveListEntry
from tests.support.failures import Failures, Mode
from tests.support.fake_guest import FakeGuest
from tests.support.fake_guest_facts import LAND
from tests.support.old_journal import in_format_1
from tests.support.small_enabling import SmallEnabling, check_journal, quick

__all__ = ("quick",)
pytestmark = pytest.mark.usefixtures("quick")


def fresh(folder: Path, *, resident: bool = False) -> SmallEnabling:
    return SmallEnabling(folder, FakeGuest(resident=resident))


def steps(folder: Path) -> list[str]:
    """The steps of a whole run that nothing fails in."""
    world = fresh(folder)
    with world.process() as failures:
        assert world.run() == []
    world.guest.check_clean()
    assert world.journal() is None
    return failures.taken


Check = Callable[[SmallEnabling, Failures, ProbekitError | None], None]


def each(folder: Path, mode: Mode, check: Check) -> int:
    """Let each step of a run fail in turn. Returns how many that were."""
    taken = steps(folder)
    # A process that dies while the disk is waited for has written, as one that dies at its next step has. A connection
    # that is lost at a step of the journal is lost at the next one that needs it.
    same = {"killed": ("journal sync",), "lost": ("journal write", "journal sync"), "refused": ()}[mode]
    tried = [(at, name) for at, name in enumerate(taken) if name not in same]
    for at, name in tried:
        world, raised = fresh(folder, resident=bool(at % 2)), None
        try:
            with world.process(at, mode) as failures:
                try:
                    world.run()
                except ProbekitError as error:
                    raised = error
            check(world, failures, raised)
        except BaseException as error:
            error.add_note(f"step {at} of {len(taken)}, {name}: {mode}")
            raise
    return len(tried)


def test_a_run_leaves_nothing(tmp_path: Path) -> None:
    taken = steps(tmp_path)
    assert len(taken) > 400
    assert {"write", "stop", "resume", "set registers", "journal write", "journal sync"} < set(taken)


def test_killed_at_each_step(tmp_path: Path) -> None:
    left = 0

    def check(world: SmallEnabling, failures: Failures, raised: ProbekitError | None) -> None:
        nonlocal left
        assert failures.dead and raised is None
        check_journal(world)
        left += world.journal() is not None
        world.check_recovered()

    assert each(tmp_path, "killed", check) >= left > 300


def test_the_connection_is_lost_at_each_step(tmp_path: Path) -> None:
    said = 0

    def check(world: SmallEnabling, failures: Failures, raised: ProbekitError | None) -> None:
        nonlocal said
        assert failures.lost
        said += raised is not None
        check_journal(world)
        world.check_recovered()

    assert each(tmp_path, "lost", check) == said > 200


def test_each_step_is_refused_once(tmp_path: Path) -> None:
    """The stub refuses it, or the disk is full for a moment; the process goes on as well as it can."""
    said = 0

    def check(world: SmallEnabling, failures: Failures, raised: ProbekitError | None) -> None:
        nonlocal said
        said += raised is not None
        check_journal(world)
        world.check_recovered()

    tried = each(tmp_path, "refused", check)
    assert said > tried // 2, "a step that fails is no secret"


def test_a_recovery_that_is_killed_is_repeated(tmp_path: Path) -> None:
    taken = steps(tmp_path)
    chance = random.Random(7)
    for _ in range(150):
        first, second = chance.randrange(len(taken)), chance.randrange(300)
        world = fresh(tmp_path, resident=chance.random() < 0.5)
        with world.process(first):
            world.run()
        with world.process(second) as failures:
            world.recover()
        try:
            check_journal(world)
            if not failures.dead:  # it had fewer steps
                world.guest.check_clean()
            world.check_recovered()
        except BaseException as error:
            error.add_note(f"killed at step {first}, its recovery at step {second}")
            raise


@pytest.mark.parametrize("mode", ["killed", "lost", "refused"])
def test_each_step_of_a_recovery_fails(tmp_path: Path, mode: Mode) -> None:
    """Of that of an enabling that is live, where there is most to do."""
    at, failed = 0, True
    while failed:
        world = fresh(tmp_path, resident=bool(at % 2))
        with world.process():
            world.live()
        with world.process(at, mode) as failures:
            try:
                world.recover()
            except ProbekitError:
                assert mode != "killed"
        failed = len(failures.taken) > at
        try:
            check_journal(world)
            world.check_recovered()
        except BaseException as error:
            error.add_note(f"step {at} of its recovery, {failures.taken[at:][:1]}: {mode}")
            raise
        at += 1
    assert at > 150


def test_a_task_is_given_back_and_its_stack_cannot_be_wiped(tmp_path: Path) -> None:
    """The call is over all the same: nobody has to guess later whether it was made, and to name what may be left."""
    taken, tried = steps(tmp_path), 0

    def killed(at: int, name: str) -> SmallEnabling:
        world = fresh(tmp_path / f"{name} {at}")
        with world.process(at):
            world.run()
        return world

    for at in (at for at, name in enumerate(taken) if name == "set registers"):
        world = killed(at, "whole")
        state = world.journal()
        once = (GetModule, PutModule, RemoveListEntry)
        calls = [call.purpose for call in state.calls] if state is not None else []
        if not any(isinstance(p, once) or (isinstance(p, Allocate) and p.kind == "percpu") for p in calls):
            continue
        with world.process() as failures:
            world.recover()
        given_back = failures.taken.index("set registers")
        world = killed(at, "refused")
        wiped = failures.taken.index("write", given_back)
        with world.process(wiped, "refused"), pytest.raises(ProbekitError, match="the stub refused"):
            world.recover()
        check_journal(world)
        world.check_recovered()
        tried += 1
    assert tried > 4


def test_a_task_that_is_interrupted_while_it_waits_to_be_given_back(tmp_path: Path) -> None:
    """It is not taken for one that has gone on: it would wait in the landing for ever."""
    taken, tried = steps(tmp_path), 0
    for at in (at for at, name in enumerate(taken) if name == "set registers"):
        world = fresh(tmp_path / str(at))
        with world.process(at):
            world.run()
        waiting = [vcpu for vcpu, now in world.guest.registers.items() if now["rip"] == LAND]
        for vcpu in waiting:
            world.guest.interrupt(vcpu)
            assert world.check_recovered().tasks == 1, at
            tried += 1
    assert tried > 15


def test_a_journal_of_format_1_is_undone_as_well(tmp_path: Path) -> None:
    """Of processes that were killed at many steps, their journals written as the release of that format did."""
    taken, left = steps(tmp_path), 0
    for at in range(0, len(taken), 5):
        world = fresh(tmp_path, resident=bool(at % 2))
        with world.process(at):
            world.run()
        state = world.journal()
        if state is not None:
            state.path.write_bytes(in_format_1(state))
            left += 1
            old = world.journal()
            assert old is not None and old.allocations == state.allocations and old.calls == state.calls
            assert (old.batches, old.registrations) == (state.batches, state.registrations)
            assert old.table == state.table
        try:
            world.check_recovered()
        except BaseException as error:
            error.add_note(f"step {at}")
            raise
    assert left > 80
