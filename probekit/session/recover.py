"""Put a guest right after a probekit that was killed: from its journal, or from the table that it left in the guest.

    borrowed task    wait until its call returns, give its registers back
    edited text      old bytes back wherever ours still stand, newest batch first
    registrations    taken back by guest calls, as far as they stand
    memory           wait for readers, free

Everything is checked against the live guest first; on a guest that was rebooted
since, the journal is only put away.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from probekit.enabling.guest_engine.registrations import BPF_KSYM, MODULE, Registered
from probekit.errors import GuestError, InternalError
from probekit.guest import holds, traphooks
from probekit.guest.facts import GuestFacts
from probekit.guest.health import check_status, has_panicked, panic_error
from probekit.guest.linux import Allocation, MemoryKind
from probekit.guest.memory import PauseClock
from probekit.guest.residents import LIMIT, vacated
from probekit.guest.safepoint import SafePoint, finish_call, is_pointer, returned_on
from probekit.guest.survey import gather_guest
from probekit.guest.text import KernelText
from probekit.kernel.image import Kernel, open_kernel
from probekit.kernel.tasks import Task
from probekit.patch.edits import revert_batches
from probekit.patch.journal import Journal
from probekit.patch.journal_state import Call, JournalState, Registration
from probekit.patch.recovery_table import HEADER_SIZE, NO_HEADER, read_header
from probekit.session.attach import AttachOptions
from probekit.session.identity import boot_cookie, target_key
from probekit.session.journal_log import JournalLog, has_table, journals_of, last_call
from probekit.session.lock import acquire
from probekit.session.signals import Interrupts
from probekit.session.table_scan import adopt_tables
from probekit.target.api import Target
from probekit.target.connect import connect

__all__ = ("Recovered", "recover")

_KINDS: dict[str, MemoryKind] = {
    "exec": "exec",
    "data": "data",
    "percpu": "percpu",
    "grace": "grace",
}
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
            check_status(target)
            kernel = open_kernel(target, symbols_file=options.symbols, cache=options.cache, progress=options.progress)
            if has_panicked(kernel.find, kernel.view.read_many):
                raise panic_error()
            states += adopt_tables(target, kernel, boot_cookie(kernel), states)
            return _recover_all(target, kernel, states) if states else Recovered()
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
        self._told = dict.fromkeys(state.registrations)
        self._log = JournalLog(Journal.reopen(state), state.registrations)

    def run(self) -> Recovered:
        """Task, text, memory, in that order; the journal goes when all of it is done."""
        purpose, value = last_call(self._state.notes)
        tasks = 0
        if self._state.call is not None:
            tasks, returned = self._give_back(self._state.call)
            value = returned if value is None else value
        memory = self._memory(purpose, value)
        self._holds(purpose, value)
        with self._clock.paused():
            report = revert_batches(self._text, self._state.batches)
            restored, already = len(report.restored), len(report.already)
            self._problems += [
                f"{addr:#x} holds {found.hex(' ')}, which is not ours, and is left alone"
                for addr, found in report.conflicts
            ]
            self._problems += [f"{addr:#x} is not mapped any more" for addr in report.unreadable]
        freed = self._release(memory)
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

    def _holds(self, purpose: str, value: int | None) -> None:
        """The last call may have held a module, let one go, or taken a hook off, and not been journaled as done.

        What the kernel has forgotten must not be taken back again: neither by us, nor by whoever comes behind us.
        """
        match purpose.split():
            case [holds.HOLD, addr] if value is not None and value & 0xFF:
                held = Registration(MODULE, (int(addr, 16),))
                if held not in self._told:
                    self._told[held] = None
                    self._log.registered([held])
            case [holds.RELEASE, addr] if value is not None:
                self._forgotten(Registration(MODULE, (int(addr, 16),)))
            case [traphooks.UNHOOK, kind, addr] if value is not None:
                self._forgotten(Registration(kind, (int(addr, 16),)))

    def _forgotten(self, item: Registration) -> None:
        if item in self._told:
            del self._told[item]
            self._log.unregistered([item])

    def _readers(self, facts: GuestFacts, memory: list[Allocation]) -> Callable[[SafePoint], Callable[[], None]]:
        """Begins the wait for readers. ``memory``: ours; it gets the page that this takes."""
        grace = facts.grace
        if grace is None:
            raise InternalError("a wait for readers was asked for in a kernel that has none")

        def begin(point: SafePoint) -> Callable[[], None]:
            earlier = [item for item in memory if item.kind == "grace"]

            def take(page: Allocation) -> None:
                self._log.allocated(page)
                memory.append(page)

            waiting = grace.begin(point, facts.services, self._text, take, traced=True, earlier=earlier)
            return lambda: waiting.wait(self._text, self._clock, LIMIT, facts.residents.tasks)

        return begin

    def _inside(
        self, facts: GuestFacts, point: SafePoint, memory: list[Allocation], registered: Registered
    ) -> list[Task]:
        """Tasks that sleep inside what is to be freed. A hook for fix-ups is the sign that copies can be slept in."""
        if not registered.of_kind(BPF_KSYM):
            return []
        found: list[Task] = []
        for item in memory:
            if item.kind == "exec":
                bounds = (item.addr, item.addr + item.size)
                found += facts.residents.inside(point, facts.services, self._target, self._text, bounds, self._log)
        return found

    def _recovered_elsewhere(self, code: list[int]) -> bool:
        """Somebody recovered this guest from its table: what is there now is not ours."""
        pages = self._text.read_many([(addr, HEADER_SIZE) for addr in code])
        return has_table(self._state.notes) and any(page is None or read_header(page) is None for page in pages)

    def _release(self, memory: list[Allocation]) -> int:
        """Unregister what the kernel calls, and free what is still allocated, behind a wait for readers."""
        code = [item.addr for item in memory if item.kind == "exec"]
        if not (memory or self._told) or self._recovered_elsewhere(code):
            return 0
        facts = gather_guest(self._kernel)
        registered = Registered(facts, self._text, self._log, self._told)
        freed = 0
        try:
            with vacated(
                lambda: SafePoint(self._target, facts.call_points, log=self._log),
                self._target,
                facts.services,
                lambda point: self._inside(facts, point, memory, registered),
                prepare=registered.stop_calls,
                wait=self._readers(facts, memory) if facts.grace is not None else None,
            ) as point:
                if self._problems:
                    return 0  # text that still leads into our memory keeps it alive
                self._log.table(stands=False)
                self._text.write_many([(addr, NO_HEADER) for addr in code])
                registered.let_go(point)
                for item in reversed(memory):
                    facts.services.free(point, item)
                    self._log.freed(item)
                    freed += item.size
        except GuestError as error:
            self._problems.append(
                f"{sum(m.size for m in memory) - freed} bytes are left behind, inert: {error.message}"
            )
        return freed
