"""Put a guest right after a probekit that was killed: from its journal.

    borrowed task    wait until its call returns, give its registers back
    edited text      old bytes back wherever ours still stand, newest batch first
    memory           wait for readers, free

Everything is checked against the live guest first; on a guest that was rebooted
since, the journal is only put away.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from probekit.errors import GuestError
from probekit.guest.health import check_status
from probekit.guest.linux import Allocation, MemoryKind
from probekit.guest.memory import PauseClock
from probekit.guest.safepoint import SafePoint, finish_call, is_pointer, returned_on
from probekit.guest.text import KernelText
from probekit.kernel.image import Kernel, open_kernel
from probekit.patch.edits import revert_edits
from probekit.patch.journal import Call, Journal, JournalState
from probekit.patch.lock import acquire
from probekit.session.attach import AttachOptions
from probekit.session.gather import gather_guest
from probekit.session.signals import Interrupts
from probekit.session.state import JournalLog, boot_cookie, journals_of, last_call, target_key
from probekit.target.api import Target
from probekit.target.connect import connect

__all__ = ("Recovered", "recover")

_KINDS: dict[str, MemoryKind] = {"exec": "exec", "data": "data", "percpu": "percpu"}
_RETURN_LIMIT = 60.0


@dataclass(frozen=True, slots=True)
class Recovered:
    """What one recovery did. ``journals``: how many there were; counts are of sites, ``freed`` of bytes.

    ``rebooted``: journals of a guest that is gone. ``problems``: what could not be put right, in words.
    """

    journals: int = 0
    restored: int = 0
    already: int = 0
    freed: int = 0
    tasks: int = 0
    rebooted: int = 0
    problems: tuple[str, ...] = ()

    @property
    def clean(self) -> bool:
        """True when nothing was left to put right."""
        return not self.journals


def recover(spec: str, options: AttachOptions | None = None) -> Recovered:
    """Restore the guest at ``spec`` from every journal that names it. Raises :class:`probekit.errors.ProbekitError`."""
    options = options or AttachOptions()
    with acquire(target_key(spec)), Interrupts():
        states = journals_of(spec)
        options.progress(f"connecting to {spec}")
        target = connect(spec, timeout=options.timeout)
        try:
            if not states:
                return Recovered()
            check_status(target)
            kernel = open_kernel(target, symbols_file=options.symbols, cache=options.cache, progress=options.progress)
            return _recover_all(target, kernel, states)
        finally:
            target.detach()


def _recover_all(target: Target, kernel: Kernel, states: list[JournalState]) -> Recovered:
    cookie = boot_cookie(kernel)
    total = Recovered(journals=len(states))
    for state in reversed(states):
        if state.header.cookie != cookie:
            state.path.unlink(missing_ok=True)
            total = _add(total, Recovered(rebooted=1))
            continue
        total = _add(total, _Recovery(target, kernel, state).run())
    return total


def _add(a: Recovered, b: Recovered) -> Recovered:
    return Recovered(
        journals=a.journals,
        restored=a.restored + b.restored,
        already=a.already + b.already,
        freed=a.freed + b.freed,
        tasks=a.tasks + b.tasks,
        rebooted=a.rebooted + b.rebooted,
        problems=a.problems + b.problems,
    )


class _Recovery:
    """One journal of this very boot of the guest."""

    def __init__(self, target: Target, kernel: Kernel, state: JournalState) -> None:
        self._target = target
        self._kernel = kernel
        self._state = state
        self._text = KernelText(target, kernel.view, kernel.symbol("init_task"))
        self._clock = PauseClock(target)
        self._problems: list[str] = []
        self._log = JournalLog(Journal.reopen(state))

    def run(self) -> Recovered:
        """Task, text, memory, in that order; the journal goes when all of it is done."""
        purpose, value = last_call(self._state.notes)
        tasks = 0
        if self._state.call is not None:
            tasks, returned = self._give_back(self._state.call)
            value = returned if value is None else value
        memory = self._memory(purpose, value)
        restored = already = 0
        with self._clock.paused():
            for batch in reversed(self._state.batches):
                report = revert_edits(self._text, batch)
                restored += len(report.restored)
                already += len(report.already)
                self._problems += [
                    f"{addr:#x} holds {found.hex(' ')}, which is not ours, and is left alone"
                    for addr, found in report.conflicts
                ]
                self._problems += [f"{addr:#x} is not mapped any more" for addr in report.unreadable]
        freed = self._free(memory)
        self._log.close(keep=bool(self._problems))
        return Recovered(restored=restored, already=already, freed=freed, tasks=tasks, problems=tuple(self._problems))

    def _memory(self, purpose: str, value: int | None) -> list[Allocation]:
        """What is still ours, the last call's doing included: it may have ended and not been journaled as done."""
        memory = {
            item.addr: Allocation(kind=_KINDS[item.kind], addr=item.addr, size=item.size)
            for item in self._state.allocations
            if item.kind in _KINDS
        }
        match purpose.split():
            case ["free", addr] if value is not None and int(addr, 16) in memory:
                self._log.freed(memory.pop(int(addr, 16)))
            case ["allocate", kind, size] if kind in _KINDS and value is not None and is_pointer(value):
                if value not in memory:
                    memory[value] = Allocation(kind=_KINDS[kind], addr=value, size=int(size))
                    self._log.allocated(memory[value])
        return list(memory.values())

    def _give_back(self, call: Call) -> tuple[int, int | None]:
        """Let the borrowed task come back to the landing, and put its registers back.

        How many tasks that were, and what the call returned; None when it had not begun or does not come back.
        """
        if self._untouched(call):
            self._log.call_done()
            return 1, None
        vcpu = self._await(call)
        if vcpu is None:
            self._problems.append(f"the borrowed guest task has not come back to {call.return_addr:#x}")
            return 0, None
        returned = self._target.regs(vcpu)["rax"]
        self._log.call_returned(returned)
        finish_call(self._target, vcpu, call.regs)
        self._log.call_done()
        return 1, returned

    def _untouched(self, call: Call) -> bool:
        """Whether the task has its own registers: it was not sent off yet, or it was given back already."""
        for vcpu in self._target.vcpus():
            regs = self._target.regs(vcpu)
            if all(regs[name] == value for name, value in call.regs.items()):
                return True
        # The guest may have run since. A task inside its call has the landing as its return address.
        slot = self._text.read_many([(call.rsp - 8, 8)])[0]
        inside = slot == call.return_addr.to_bytes(8, "little")
        return not inside and returned_on(self._target, call.return_addr, call.rsp) is None

    def _await(self, call: Call) -> int | None:
        """The vCPU where the task stands when its call is over; None when that takes too long."""
        deadline = time.monotonic() + _RETURN_LIMIT
        vcpu = returned_on(self._target, call.return_addr, call.rsp)
        if vcpu is not None:
            return vcpu
        self._target.set_breakpoint(call.return_addr)
        try:
            while vcpu is None and time.monotonic() < deadline:
                self._target.resume()
                if self._target.wait(1.0) is None:
                    self._target.stop()
                vcpu = returned_on(self._target, call.return_addr, call.rsp)
        finally:
            self._target.clear_breakpoint(call.return_addr)
        return vcpu

    def _free(self, memory: list[Allocation]) -> int:
        """Free what is still allocated, behind a wait for readers."""
        if not memory or self._problems:
            return 0  # text that still leads into our memory keeps it alive
        facts = gather_guest(self._kernel)
        freed = 0
        try:
            with SafePoint(self._target, facts.places, log=self._log) as point:
                facts.services.synchronize(point)
                for item in reversed(memory):
                    facts.services.free(point, item)
                    self._log.freed(item)
                    freed += item.size
        except GuestError as error:
            self._problems.append(
                f"{sum(m.size for m in memory) - freed} bytes are left behind, inert: {error.message}"
            )
        return freed
