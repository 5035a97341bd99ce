"""One small enabling of the guest engine on a :class:`~tests.support.fake_guest.FakeGuest`, with a journal on disk.

It has a bit of everything: a jump that is written in one pause, one that is written in stages, an INT3 at an
instruction whose copy may fault, a tracepoint of a module that has to be held, and the watchdog.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from probekit.enabling.api import EngineOptions
from probekit.enabling.guest_engine.engine import GuestEngine
from probekit.enabling.sites import EnabledSite
from probekit.enabling.speculation import Speculations
from probekit.guest.calls import Allocate, Free, GetModule
from probekit.guest.facts import GuestFacts
from probekit.guest.memory import PauseClock, StubData
from probekit.interp.state import ProgramState
from probekit.ir.build import compile_program
from probekit.ir.ops import Program
from probekit.patch import journal as journal_module
from probekit.patch.hooks import TracepointHook
from probekit.patch.journal import Journal, find_journals
from probekit.patch.journal_payloads import JournalHeader
from probekit.patch.journal_state import JournalState, load
from probekit.patch.sites import EntrySite, InsnSite
from probekit.probe.names import ProbeName
from probekit.providers.api import Probe
from probekit.session import undo
from probekit.session.journal_log import JournalLog
from tests.support.failures import Failures, JournalDisk, Killed, Mode
from tests.support.fake_guest import FakeGuest, GuestCrash
from tests.support.fake_guest_facts import FACTS, FAULTING, MODULE, PAD, TEXT, TRACEPOINT

__all__ = ("ENTRY", "HEADER", "INSN", "STAGED", "SmallEnabling", "check_journal", "quick", "small_sites")

HEADER = JournalHeader("unix:/fake", 1, 2.0, b"build", TEXT, b"boot", b"token 01")
ENTRY = EntrySite(TEXT + 0x400, PAD, TEXT + 0x400)
INSN = InsnSite(FAULTING, bytes.fromhex("488b07"), TEXT + 0x580, trap=True)  # mov rax, qword ptr [rdi]
STAGED = EntrySite(TEXT + 0x800, PAD, TEXT + 0x800)
SMALL = 4096
PROGRAM = compile_program("fbt::: { @ = count(); }", allow_bare=True)
OPTIONS = EngineOptions(
    aggsize=SMALL, bufsize=SMALL, dynvarsize=SMALL, scratchsize=SMALL, staged=frozenset({STAGED.addr})
)


class _NoTables:
    """Page tables that cannot be read."""

    def leaves(self, pages: object) -> None: ...

    def unshared(self, pages: object) -> list[Any]:
        return []


def small_sites() -> list[EnabledSite]:
    """The sites of the one clause."""
    places = (ENTRY, INSN, STAGED, TracepointHook(TRACEPOINT, MODULE))
    probes = [Probe(n, ProbeName("fbt", "vmlinux", f"f{n}", "entry"), "entry") for n in range(len(places))]
    return [EnabledSite(n, probe, place, (0,), 0) for n, (probe, place) in enumerate(zip(probes, places, strict=True))]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No time passes while a fake guest is waited for."""
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr(undo, "_RETURN_LIMIT", 0.05)


@dataclass
class SmallEnabling:
    """``folder``: of its journal. Each process that works on the guest has its own :class:`Failures`."""

    folder: Path
    guest: FakeGuest = field(default_factory=FakeGuest)
    facts: GuestFacts = FACTS
    opened: list[JournalLog] = field(default_factory=list)
    header: JournalHeader = HEADER

    def __post_init__(self) -> None:
        for site in (ENTRY, INSN, STAGED):
            self.guest.patch_original(site.addr, site.old)

    @contextmanager
    def process(self, at: int | None = None, mode: Mode = "killed") -> Iterator[Failures]:
        """Be a host process whose step ``at`` fails. It ends with the block, however that is left."""
        failures = Failures(at, mode)
        disk = JournalDisk(failures)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(journal_module, "os", disk)
            self.guest.failures = failures
            try:
                yield failures
            except Killed:
                pass
            finally:
                disk.close_all()
        self.guest.reconnect(Failures())

    def log(self) -> JournalLog:
        self.opened.append(JournalLog(Journal.create(self.folder, self.header, 1 << 14), self.header.token))
        return self.opened[-1]

    def engine(self, log: JournalLog, program: Program = PROGRAM) -> GuestEngine:
        guest: Any = self.guest
        tables: Any = _NoTables()
        clock = PauseClock(guest)
        return GuestEngine(
            target=guest,
            text=guest,
            facts=self.facts,
            program=program,
            sites=small_sites(),
            options=OPTIONS,
            log=log,
            clock=clock,
            make_memory=lambda _: StubData(guest, clock),
            page_tables=tables,
            edits_size=SMALL,
        )

    def enable(self, engine: GuestEngine) -> None:
        engine.enable({}, ProgramState(PROGRAM), Speculations(1, 100))

    def live(self) -> GuestEngine:
        """Enable, and be at work."""
        engine = self.engine(self.log())
        self.enable(engine)
        return engine

    def end(self, engine: GuestEngine) -> list[str]:
        """Disable what is live, as a session does it. Returns the problems."""
        problems = engine.disable()
        self.opened[-1].close()
        return problems

    def run(self) -> list[str]:
        """Enable and disable, as a session does it. Returns the problems at the end."""
        log = self.log()
        engine = self.engine(log)
        try:
            self.enable(engine)
            return engine.disable()
        finally:
            log.close()

    def journal(self) -> JournalState | None:
        """Return what the journal says that was left, if one was."""
        found = find_journals(self.folder)
        return load(found[0]) if found else None

    def recover(self) -> undo.Recovered:
        """Undo the journal that was left; do nothing when there is none."""
        state = self.journal()
        guest: Any = self.guest
        return undo.undo_journal(guest, guest, state, lambda: self.facts) if state is not None else undo.Recovered()

    def check_recovered(self) -> undo.Recovered:
        """Recover in a process of its own, and see that nothing is left, and that nothing is left to recover."""
        with self.process():
            done = self.recover()
        _must(not done.problems, f"not recovered: {done.problems}")
        self.guest.check_clean()
        _must(not find_journals(self.folder), "a journal is left of a guest that is clean")
        return done


def check_journal(world: SmallEnabling) -> None:
    """See that what is in the guest is in the journal, and that what the journal says of memory is in the guest.

    A call whose task was not given back may have done its work already: for that one thing they may differ.
    """
    guest, state = world.guest, world.journal()
    _must(not guest.crashes, str(guest.crashes[:1]))
    if state is None:
        guest.check_clean()
        return
    calls = [call.purpose for call in state.calls]
    said = {item.addr: (_allocator(item.kind), item.size) for item in state.allocations}
    begun = {(_allocator(call.kind), call.size) for call in calls if isinstance(call, Allocate)}
    for addr, memory in guest.allocated.items():
        _must(said.get(addr) == memory or memory in begun, f"{memory} at {addr:#x} is not in the journal")
    for addr in said.keys() - guest.allocated.keys():
        _must(Free(addr) in calls, f"the journal has memory at {addr:#x} that is freed")
    registered = {(item.kind, item.words[0]) for item in state.registrations}
    for kind, addr in guest.registered() - registered:
        _must(kind == "module" and GetModule(addr) in calls, f"a {kind} is registered and not in the journal")
    edited = {edit.addr + n for batch in state.batches for edit in batch.edits for n in range(len(edit.old))}
    _must(guest.changed() <= edited, "text is changed that the journal does not have")
    _must(set(guest.borrowed()) <= {call.rsp for call in state.calls}, "a task is borrowed without the journal")


def _allocator(kind: str) -> str:
    """Return the kind of memory that the kernel's function for this kind gives."""
    return "data" if kind == "grace" else kind


def _must(true: bool, why: str) -> None:
    if not true:
        raise GuestCrash(why)
