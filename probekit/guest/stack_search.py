"""Search kernel stacks for addresses of our code: which tasks are inside it or will return to it?

A task sleeps inside our code only in a copied instruction that reads or writes user
memory, while the page is fetched. The kernel's wait for readers does not wait for it,
because a sleeping task counts as gone. So every kernel stack is searched for addresses
of our code. An address found there may be left over from earlier calls; the guest's own
unwinder tells whether the task will return to it.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from probekit.errors import GuestError
from probekit.guest.linux import Allocation, LinuxServices
from probekit.guest.memory import StoppedMemory
from probekit.guest.safepoint import SafePoint
from probekit.kernel.tasks import THREAD_SIZE, Task
from probekit.target.api import Target

__all__ = ("SLEEPER_LIMIT", "MemoryLog", "StackSearch", "quiescent_point", "words_inside")

SLEEPER_LIMIT = 10.0
"""Seconds to wait, by default, for tasks that sleep inside our code."""

_DEPTH = 64  # return addresses that the unwinder is asked for
_PAGE = 4096
_INTERVAL = 0.2  # seconds between two looks
_MAX_NAMED = 3  # tasks named in an error


def words_inside(stack: bytes, start: int, end: int) -> bool:
    """Return whether an aligned 8-byte word of ``stack`` lies in ``start..end``."""
    words = array("Q", stack[: len(stack) & ~7])
    return any(start <= word < end for word in words)


class MemoryLog(Protocol):
    """Keeps an account of guest memory that is ours."""

    def allocated(self, memory: Allocation) -> None:
        """Note that the memory was allocated for us."""
        ...

    def freed(self, memory: Allocation) -> None:
        """Note that the memory was given back."""
        ...


@dataclass(frozen=True, slots=True)
class StackSearch:
    """Searches the kernel stacks of all tasks for addresses of our code."""

    tasks: Callable[[], Sequence[Task]]
    """Returns every thread of the guest; called with the guest stopped."""
    unwind: int | None
    """Address of ``stack_trace_save_tsk``, or None where the kernel has no such function."""

    def tasks_with_words(self, target: Target, memory: StoppedMemory, start: int, end: int) -> list[Task]:
        """Return the tasks with an address in ``start..end`` on their kernel stacks. The guest is stopped."""
        tasks, stacks, _ = self._stacks(target, memory)
        return [t for t, stack in zip(tasks, stacks, strict=True) if stack and words_inside(stack, start, end)]

    def addresses_in_use(self, target: Target, memory: StoppedMemory, start: int, end: int) -> set[int]:
        """Return the addresses in ``start..end`` that are a vCPU's RIP or a word on any kernel stack.

        The stacks of interrupts are searched too. The guest is stopped.
        """
        _, stacks, loose = self._stacks(target, memory)
        pages = [(at, min(_PAGE - at % _PAGE, _PAGE)) for sp in loose for at in _pages(sp & ~7)]
        found = {regs["rip"] for regs in map(target.regs, target.vcpus())}
        for stack in (*stacks, *memory.read_many(pages)):
            if stack:
                found.update(array("Q", stack[: len(stack) & ~7]))
        return {word for word in found if start <= word < end}

    def code_is_unused(self, target: Target, memory: StoppedMemory, bounds: Sequence[tuple[int, int]]) -> bool:
        """Return whether certainly no CPU runs in, and no task will return to, any of ``bounds`` (start, end).

        That is certain when no register of any vCPU and no word on the stack of any task is an address there, and
        every vCPU that is in the kernel is on a task's stack, so that no other stack holds a return address. The guest
        is stopped.
        """
        registers = [value for vcpu in target.vcpus() for value in target.regs(vcpu).values.values()]
        if any(start <= value < end for value in registers for start, end in bounds):
            return False
        _, stacks, loose = self._stacks(target, memory)
        if loose or any(stack is None for stack in stacks):
            return False
        return not any(words_inside(stack, start, end) for stack in stacks if stack for start, end in bounds)

    def _stacks(self, target: Target, memory: StoppedMemory) -> tuple[Sequence[Task], list[bytes | None], list[int]]:
        """Return the tasks, the used part of each task's stack, and the stack pointers that are on no task's stack."""
        tasks = self.tasks()
        running = [regs["rsp"] for regs in map(target.regs, target.vcpus()) if not regs.in_user_mode]
        loose = [sp for sp in running if not any(t.stack_start <= sp < t.stack_end for t in tasks)]
        lows = [_lowest(task, running, loose) for task in tasks]
        return tasks, memory.read_many([(low, t.stack_end - low) for t, low in zip(tasks, lows, strict=True)]), loose

    def lowest_used(self, target: Target, addr: int) -> int | None:
        """Return the lowest address in use of the task's stack that holds ``addr``; None when no task has such a stack.

        The guest is stopped. Where it cannot be known, the whole stack counts as used.
        """
        tasks = self.tasks()
        running = [regs["rsp"] for regs in map(target.regs, target.vcpus()) if not regs.in_user_mode]
        loose = [sp for sp in running if not any(t.stack_start <= sp < t.stack_end for t in tasks)]
        owner = next((task for task in tasks if task.stack_start <= addr < task.stack_end), None)
        if owner is None:
            return None
        own = [sp for sp in running if owner.stack_start <= sp < owner.stack_end]
        return min(own) & ~7 if own else _lowest(owner, running, loose)

    def tasks_returning_to(
        self,
        point: SafePoint,
        services: LinuxServices,
        target: Target,
        memory: StoppedMemory,
        code: tuple[int, int],
        log: MemoryLog,
    ) -> list[Task]:
        """Return the tasks that will return to ``code`` (start, end).

        Without an unwinder in the kernel the result may have tasks that will not return there. ``log``: gets the page
        that the kernel's unwinder writes to. Raises :class:`GuestError` when a guest call fails.
        """
        suspects = self.tasks_with_words(target, memory, *code)
        if not suspects or self.unwind is None:
            return suspects
        page = services.allocate(point, "data", 8 * _DEPTH)
        log.allocated(page)
        try:
            return [task for task in suspects if self._returns_to(point, memory, task, page.addr, code)]
        finally:
            services.free(point, page)
            log.freed(page)

    def _returns_to(
        self, point: SafePoint, memory: StoppedMemory, task: Task, page: int, code: tuple[int, int]
    ) -> bool:
        """Return whether the kernel's unwinder finds a return address in ``code``; True when it cannot be asked."""
        if self.unwind is None or task.on_cpu:
            return True
        count = point.call(self.unwind, task.addr, page, _DEPTH, 0) & 0xFFFFFFFF
        found = memory.read_many([(page, 8 * min(count, _DEPTH))])[0]
        if found is None:
            raise GuestError(f"what the guest's unwinder wrote at {page:#x} cannot be read")
        return words_inside(found, *code)


def _pages(sp: int) -> Iterator[int]:
    """Yield the addresses at which to read an interrupt stack: ``sp``, then each page up to the end of its 16 KiB.

    Some of these stacks are smaller, so a later page may not be mapped.
    """
    yield sp
    yield from range((sp | _PAGE - 1) + 1, (sp | THREAD_SIZE - 1) + 1, _PAGE)


def _lowest(task: Task, running: Sequence[int], loose: Sequence[int]) -> int:
    """Return the lowest address in use of a task's stack.

    ``running``: stack pointers of the vCPUs that are in the kernel; ``loose``: those on no task's stack (interrupts).
    """
    if not task.on_cpu:
        return task.saved_sp & ~7 if task.stack_start <= task.saved_sp < task.stack_end else task.stack_start
    own = [sp for sp in running if task.stack_start <= sp < task.stack_end]
    if own:
        return min(own) & ~7
    # It is in user mode with an empty kernel stack, or it was interrupted and the vCPU is on another stack.
    return task.stack_start if loose else task.stack_end


@contextmanager
def quiescent_point(
    make_point: Callable[[], SafePoint],
    target: Target,
    synchronize: Callable[[SafePoint], object],
    inside: Callable[[SafePoint], list[Task]],
    *,
    prepare: Callable[[SafePoint], object] | None = None,
    wait: Callable[[SafePoint], Callable[[], None]] | None = None,
    settled: Callable[[SafePoint], bool] | None = None,
    limit: float = SLEEPER_LIMIT,
) -> Iterator[SafePoint]:
    """Reach a safe point at which no task is inside our code or will return to it. Until then let the guest run.

    - ``prepare``: called once, at a safe point, before the wait for readers
    - ``wait``: begins the wait for readers, and returns the function that waits until it is over, which is called while
      the guest runs. None where the guest has to wait in a call; then ``synchronize`` makes that call
    - ``inside``: returns the tasks that will return to our code
    - ``settled``: returns whether no wait is needed. It is called before the wait begins, because an idle guest may
      take a second to come to the next safe point

    Raises :class:`GuestError` when a task is still inside after ``limit`` seconds.
    """
    deadline = time.monotonic() + limit
    if wait is not None:
        with make_point() as point:
            if prepare is not None:
                prepare(point)
                prepare = None
            if settled is not None and settled(point):
                yield point
                return
            readers_gone = wait(point)
        target.resume()
        readers_gone()
    while True:
        with make_point() as point:
            if prepare is not None:
                prepare(point)
                prepare = None
            if wait is None:
                synchronize(point)
            sleepers = inside(point)
            if not sleepers:
                yield point
                return
        target.resume()
        if time.monotonic() >= deadline:
            names = ", ".join(f"{task.comm} ({task.pid})" for task in sleepers[:_MAX_NAMED])
            raise GuestError(f"{len(sleepers)} tasks sleep in a copied instruction, such as {names}")
        time.sleep(_INTERVAL)
