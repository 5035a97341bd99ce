"""Every row of the tables in :mod:`probekit.session.presence`, on a whole fake guest.

Another state directory is another folder of journals; a snapshot is a copy of the guest.
"""

from __future__ import annotations

import random
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from probekit.guest.linux import STAMP_SIZE
from probekit.patch.edits import Edit
from probekit.patch.journal import Journal, find_journals
from probekit.patch.journal_state import JournalState, load
from probekit.patch.recovery_table import HEADER_SIZE, NO_HEADER, read_header
from probekit.session import table_scan, undo
from probekit.session.journal_log import JournalLog
from probekit.session.presence import Presence, find_whereabouts
from probekit.session.recover import adopt_calls
from probekit.session.table_scan import FoundTable, adopt_tables
from tests.support.fake_guest_facts import EXEC, MODULE, PERCPU, TEXT
from tests.support.small_enabling import ENTRY, HEADER, STAGED, SmallEnabling, quick

__all__ = ("quick",)
pytestmark = pytest.mark.usefixtures("quick")


@dataclass
class Host:
    """A state directory. It recovers as ``probekit recover`` does, but for finding the kernel."""

    folder: Path
    world: SmallEnabling

    def recover(self, at: int | None = None) -> undo.Recovered:
        """Recover in a process of its own. ``at``: the step at which it is killed."""
        done = undo.Recovered()
        with pytest.MonkeyPatch.context() as patched, self.world.process(at):
            patched.setattr(table_scan, "default_dir", lambda: self.folder)
            guest: Any = self.world.guest
            known = [load(path) for path in find_journals(self.folder)]
            states = adopt_tables(self._tables(), guest, HEADER.target, HEADER.cookie, known)
            states += adopt_calls(guest, HEADER.cookie, states, self._new_log)
            for state in reversed(states):
                one = undo.undo_journal(guest, guest, state, lambda: self.world.facts)
                done = undo.Recovered(
                    journals=done.journals + 1,
                    restored=done.restored + one.restored,
                    already=done.already + one.already,
                    freed=done.freed + one.freed,
                    tasks=done.tasks + one.tasks,
                    gone=done.gone + one.gone,
                    problems=done.problems + one.problems,
                )
        return done

    def journals(self) -> list[JournalState]:
        return [load(path) for path in find_journals(self.folder)]

    def _tables(self) -> list[FoundTable]:
        guest = self.world.guest
        code = [addr for addr, (kind, _) in guest.allocated.items() if kind == "exec"]
        pages = guest.read_many([(addr, HEADER_SIZE) for addr in code])
        heads = [read_header(page) if page is not None else None for page in pages]
        return [FoundTable(addr, head) for addr, head in zip(code, heads, strict=True) if head is not None]

    def _new_log(self) -> JournalLog:
        return JournalLog(Journal.create(self.folder, HEADER, 1 << 14), HEADER.token)


class Hosts:
    """One that traces, and one that has no journal of it."""

    def __init__(self, folder: Path) -> None:
        self.world = SmallEnabling(folder / "here")
        self.here = Host(folder / "here", self.world)
        self.other = Host(folder / "other", self.world)
        self.before = deepcopy(self.world.guest)

    def killed_live(self) -> None:
        """Be killed while probes are live."""
        with self.world.process():
            self.world.live()

    def load(self, snapshot: Any) -> None:
        """Load a snapshot: the guest is as it was, whatever the journals say."""
        self.world.guest = deepcopy(snapshot)
        self.world.guest.running = False

    def forgive(self, named: tuple[str, ...]) -> None:
        """Take away what a recovery has named of which nobody can know whether it is left."""
        for text in named:
            assert "may be left" in text
            if "per-CPU memory" in text:
                self.world.guest.allocated.pop(PERCPU, None)
            else:
                assert f"the module at {MODULE:#x}" in text
                self.world.guest.holds = 0

    def clean(self) -> None:
        """See that nothing is left in the guest, nor in either directory, and that both say so."""
        self.world.guest.check_clean()
        for host in (self.here, self.other):
            assert host.recover() == undo.Recovered() and host.journals() == []


@pytest.fixture
def hosts(tmp_path: Path) -> Hosts:
    return Hosts(tmp_path)


def gone(done: undo.Recovered) -> bool:
    return done.gone == 1 and (done.restored, done.freed, done.problems) == (0, 0, ())


# -- memory that has our stamps ----------------------------------------------------------------------------------------


def test_our_memory_and_our_jumps(hosts: Hosts) -> None:
    hosts.killed_live()
    done = hosts.here.recover()
    assert done.restored > 3 and done.freed > 4096 and done.problems == () and done.gone == 0
    hosts.clean()


def test_our_memory_and_original_bytes(hosts: Hosts) -> None:
    hosts.killed_live()
    hosts.world.guest.memory[TEXT][:] = hosts.world.guest.original
    hosts.world.guest._way_out()
    done = hosts.here.recover()
    assert done.restored == 0 and done.already > 3 and done.freed > 4096 and done.problems == ()
    hosts.clean()


def test_our_memory_and_bytes_of_somebody_else(hosts: Hosts) -> None:
    hosts.killed_live()
    guest = hosts.world.guest
    at = ENTRY.addr - TEXT
    ours, foreign = bytes(guest.memory[TEXT][at : at + 5]), b"\xe8\x01\x02\x03\x04"
    guest.memory[TEXT][at : at + 5] = foreign
    done = hosts.here.recover()
    assert len(done.problems) == 2 and done.freed == 0 and hosts.here.journals() != []
    assert guest.memory[TEXT][at : at + 5] == foreign and len(guest.allocated) >= 4
    guest.memory[TEXT][at : at + 5] = ours
    assert hosts.here.recover().problems == ()
    hosts.clean()


# -- memory that is gone -----------------------------------------------------------------------------------------------


def test_recovered_under_another_directory(hosts: Hosts) -> None:
    hosts.killed_live()
    assert hosts.other.recover().problems == () and hosts.here.journals() != []
    hosts.world.guest.check_clean()
    done = hosts.here.recover()
    assert gone(done) and done.already > 3
    hosts.clean()


def test_recovered_under_another_directory_and_traced_from_there_since(hosts: Hosts) -> None:
    """Memory and sites are at the same addresses again, of another trace that was killed."""
    hosts.killed_live()
    hosts.other.recover()
    late = SmallEnabling(hosts.other.folder, hosts.world.guest, header=replace(HEADER, token=b"token 02"))
    with late.process():
        late.live()
    assert hosts.world.guest.changed()
    done = hosts.here.recover()  # both: its own is gone, that of the other is in the guest's table
    assert done.gone == 1 and done.restored > 3 and done.problems == ()
    assert gone(hosts.other.recover())
    hosts.clean()


def test_a_snapshot_of_before_the_trace(hosts: Hosts) -> None:
    hosts.killed_live()
    hosts.load(hosts.before)
    assert gone(hosts.here.recover())
    hosts.clean()


def test_somebody_else_has_memory_there_now(hosts: Hosts) -> None:
    hosts.killed_live()
    sizes = dict(hosts.world.guest.allocated)
    hosts.load(hosts.before)
    guest = hosts.world.guest
    for addr, (kind, size) in sizes.items():
        guest.allocated[addr] = (kind, size)
        for place in guest._places(kind, addr):
            guest.memory[place] = bytearray(b"\x5a" * size)
    guest.memory[TEXT][STAGED.addr - TEXT] = 0xE8  # and another tracer a site
    memory = {addr: bytes(data) for addr, data in guest.memory.items()}
    assert gone(hosts.here.recover())
    assert {addr: bytes(data) for addr, data in guest.memory.items()} == memory and guest.allocated == sizes
    assert guest.calls == [] and hosts.here.journals() == []


def test_stamps_that_are_gone_and_jumps_that_are_not(hosts: Hosts) -> None:
    """Something has overwritten our memory. The text is restored, and the memory is named and left alone."""
    hosts.killed_live()
    guest = hosts.world.guest
    for addr, (kind, size) in guest.allocated.items():
        if kind != "percpu":
            guest.memory[addr][size - STAMP_SIZE :] = bytes(range(STAMP_SIZE))
    done = hosts.here.recover()
    assert done.restored > 3 and done.freed == 0 and not guest.changed()
    assert len(done.problems) == 1 and "bytes of guest memory may be left" in done.problems[0]
    assert gone(hosts.here.recover()) and hosts.here.journals() == []


def test_a_table_that_another_recovery_has_wiped(hosts: Hosts) -> None:
    """That recovery was killed afterwards. Its journal has the rest; ours does not know what it has given back."""
    hosts.killed_live()
    at = 0
    while not hosts.other.journals() or hosts.other.journals()[0].table is not None:
        assert hosts.world.guest.memory[EXEC][:HEADER_SIZE] != NO_HEADER
        hosts.other.recover(at)
        at += 40
    calls = len(hosts.world.guest.calls)
    if bytes(hosts.world.guest.memory.get(EXEC, NO_HEADER)[:HEADER_SIZE]) == NO_HEADER:
        assert gone(hosts.here.recover()) and len(hosts.world.guest.calls) == calls
    named = hosts.other.recover().problems
    hosts.here.recover()
    hosts.forgive(named)
    hosts.clean()


# -- snapshots from within the trace -----------------------------------------------------------------------------------


def test_a_snapshot_of_within_the_trace_after_its_end(hosts: Hosts) -> None:
    """No journal is left; the guest's own table tells."""
    engine = hosts.world.live()
    within = deepcopy(hosts.world.guest)
    assert hosts.world.end(engine) == [] and hosts.here.journals() == []
    hosts.load(within)
    done = hosts.here.recover()
    assert done.restored > 3 and done.freed > 4096 and done.problems == ()
    hosts.clean()


def test_a_snapshot_of_within_the_trace_with_a_later_journal(hosts: Hosts) -> None:
    """Killed at every moment of the end; the journal has noted more and more that is undone in the guest no more."""
    with hosts.world.process() as failures:
        engine = hosts.world.live()
        begun = len(failures.taken)
        hosts.world.end(engine)
        steps = len(failures.taken)
    for at in range(begun, steps, 3):
        again = Hosts(hosts.here.folder.parent / f"{at}")
        within: list[Any] = []
        with again.world.process(at) as failures:
            engine = again.world.live()
            within.append(deepcopy(again.world.guest))
            again.world.end(engine)
        within[0].failures = failures
        again.load(within[0])
        try:
            assert again.here.recover().problems == ()
            again.clean()
        except BaseException as error:
            error.add_note(f"killed at step {at} of {steps}, {failures.taken[at]}")
            raise


def test_a_snapshot_of_before_any_allocation_with_a_later_journal(hosts: Hosts) -> None:
    """Killed at every moment of enabling, and the guest knows nothing of it."""
    with hosts.world.process() as failures:
        hosts.world.live()
        steps = len(failures.taken)
    for at in range(0, steps, 3):
        again = Hosts(hosts.here.folder.parent / f"{at}")
        with again.world.process(at):
            again.world.run()
        again.load(again.before)
        try:
            done = again.here.recover()
            assert done.freed == 0 and done.problems == ()
            again.clean()
        except BaseException as error:
            error.add_note(f"killed at step {at} of {steps}, {failures.taken[at]}")
            raise


# -- killed at any step, recovered from the one and the other ----------------------------------------------------------


def test_killed_at_each_step_and_recovered_elsewhere_first(tmp_path: Path) -> None:
    whole = Hosts(tmp_path / "whole")
    with whole.world.process() as failures:
        whole.world.run()
    tasks = unsure = 0
    for at in range(0, len(failures.taken), 4):
        hosts = Hosts(tmp_path / f"{at}")
        with hosts.world.process(at):
            hosts.world.run()
        try:
            other = hosts.other.recover()
            assert other.problems == () and not hosts.world.guest.changed()
            assert not hosts.world.guest.borrowed(), "a task is left in a landing for ever"
            tasks += other.tasks
            named = hosts.here.recover().problems
            if named:  # whether the other one has freed it is not known
                hosts.forgive(named)
                unsure += 1
            hosts.clean()
        except BaseException as error:
            error.add_note(f"killed at step {at} of {len(failures.taken)}, {failures.taken[at]}")
            raise
    assert tasks > 20 and unsure < 20


def test_two_recoveries_that_are_killed_in_turn(tmp_path: Path) -> None:
    """From both directories, each killed at some step; the last of each is left to end."""
    chance = random.Random(11)
    for turn in range(60):
        hosts = Hosts(tmp_path / f"{turn}")
        hosts.killed_live()
        moments = [(chance.choice([hosts.here, hosts.other]), chance.randrange(300)) for _ in range(3)]
        try:
            for host, at in moments:
                host.recover(at)
            for host in (hosts.other, hosts.here):
                hosts.forgive(host.recover().problems)
            # What a recovery would have named is not named again when it is killed before it could.
            hosts.forgive(("per-CPU memory may be left", f"the module at {MODULE:#x} may be left"))
            hosts.clean()
        except BaseException as error:
            error.add_note(f"turn {turn}: {[(host.folder.name, at) for host, at in moments]}")
            raise


def test_a_journal_that_lists_no_memory_cannot_be_proved_gone(hosts: Hosts) -> None:
    log = hosts.world.log()
    log.edits([Edit(ENTRY.addr, ENTRY.old, b"\xe9\x00\x00\x00\x00")])
    hosts.world.guest.running = False
    guest: Any = hosts.world.guest
    assert find_whereabouts(guest, log).presence is Presence.HERE
