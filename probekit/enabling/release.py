"""Free our guest memory and unregister from the guest's kernel, in an order in which nobody can still use them.

The same steps serve a normal end, the end after SIGINT or SIGTERM (:mod:`probekit.session.signals` notes the signal),
and a recovery after SIGKILL. Sites already have their old bytes:

1. where an INT3 of a stage or of a marker stood, wait until no vCPU is in the kernel's INT3 handler; then unregister
   timers and tracepoints: the kernel does not call us by itself any more
2. wait for readers and sleepers: nobody is in our code, and nobody will come back to it
3. check that no vCPU is in our code; the caller copies the data that it still wants to read
4. wipe the header of the recovery table
5. unregister everything else
6. free the memory, newest first, and note each allocation in the journal

When a step fails, nothing is freed after it. The memory then stays allocated but inert, and the journal keeps it for
a recovery. The same happens when guest text may still lead into our memory, or when a borrowed task is still inside a
guest call. :class:`Holdings` has everything in which the callers differ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from probekit.enabling.api import EngineLog
from probekit.enabling.registrations import KEPT_BY_READERS, Registrations
from probekit.errors import GuestError, GuestGone, GuestPaused, JournalError, required
from probekit.guest.facts import GuestFacts
from probekit.guest.health import resume_unless_dead
from probekit.guest.linux import Allocation
from probekit.guest.memory import PauseClock
from probekit.guest.safepoint import SafePoint
from probekit.guest.stack_search import quiescent_point
from probekit.kernel.tasks import Task
from probekit.patch.crossmodify import wait_for_handler_exit
from probekit.patch.edits import TextMemory
from probekit.patch.journal_payloads import BPF_KSYM
from probekit.patch.recovery_table import HEADER_SIZE, NO_HEADER
from probekit.target.api import Target

__all__ = ("Holdings", "release_holdings")


def _nothing() -> None:
    """Do nothing."""


def _assume_alive(_: bool) -> None:
    """Assume that the guest still runs."""


@dataclass(frozen=True, slots=True)
class Holdings:
    """Our memory and registrations in a guest, and how to free them."""

    target: Target
    text: TextMemory
    """Guest memory while the guest is stopped."""
    facts: GuestFacts
    log: EngineLog
    clock: PauseClock
    safe_point: Callable[[], SafePoint]
    """Returns a safe point to enter."""
    memory: list[Allocation]
    """Oldest first. What is freed is removed from it; the page of the wait for readers is added."""
    registrations: Registrations
    limit: float
    """Seconds to wait until no task runs or sleeps in our code."""
    bypassed: bool = False
    """Whether a vCPU may still be in the handler of an INT3 that was used to change an instruction in stages."""
    keep: str = ""
    """Why the memory must not be freed, as guest text may still lead there; empty when it may be freed."""
    silence: Callable[[], None] = _nothing
    """Makes clauses do nothing, for a CPU that may still reach them. The guest runs or is stopped."""
    alive: Callable[[bool], None] = _assume_alive
    """Raises :class:`GuestGone` when the guest is gone. Its argument: whether the guest is stopped."""
    check_idle: Callable[[], None] = _nothing
    """Raises :class:`GuestError` when a clause has not ended. The guest is stopped."""
    copy: Callable[[], None] = _nothing
    """Copies the data that the caller still wants to read, before the memory is freed or left allocated."""

    def code(self) -> list[tuple[int, int]]:
        """Return the bounds (start, end) of our executable memory."""
        return [(item.addr, item.addr + item.size) for item in self.memory if item.kind == "exec"]


def release_holdings(holdings: Holdings) -> list[str]:
    """Unregister and free everything, or leave all memory allocated but inert. Returns a message in that case.

    The guest may run or be stopped before, and runs afterwards unless it is dead. Raises
    :class:`probekit.errors.TargetError` when it cannot be reached any more, :class:`GuestGone` when its kernel is gone.
    """
    try:
        _stop_and_free(holdings)
    except GuestGone:
        raise
    except (GuestError, JournalError) as error:
        return [_keep_inert(holdings, error.message)]
    return []


def _stop_and_free(holdings: Holdings) -> None:
    """Carry out all steps. Raises :class:`GuestError` or :class:`JournalError` when one fails."""
    if holdings.log.borrowed:
        raise GuestError("a borrowed guest task has not come back from a call")
    if holdings.target.paused:
        raise GuestPaused("giving its memory back")
    if holdings.keep:
        with holdings.safe_point() as point:
            holdings.registrations.stop_calls(point)
        raise GuestError(holdings.keep)
    if holdings.bypassed:
        if not holdings.target.running:
            holdings.target.resume()
        wait_for_handler_exit(holdings.target, holdings.clock.paused)
    with quiescent_point(
        holdings.safe_point,
        holdings.target,
        holdings.registrations.wait_for_readers,
        lambda point: _sleepers(holdings, point),
        prepare=holdings.registrations.stop_calls,
        wait=(lambda point: _begin_wait(holdings, point)) if holdings.facts.grace is not None else None,
        settled=lambda _: _nobody_inside(holdings),
        limit=holdings.limit,
    ) as point:
        _check_vcpus(holdings)
        holdings.check_idle()
        holdings.copy()
        _wipe_table(holdings)
        holdings.registrations.unregister_rest(point)
        _free(holdings, point)
    if not holdings.target.running:
        holdings.target.resume()


def _keep_inert(holdings: Holdings, reason: str) -> str:
    """Silence the clauses and leave the memory allocated. Returns a message with the ``reason``."""
    holdings.silence()
    holdings.copy()
    resume_unless_dead(holdings.target)
    size = sum(item.size for item in holdings.memory)
    return f"{size} bytes of guest memory are left behind, inert: {reason}"


def _begin_wait(holdings: Holdings, point: SafePoint) -> Callable[[], None]:
    """Ask the kernel to call back when nobody can be in our code any more. Returns a function that waits for it."""
    facts = holdings.facts
    grace = required(facts.grace, "the kernel's callback for readers")
    earlier = [item for item in holdings.memory if item.kind == "grace"]

    def take(page: Allocation) -> None:
        holdings.memory.append(page)
        holdings.log.allocated(page)

    waiting = grace.begin(
        point, facts.services, holdings.text, take, traced=holdings.registrations.traced, earlier=earlier
    )
    return lambda: waiting.wait(holdings.text, holdings.clock, holdings.limit, facts.stack_search.tasks, holdings.alive)


def _nobody_inside(holdings: Holdings) -> bool:
    """Return whether no CPU or task can use our memory, so that there is no need to wait for readers.

    With traps and markers there is a notifier on a list of the kernel, which a CPU may be reading. On a preemptible
    kernel a thread may be in our code that is exiting and is on no list of tasks any more.
    """
    if holdings.registrations.traced or holdings.registrations.of_kind(*KEPT_BY_READERS) or holdings.facts.preemptible:
        return False
    return holdings.facts.stack_search.code_is_unused(holdings.target, holdings.text, holdings.code())


def _sleepers(holdings: Holdings, point: SafePoint) -> list[Task]:
    """Return the sleeping tasks that will wake up in our code.

    A task can only sleep in a copied instruction that touches user memory. Every such copy has a fix-up, which is
    registered with a BPF symbol, so without that symbol there are none.
    """
    if not holdings.registrations.of_kind(BPF_KSYM):
        return []
    stack_search, services = holdings.facts.stack_search, holdings.facts.services
    return [
        task
        for bounds in holdings.code()
        for task in stack_search.tasks_returning_to(
            point, services, holdings.target, holdings.text, bounds, holdings.log
        )
    ]


def _check_vcpus(holdings: Holdings) -> None:
    """Raise :class:`GuestError` for a vCPU that executes our code.

    After the wait for readers none can be there any more: this is the last check before memory is freed.
    """
    for vcpu in holdings.target.vcpus():
        rip = holdings.target.regs(vcpu)["rip"]
        if any(start <= rip < end for start, end in holdings.code()):
            raise GuestError(f"vCPU {vcpu} is still inside probekit's code at {rip:#x}")


def _wipe_table(holdings: Holdings) -> None:
    """Wipe the header, so that later contents of the freed memory are not taken for a recovery table.

    The journal has a note of it first. Otherwise a recovery would find a wiped table and conclude that another
    recovery had restored this guest.
    """
    pages = [start for start, _ in holdings.code()]
    holdings.log.table_wiped()
    holdings.text.write_many([(page, NO_HEADER) for page in pages])
    if any(found != NO_HEADER for found in holdings.text.read_many([(page, HEADER_SIZE) for page in pages])):
        raise GuestError("the header of the recovery table cannot be wiped")


def _free(holdings: Holdings, point: SafePoint) -> None:
    while holdings.memory:
        holdings.facts.services.free(point, holdings.memory[-1])
        holdings.log.freed(holdings.memory.pop())  # killed in between: the journal has the call, and that it returned
