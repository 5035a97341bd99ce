"""Give back everything that we hold in a guest. There is one way, for the end of an enabling and for a recovery:

    calls of ours    taken back: the kernel does not call us by itself any more
    readers          waited for: nobody is in our code, and nobody will come back to it
    last look        no vCPU stands in our code; the caller copies what it still wants to read
    table            the recovery table's header is wiped
    registrations    the rest is taken back
    memory           freed, newest first, each part with its word in the journal

Nothing is freed after a step that failed: then everything is left behind, inert, and the journal keeps it for a
recovery. The same holds when guest text may still lead into our memory, or when a borrowed task is still inside a
guest call. :class:`Holdings` has what the callers differ in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from probekit.enabling.api import EngineLog
from probekit.enabling.registrations import KEPT_BY_READERS, Registered
from probekit.errors import GuestError, GuestPaused, JournalError, required
from probekit.guest.facts import GuestFacts
from probekit.guest.health import resume_unless_dead
from probekit.guest.linux import Allocation
from probekit.guest.memory import PauseClock
from probekit.guest.residents import vacated
from probekit.guest.safepoint import SafePoint
from probekit.kernel.tasks import Task
from probekit.patch.crossmodify import wait_for_handler_exit
from probekit.patch.edits import TextMemory
from probekit.patch.journal_payloads import BPF_KSYM
from probekit.patch.recovery_table import HEADER_SIZE, NO_HEADER
from probekit.target.api import Target

__all__ = ("Holdings", "release")


def _nothing() -> None:
    """Do nothing."""


@dataclass(frozen=True, slots=True)
class Holdings:
    """What we hold in a guest, and how it is to be given back."""

    target: Target
    text: TextMemory
    """Guest memory while the guest is stopped."""
    facts: GuestFacts
    log: EngineLog
    clock: PauseClock
    safe_point: Callable[[], SafePoint]
    """Returns a safe point to enter."""
    memory: list[Allocation]
    """Oldest first. It loses what is freed, and gains the page of the wait for readers."""
    registered: Registered
    limit: float
    """Seconds to wait for readers, and for tasks that sleep in our code."""
    bypassed: bool = False
    """Whether a vCPU may still be in the handler of an INT3 that stood while an instruction was changed."""
    keep: str = ""
    """Why the memory must stay although everything was tried, or empty: text may still lead there."""
    silence: Callable[[], None] = _nothing
    """Makes clauses do nothing, for whoever may still come to them. The guest runs or is stopped."""
    last_look: Callable[[], None] = _nothing
    """Raises :class:`GuestError` when a clause has not ended. The guest is stopped."""
    copy: Callable[[], None] = _nothing
    """Copies what the caller still wants to read, before it is freed or left alone."""

    def code(self) -> list[tuple[int, int]]:
        """Return the bounds (start, end) of our executable memory."""
        return [(item.addr, item.addr + item.size) for item in self.memory if item.kind == "exec"]


def release(held: Holdings) -> list[str]:
    """Give everything back, or leave everything behind. Returns a message for what is left behind, if anything is.

    The guest may run or be stopped before, and runs afterwards unless it is dead. Raises
    :class:`probekit.errors.TargetError` when it cannot be reached any more.
    """
    try:
        _stop_and_free(held)
    except (GuestError, JournalError) as error:
        return [_leave_behind(held, error.message)]
    return []


def _stop_and_free(held: Holdings) -> None:
    if held.log.borrowed:
        raise GuestError("a borrowed guest task has not come back from a call")
    if held.target.paused:
        raise GuestPaused("giving its memory back")
    if held.keep:
        with held.safe_point() as point:
            held.registered.stop_calls(point)
        raise GuestError(held.keep)
    if held.bypassed:
        if not held.target.running:
            held.target.resume()
        wait_for_handler_exit(held.target, held.clock.paused)
    with vacated(
        held.safe_point,
        held.target,
        held.registered.wait_for_readers,
        lambda point: _sleepers(held, point),
        prepare=held.registered.stop_calls,
        wait=(lambda point: _begin_wait(held, point)) if held.facts.grace is not None else None,
        settled=lambda _: _nobody_inside(held),
        limit=held.limit,
    ) as point:
        _check_vcpus(held)
        held.last_look()
        held.copy()
        _wipe_table(held)
        held.registered.let_go(point)
        _free(held, point)
    if not held.target.running:
        held.target.resume()


def _leave_behind(held: Holdings, reason: str) -> str:
    held.silence()
    held.copy()
    resume_unless_dead(held.target)
    size = sum(item.size for item in held.memory)
    return f"{size} bytes of guest memory are left behind, inert: {reason}"


def _begin_wait(held: Holdings, point: SafePoint) -> Callable[[], None]:
    """Ask the kernel to say when everybody who may be in our code is gone. Returns what waits for that."""
    facts = held.facts
    grace = required(facts.grace, "the kernel's callback for readers")
    earlier = [item for item in held.memory if item.kind == "grace"]

    def take(page: Allocation) -> None:
        held.memory.append(page)
        held.log.allocated(page)

    waiting = grace.begin(point, facts.services, held.text, take, traced=held.registered.traced, earlier=earlier)
    return lambda: waiting.wait(held.text, held.clock, held.limit, facts.residents.tasks)


def _nobody_inside(held: Holdings) -> bool:
    """Return whether nobody can be in our code or hold on to what is in it, so that there are no readers to wait for.

    Traps and markers have a notifier, which is on a list of the kernel's. A kernel that preempts itself may keep a
    thread in our code that has ended and is on no list of tasks any more.
    """
    if held.registered.traced or held.registered.of_kind(*KEPT_BY_READERS) or held.facts.preemptible:
        return False
    return held.facts.residents.nobody(held.target, held.text, held.code())


def _sleepers(held: Holdings, point: SafePoint) -> list[Task]:
    """Return the tasks that will come back to our code from sleep.

    Only a copied instruction that touches user memory can be slept in, and where there is one, there is a BPF symbol
    with its fix-ups.
    """
    if not held.registered.of_kind(BPF_KSYM):
        return []
    residents, services = held.facts.residents, held.facts.services
    return [
        task
        for bounds in held.code()
        for task in residents.inside(point, services, held.target, held.text, bounds, held.log)
    ]


def _check_vcpus(held: Holdings) -> None:
    """Raise :class:`GuestError` for a vCPU in our code. After the wait it can only be there for an instant, idle."""
    for vcpu in held.target.vcpus():
        rip = held.target.regs(vcpu)["rip"]
        if any(start <= rip < end for start, end in held.code()):
            raise GuestError(f"vCPU {vcpu} is still inside probekit's code at {rip:#x}")


def _wipe_table(held: Holdings) -> None:
    """Wipe the header, so that nobody takes what becomes of our memory for a table of ours.

    The journal has it first. The other way round a recovery would take a wiped table for another one's work.
    """
    pages = [start for start, _ in held.code()]
    held.log.table_wiped()
    held.text.write_many([(page, NO_HEADER) for page in pages])
    if any(found != NO_HEADER for found in held.text.read_many([(page, HEADER_SIZE) for page in pages])):
        raise GuestError("the header of the recovery table cannot be wiped")


def _free(held: Holdings, point: SafePoint) -> None:
    while held.memory:
        held.facts.services.free(point, held.memory[-1])
        held.log.freed(held.memory.pop())  # killed in between: the journal has the call, and that it returned
