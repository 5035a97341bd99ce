"""Wait for RCU readers without a borrowed task that sleeps in the wait.

``synchronize_rcu_tasks()`` returns when every task has called the scheduler by itself
or was in user mode. While some task is kept from running it does not return, and a
borrowed task would sleep in it all that time. So we ask the kernel for a callback when
its readers are gone::

    call_rcu_tasks(&page[0].head, wakeme_after_rcu)     wakeme_after_rcu is the kernel's own callback: it
    call_rcu(&page[1].head, wakeme_after_rcu)           completes page[n].completion, whose count the host reads

Each structure is a ``struct rcu_synchronize`` (include/linux/rcupdate_wait.h), which
the blocking calls keep on their stack. Its page is our memory, but the kernel will
write there, so we do not free it before the wait is over. When the wait takes too long,
the page stays allocated; a later recovery frees it after a wait of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from probekit.errors import GuestError, SymbolError
from probekit.guest.linux import STAMP_SIZE, Allocation, LinuxServices
from probekit.guest.memory import PauseClock, StoppedMemory
from probekit.guest.safepoint import SafePoint
from probekit.kernel.btf import Btf
from probekit.kernel.tasks import Task
from probekit.records import record

__all__ = ("GraceServices", "find_grace_services")

_PAGE = 4096
_FIRST_INTERVAL, _LONGEST_INTERVAL = 0.005, 0.1  # seconds between two looks, growing
_MAX_NAMED = 3  # tasks named in an error
_LOOK = 1.0  # seconds between two looks at whether the guest is still there


def _assume_alive(_: bool) -> None:
    """Assume that the guest still runs."""


@record
class GraceServices:
    """The kernel's functions that begin a wait for readers, and byte offsets in ``struct rcu_synchronize``."""

    starts: tuple[tuple[int, tuple[int, ...]], ...]
    """``(address of the function, arguments before the head)`` for each kind of reader."""
    traced: tuple[tuple[int, tuple[int, ...]], ...]
    """The same for the readers of tracepoints."""
    callback: int
    """Address of ``wakeme_after_rcu``."""
    stride: int
    """Bytes from one structure to the next in the page."""
    head: int
    """Offset of the RCU head, whose address is passed to the function."""
    function: int
    """Offset of the head's callback, a pointer that is 0 until the function was called."""
    done: int
    """Offset of the completion's count, a u32."""
    lock: int
    """Offset of the lock of the completion's queue, a u32. The kernel holds it while it changes the count."""
    links: int
    """Offset of the list of the completion's queue, which must be empty."""
    holdout: int | None
    """Offset in ``task_struct`` of the byte that is set while the task holds up a wait; None without such a member."""

    def begin(
        self,
        point: SafePoint,
        services: LinuxServices,
        memory: StoppedMemory,
        take: Callable[[Allocation], object],
        *,
        traced: bool,
        earlier: Sequence[Allocation] = (),
    ) -> ReaderWait:
        """Ask the kernel for callbacks when all readers of this moment are gone. Returns the wait.

        ``take``: called with the new page before the kernel gets its address. ``traced``: wait for readers of
        tracepoints too. ``earlier``: pages of earlier waits that have not ended; this wait includes them.
        Raises :class:`GuestError` when the guest has no memory, or a call does not return.
        """
        starts = (*self.starts, *(self.traced if traced else ()))
        page = services.allocate(point, "grace", _PAGE - STAMP_SIZE)
        take(page)
        lists = [page.addr + number * self.stride + self.links for number in range(len(starts))]
        memory.write_many([(at, at.to_bytes(8, "little") * 2) for at in lists])  # empty lists: each points at itself
        for number, (function, leading) in enumerate(starts):
            point.call(function, *leading, page.addr + number * self.stride + self.head, self.callback)
        return ReaderWait(self, (*(item.addr for item in earlier), page.addr))

    def over(self, page: bytes) -> bool:
        """Return whether the kernel has made every callback of this page, and no longer uses the page."""
        for at in range(0, self.stride * (len(self.starts) + len(self.traced)), self.stride):
            requested = any(page[at + self.function : at + self.function + 8])
            if requested and (not any(page[at + self.done : at + self.done + 4]) or any(page[at + self.lock :][:4])):
                return False
        return True


@record
class ReaderWait:
    """A wait for readers that has begun."""

    services: GraceServices
    """Reads the structures in the pages."""
    pages: tuple[int, ...]
    """Addresses of the pages that hold its structures."""

    def over(self, memory: StoppedMemory) -> bool:
        """Return whether all readers are gone. The guest is stopped."""
        found = memory.read_many([(page, _PAGE) for page in self.pages])
        return all(page is not None and self.services.over(page) for page in found)

    def wait(
        self,
        memory: StoppedMemory,
        clock: PauseClock,
        limit: float,
        tasks: Callable[[], Sequence[Task]],
        alive: Callable[[bool], None] = _assume_alive,
    ) -> None:
        """Wait until all readers are gone, while the guest runs. Raises :class:`GuestError` after ``limit`` seconds.

        ``tasks``: every task of the guest; called with the guest stopped. ``alive``: raises :class:`GuestGone` when the
        guest is gone; called with True while it is stopped.
        """
        deadline = time.monotonic() + limit
        interval = _FIRST_INTERVAL
        next_look = time.monotonic() + _LOOK
        while True:
            with clock.paused():
                if self.over(memory):
                    return
                if time.monotonic() >= next_look:
                    alive(True)
                    next_look = time.monotonic() + _LOOK
                expired = time.monotonic() >= deadline
                names = self._holdouts(memory, tasks()) if expired else ()
            if expired:
                who = f": {', '.join(names[:_MAX_NAMED])} kept from running" if names else ""
                raise GuestError(
                    f"some task may still be on its way through a probe, for {limit:g} s now{who}",
                    hint="`probekit recover` tries again",
                )
            time.sleep(interval)
            interval = min(2 * interval, _LONGEST_INTERVAL)

    def _holdouts(self, memory: StoppedMemory, tasks: Sequence[Task]) -> tuple[str, ...]:
        """Name the tasks that hold up the kernel's wait."""
        offset = self.services.holdout
        if offset is None:
            return ()
        flags = memory.read_many([(task.addr + offset, 1) for task in tasks])
        return tuple(f"{task.comm} ({task.pid})" for task, flag in zip(tasks, flags, strict=True) if flag == b"\x01")


def find_grace_services(find: Callable[[str], int | None], btf: Btf | None) -> GraceServices | None:
    """Look everything up by name. Returns None when something is missing; the wait has to be a guest call then.

    ``find``: symbol name to address.
    """
    callback = find("wakeme_after_rcu")
    rcu = find("call_rcu_hurry") or find("call_rcu")  # the former where the latter may wait for long (RCU_LAZY)
    if callback is None or rcu is None or btf is None:
        return None
    tasks = find("call_rcu_tasks")
    if tasks is None and find("synchronize_rcu_tasks") is not None:
        return None
    traced: list[tuple[int, tuple[int, ...]]] = []
    domain, srcu, trace = find("tracepoint_srcu"), find("call_srcu"), find("call_rcu_tasks_trace")
    if domain is not None and srcu is not None:
        traced.append((srcu, (domain,)))
    if trace is not None:
        traced.append((trace, ()))
    try:
        whole, completion = btf.struct("rcu_synchronize"), btf.struct("completion")
        head, at = whole.field("head").offset, whole.field("completion").offset
        wait, queue = at + completion.field("wait").offset, btf.struct("swait_queue_head")
        function = btf.struct("callback_head").field("func").offset
        holdout = btf.struct("task_struct").find_field("rcu_tasks_holdout")
    except SymbolError:
        return None
    return GraceServices(
        starts=((rcu, ()), *(((tasks, ()),) if tasks is not None else ())),
        traced=tuple(traced),
        callback=callback,
        stride=-(-whole.size // 64) * 64,
        head=head,
        function=head + function,
        done=at + completion.field("done").offset,
        lock=wait + queue.field("lock").offset,
        links=wait + queue.field("task_list").offset,
        holdout=holdout.offset if holdout is not None else None,
    )
