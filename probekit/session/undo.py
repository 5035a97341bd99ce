"""Undoes everything that one journal lists, in this order:

1. wait until the calls of borrowed tasks return, and give each task its registers back
2. put old bytes back wherever ours still are, newest batch first
3. take back registrations and free memory, as at a normal end (:mod:`probekit.enabling.release`)

Each step is noted in the journal when it is done, so a recovery that is killed can be repeated.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from probekit.enabling.registrations import Registrations
from probekit.enabling.release import Holdings, release_holdings
from probekit.errors import JournalError, MachineRan
from probekit.guest.calls import GuestCall
from probekit.guest.facts import GuestFacts
from probekit.guest.linux import Allocation
from probekit.guest.memory import PauseClock
from probekit.guest.safepoint import SafePoint, finish_call, returned_on
from probekit.guest.stack_search import SLEEPER_LIMIT
from probekit.patch.crossmodify import INT3
from probekit.patch.edits import TextMemory, revert_batches
from probekit.patch.journal_state import Batch, JournalState
from probekit.patch.recovery_table import HEADER_SIZE, read_header
from probekit.records import record
from probekit.session.journal_log import JournalLog
from probekit.target.api import Target, Vcpu

__all__ = ("Recovered", "undo_journal")

_RETURN_LIMIT = 60.0  # seconds to wait for borrowed tasks
_SILENT = (1).to_bytes(8, "little")


@record
class Recovered:
    """What a recovery did."""

    journals: int = 0
    """How many journals there were."""
    restored: int = 0
    """Sites that got their old bytes back."""
    already: int = 0
    """Sites that already had their old bytes."""
    freed: int = 0
    """Bytes of guest memory that were freed."""
    tasks: int = 0
    """Borrowed tasks that were given back."""
    rebooted: int = 0
    """Journals of a guest that has rebooted since."""
    problems: tuple[str, ...] = ()
    """A message for everything that could not be undone."""

    @property
    def clean(self) -> bool:
        """Whether there was nothing to undo."""
        return not self.journals


def undo_journal(
    target: Target,
    text: TextMemory,
    state: JournalState,
    facts: Callable[[], GuestFacts],
    *,
    limit: float = SLEEPER_LIMIT,
) -> Recovered:
    """Undo the journal ``state``, of this boot of the guest. Removes its file when all of it is undone.

    ``text``: guest memory while the guest is stopped. ``facts``: surveys the guest's kernel; called only when memory
    or registrations are left. ``limit``: seconds to wait until no task runs or sleeps in our code.
    The guest may run or be stopped before and after. Raises :class:`probekit.errors.ProbekitError`.
    """
    return _Undo(target, text, JournalLog.reopen(state), facts, limit).run()


def activity_word(memory: Sequence[Allocation]) -> int | None:
    """Return the address of the word that silences clauses: it is the first of an enabling's oldest data memory."""
    return next((item.addr for item in memory if item.kind == "data"), None)


class _Undo:
    """Undoes one journal."""

    def __init__(
        self, target: Target, text: TextMemory, log: JournalLog, facts: Callable[[], GuestFacts], limit: float
    ) -> None:
        self._target = target
        self._text = text
        self._log = log
        self._facts = facts
        self._limit = limit
        self._clock = PauseClock(target)
        self._problems: list[str] = []

    def run(self) -> Recovered:
        """Give back tasks, text, registrations and memory, in that order."""
        try:
            with suppress(JournalError):  # the note is for people only
                self._log.note(f"recovery by process {os.getpid()}")
            tasks = self._give_back_tasks()
            staged = any(batch.edits[0].old == INT3 for batch in self._log.batches if batch.edits)
            restored, already = self._revert(self._log.batches)
            freed = self._unregister_and_free(bypassed=staged)
        except BaseException:
            self._log.close(keep=True)
            raise
        self._log.close(keep=bool(self._problems))
        return Recovered(restored=restored, already=already, freed=freed, tasks=tasks, problems=tuple(self._problems))

    # -- tasks -------------------------------------------------------------------------------------------------------

    def _give_back_tasks(self) -> int:
        """Give every borrowed task its registers back, once its call has returned. Returns the number of tasks."""
        borrowed = len(self._log.calls)
        if not borrowed:
            return 0
        if self._target.running:
            self._target.stop()
        for call in self._log.calls:
            if self._untouched(call):
                self._log.call_done(call.rsp)
        with suppress(MachineRan):
            self._finish_returned()
        if self._log.calls and self._target.paused:
            self._problems.append("the guest is paused: a borrowed task can only come back when it runs")
        elif self._log.calls:
            self._await_returns()
        self._problems += [
            f"the borrowed guest task has not come back to {call.return_addr:#x}" for call in self._log.calls
        ]
        return borrowed - len(self._log.calls)

    def _untouched(self, call: GuestCall) -> bool:
        """Return whether the task has its own registers: its call had not begun, or the registers are back already."""
        for vcpu in self._target.vcpus():
            regs = self._target.regs(vcpu)
            if all(regs[name] == value for name, value in call.regs.items()):
                return True
        # The guest may have run since. A task inside its call has the landing as return address on its stack.
        slot = self._text.read_many([(call.rsp - 8, 8)])[0]
        inside = slot == call.return_addr.to_bytes(8, "little")
        return not inside and self._returned_on(call) is None

    def _await_returns(self) -> None:
        """Let the guest run until all calls have returned, for 60 s at most."""
        deadline = time.monotonic() + _RETURN_LIMIT
        landings = {call.return_addr for call in self._log.calls}
        for landing in landings:
            self._target.set_breakpoint(landing)
        try:
            while self._log.calls and time.monotonic() < deadline:
                self._target.resume()
                if self._target.wait(1.0) is None:
                    self._target.stop()
                with suppress(MachineRan):  # it waits at the landing, where it is found again
                    self._finish_returned()
        finally:
            for landing in landings:
                self._target.clear_breakpoint(landing)

    def _finish_returned(self) -> None:
        for call in self._log.calls:
            vcpu = self._returned_on(call)
            if vcpu is not None:
                self._log.call_returned(call.rsp, self._target.regs(vcpu)["rax"])
                finish_call(self._target, vcpu, call.regs, landing=call.return_addr, rsp=call.rsp)
                self._log.call_done(call.rsp)

    def _returned_on(self, call: GuestCall) -> Vcpu | None:
        return returned_on(self._target, call.return_addr, call.rsp)

    # -- text --------------------------------------------------------------------------------------------------------

    def _revert(self, batches: Sequence[Batch]) -> tuple[int, int]:
        """Put the old bytes back. Returns how many sites were restored, and how many had their old bytes."""
        with self._clock.paused():
            report = revert_batches(self._text, [batch.edits for batch in batches])
        self._problems += [
            f"{addr:#x} holds {found.hex(' ')}, which is not ours, and is left alone"
            for addr, found in report.conflicts
        ]
        self._problems += [f"{addr:#x} is not mapped any more" for addr in report.unreadable]
        if report.clean:
            self._log.reverted()
        return len(report.restored), len(report.already)

    # -- registrations and memory ------------------------------------------------------------------------------------

    def _unregister_and_free(self, *, bypassed: bool) -> int:
        """Take registrations back and free memory. Returns how many bytes were freed.

        The killed process may just have unregistered tracepoints. The journal does not say so, so this always waits
        for the readers of tracepoints.
        """
        memory = list(self._log.allocations)
        if not (memory or self._log.registrations):
            return 0
        if self._recovered_elsewhere():
            if not self._problems:
                self._log.forget()
            return 0
        before = tuple(memory)  # the wait for readers allocates one more page
        with self._clock.paused():
            facts = self._facts()
        holdings = Holdings(
            target=self._target,
            text=self._text,
            facts=facts,
            log=self._log,
            clock=self._clock,
            safe_point=lambda: SafePoint(self._target, facts.call_points, log=self._log, clock=self._clock),
            memory=memory,
            registrations=Registrations(facts, self._text, self._log, self._log.registrations, traced=True),
            limit=self._limit,
            bypassed=bypassed,
            keep="text that is left alone may still lead there" if self._problems else "",
            silence=self._silence,
        )
        self._problems += release_holdings(holdings)
        return sum(item.size for item in before if item not in self._log.allocations)

    def _recovered_elsewhere(self) -> bool:
        """Return whether the guest was already recovered from its table: then its memory there is no longer ours."""
        addr = self._log.table_addr
        if addr is None:
            return False
        with self._clock.paused():
            page = self._text.read_many([(addr, HEADER_SIZE)])[0]
        return page is None or read_header(page) is None

    def _silence(self) -> None:
        """Make the clauses do nothing, for a CPU that may still reach them."""
        word = activity_word(self._log.allocations)
        if word is not None:
            with self._clock.paused():
                self._text.write_many([(word, _SILENT)])
