"""Undoes everything that one journal lists, in this order:

1. wait until the calls of borrowed tasks return, and give each task its registers back
2. find out whether the rest is in this guest at all (:mod:`probekit.session.presence`); end here if it is gone
3. put old bytes back wherever ours still are, newest batch first
4. take back registrations and free memory, as at a normal end (:mod:`probekit.enabling.release`)

Each step is noted in the journal when it is done, so a recovery that is killed can be repeated.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from probekit.enabling.registrations import Registrations
from probekit.enabling.release import Holdings, release_holdings
from probekit.errors import JournalError, MachineRan
from probekit.guest.borrowed import BORROWED_SIZE, GIVEN_BACK, decode_borrowed
from probekit.guest.calls import Allocate, Free, GetModule, GuestCall, PutModule, RemoveListEntry
from probekit.guest.facts import GuestFacts
from probekit.guest.linux import Allocation
from probekit.guest.memory import PauseClock
from probekit.guest.safepoint import SafePoint, finish_call, returned_on
from probekit.guest.stack_search import SLEEPER_LIMIT
from probekit.patch.crossmodify import INT3
from probekit.patch.edits import TextMemory, revert_batches
from probekit.patch.journal_payloads import BPF_KSYM, MODULE, Registration
from probekit.patch.journal_state import Batch, JournalState
from probekit.records import record
from probekit.session.journal_log import JournalLog
from probekit.session.presence import Presence, Whereabouts, find_whereabouts
from probekit.target.api import Target, Vcpu

__all__ = ("Recovered", "undo_journal")

_RETURN_LIMIT = 60.0  # seconds to wait for borrowed tasks
_POISON = 0xDEAD  # the highest 16 bits
_SILENT = (1).to_bytes(8, "little")
_INTERRUPT = struct.Struct("<5Q")  # RIP, CS, RFLAGS, RSP, SS: Intel SDM vol. 3, 6.14.2


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
    gone: int = 0
    """Journals of which nothing is in the guest any more: somebody else recovered it, or a snapshot was loaded."""
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


def _will_return(call: GuestCall, below: bytes) -> bool:
    """Return whether the landing is the return address ``below`` the stack pointer that the call returns with."""
    return below.endswith(call.return_addr.to_bytes(8, "little"))


def _is_interrupted(call: GuestCall, below: bytes) -> bool:
    """Return whether the bytes ``below`` the stack pointer are those of an interrupt that came in the landing.

    Then no vCPU is in the landing now, and the return address is written over.
    """
    rip, _cs, _eflags, rsp, _ss = _INTERRUPT.unpack(below)
    return (rip, rsp) == (call.return_addr, call.rsp)


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
        """What could not be undone, and another recovery may undo."""
        self._lost: list[str] = []
        """What nobody can undo any more."""

    def run(self) -> Recovered:
        """Give back tasks, text, registrations and memory, in that order."""
        try:
            with suppress(JournalError):  # the note is for people only
                self._log.note(f"recovery by process {os.getpid()}")
            tasks = self._give_back_tasks()
            with self._clock.paused():
                found = find_whereabouts(self._text, self._log)
            if found.presence is Presence.GONE:
                return self._end_gone(found, tasks)
            for item in found.missing if found.presence is Presence.HERE else ():
                self._log.freed(item)
            staged = any(batch.edits[0].old == INT3 for batch in self._log.batches if batch.edits)
            restored, already = self._revert(self._log.batches)
            if found.presence is Presence.CONTRADICTORY:
                size = sum(item.size for item in found.missing)
                self._problems.append(f"{size} bytes of guest memory may be left: they no longer have our stamp")
                freed = 0
            else:
                freed = self._unregister_and_free(bypassed=staged)
        except BaseException:
            self._log.close(keep=True)
            raise
        self._log.close(keep=bool(self._problems))
        problems = (*self._problems, *self._lost)
        return Recovered(restored=restored, already=already, freed=freed, tasks=tasks, problems=problems)

    def _end_gone(self, found: Whereabouts, tasks: int) -> Recovered:
        """End a journal of which at most some pages are left that no recovery table lists."""
        freed = 0
        if not self._log.calls:  # otherwise a task is inside a call of ours, and nothing is certain
            self._log.reverted()
            self._log.unregistered(self._log.registrations)
            for item in found.missing:
                self._log.freed(item)
            freed = self._unregister_and_free(bypassed=False)
        self._log.close(keep=bool(self._problems))
        gone = int(not self._problems)
        return Recovered(already=found.original, freed=freed, tasks=tasks, gone=gone, problems=tuple(self._problems))

    # -- tasks -------------------------------------------------------------------------------------------------------

    def _give_back_tasks(self) -> int:
        """Give every borrowed task its registers back, once its call has returned. Returns the number of tasks."""
        borrowed = len(self._log.calls)
        if not borrowed:
            return 0
        if self._target.running:
            self._target.stop()
        for call in self._log.calls:
            if self._has_own_registers(call) and not self._is_given_back(call):
                self._log.call_done(call.rsp)
            elif not self._inside(call):
                self._given_back_by_another(call)
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

    def _has_own_registers(self, call: GuestCall) -> bool:
        """Return whether the task stands where it was borrowed: its call had not begun, or the registers are back."""
        found = (self._target.regs(vcpu) for vcpu in self._target.vcpus())
        return any(all(regs[name] == value for name, value in call.regs.items()) for regs in found)

    def _is_given_back(self, call: GuestCall) -> bool:
        """Return whether another recovery says on the task's stack that it has given it back after the call."""
        return self._text.read_many([(call.rsp, len(GIVEN_BACK))])[0] == GIVEN_BACK

    def _inside(self, call: GuestCall) -> bool:
        """Return whether the task is inside its call: it has the landing as return address on its stack, or is there.

        The guest may have run since the call began, and then the address may only be left from a call that never began.
        """
        if self._returned_on(call) is not None:
            return True
        if not self._is_described(call):
            return False
        below = self._text.read_many([(call.rsp - _INTERRUPT.size, _INTERRUPT.size)])[0]
        if below is None or not (_will_return(call, below) or _is_interrupted(call, below)):
            return False
        lowest = self._facts().stack_search.lowest_used(self._target, call.rsp - 8)
        return lowest is not None and lowest < call.rsp

    def _given_back_by_another(self, call: GuestCall) -> None:
        """Note that the task went on: it has its registers from another recovery (:mod:`probekit.guest.borrowed`).

        Whether the call was made is not known. What must not be done twice counts as done, unless the recovery table
        stands: then the guest is as it was before all such calls. Memory with a stamp does not count as freed, because
        the stamp tells.
        """
        if self._log.token and self._log.table_addr is None:
            self._settle(call)
        self._log.call_done(call.rsp)

    def _settle(self, call: GuestCall) -> None:
        """Note for a call of which nobody knows whether it was made what is safe, and name what may be left."""
        slots = {item.addr: item for item in self._log.allocations if item.stamp is None}
        match call.purpose:
            case Allocate("percpu"):
                memory = [item for item in slots.values() if item.addr not in self._log.stamped]
            case Free(addr) if addr in slots:
                memory = [slots[addr]]
            case _:
                memory = []
        for item in memory:
            self._log.freed(item)
            self._lost.append(f"{item.size} bytes of per-CPU memory at {item.addr:#x} may be left")
        match call.purpose:
            case GetModule(module) | PutModule(module):
                self._log.unregistered([Registration(MODULE, (module,))])
                self._lost.append(f"a reference to the module at {module:#x} may be left")
            case RemoveListEntry("bpf_ksym", addr) if self._unlinked(addr):
                self._log.unregistered([Registration(BPF_KSYM, (addr,))])
            case _:
                pass  # to unregister a die notifier twice is harmless

    def _unlinked(self, symbol: int) -> bool:
        """Return whether the BPF symbol is on no list any more: the kernel's list_del() leaves an address that is none.

        (``LIST_POISON2``, include/linux/poison.h)
        """
        traps = self._facts().traps
        if traps is None or traps.ksym is None:
            return False
        found = self._text.read_many([(symbol + traps.ksym.links + 8, 8)])[0]
        return found is not None and int.from_bytes(found, "little") >> 48 == _POISON

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
                landing, rsp = call.return_addr, call.rsp
                done = partial(self._log.call_done, rsp)
                finish_call(self._target, vcpu, call.regs, landing=landing, rsp=rsp, done=done, left=GIVEN_BACK)

    def _returned_on(self, call: GuestCall) -> Vcpu | None:
        """Return the vCPU where the task is back from this call; None while it is not."""
        vcpu = returned_on(self._target, call.return_addr, call.rsp)
        return vcpu if vcpu is not None and self._is_described(call) else None

    def _is_described(self, call: GuestCall) -> bool:
        """Return whether the stack describes this very call, and not a later one of another recovery.

        Journals of earlier versions have calls that the stack does not describe.
        """
        if not self._log.token:
            return True
        data = self._text.read_many([(call.rsp, BORROWED_SIZE)])[0]
        found = decode_borrowed(data, landing=call.return_addr, rsp=call.rsp) if data is not None else None
        return found is not None and found.regs == call.regs

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

    def _silence(self) -> None:
        """Make the clauses do nothing, for a CPU that may still reach them."""
        word = activity_word(self._log.allocations)
        if word is not None:
            with self._clock.paused():
                self._text.write_many([(word, _SILENT)])
