"""Waiting for readers without lending a task to the wait.

``synchronize_rcu_tasks()`` returns when every task has been through the scheduler of
its own accord or was in user mode: in a guest where one is kept from running, never.
A borrowed task would sleep in there all that time. So the kernel is only asked to
tell when it is so far::

    call_rcu_tasks(&page[0].head, wakeme_after_rcu)     wakeme_after_rcu: the kernel's own, it completes
    call_rcu(&page[1].head, wakeme_after_rcu)           page[n].completion, whose count is looked at from here

Each structure is a ``struct rcu_synchronize`` (include/linux/rcupdate_wait.h), which
is what the blocking calls make on their stack. Its page is ours like any memory, but
the kernel will write there, so it is not given back before all is over: not by who
gave up waiting for it, and by a later recovery only after it has waited itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from probekit.errors import GuestError, SymbolError
from probekit.guest.linux import Allocation, LinuxServices
from probekit.guest.memory import PauseClock, StoppedMemory
from probekit.guest.safepoint import SafePoint
from probekit.kernel.btf import Btf
from probekit.kernel.tasks import Task
from probekit.records import record

__all__ = ("GraceServices", "find_grace_services")

_PAGE = 4096
_FIRST_LOOK, _LONGEST_LOOK = 0.005, 0.1  # seconds between two looks, growing
_NAMED = 3


@record
class GraceServices:
    """``starts``: (function, arguments before the head) of each kind of reader; ``traced``: those of tracepoints.

    ``callback``: ``wakeme_after_rcu``. Byte offsets: ``stride`` from one structure to the next; in it ``head``,
    ``function`` (in the head, set while it is asked for), ``done`` (u32, the completion's count), ``lock`` (u32, taken
    while that is counted), ``links`` (its empty list). ``holdout``: in ``task_struct``, the byte that is set while a
    wait for tasks is held up by it; None where it has no such member.
    """

    starts: tuple[tuple[int, tuple[int, ...]], ...]
    traced: tuple[tuple[int, tuple[int, ...]], ...]
    callback: int
    stride: int
    head: int
    function: int
    done: int
    lock: int
    links: int
    holdout: int | None

    def begin(
        self,
        point: SafePoint,
        services: LinuxServices,
        text: StoppedMemory,
        take: Callable[[Allocation], object],
        *,
        traced: bool,
        earlier: Sequence[Allocation] = (),
    ) -> ReaderWait:
        """Ask for a word when all readers of now are gone.

        ``take``: told of the page before the kernel is. ``traced``: readers of tracepoints count too. ``earlier``:
        pages of waits that somebody began and did not end.
        """
        starts = (*self.starts, *(self.traced if traced else ()))
        page = services.allocate(point, "grace", _PAGE)
        take(page)
        lists = [page.addr + number * self.stride + self.links for number in range(len(starts))]
        text.write_many([(at, at.to_bytes(8, "little") * 2) for at in lists])  # empty: each leads to itself
        for number, (function, leading) in enumerate(starts):
            point.call(function, *leading, page.addr + number * self.stride + self.head, self.callback)
        return ReaderWait(self, (*(item.addr for item in earlier), page.addr))

    def over(self, page: bytes) -> bool:
        """Whether nothing that was asked for with this page is still to come, and the kernel has let go of it."""
        for at in range(0, self.stride * (len(self.starts) + len(self.traced)), self.stride):
            asked = any(page[at + self.function : at + self.function + 8])
            if asked and (not any(page[at + self.done : at + self.done + 4]) or any(page[at + self.lock :][:4])):
                return False
        return True


@record
class ReaderWait:
    """Readers that are waited for. ``pages``: addresses of the pages of the structures."""

    services: GraceServices
    pages: tuple[int, ...]

    def over(self, text: StoppedMemory) -> bool:
        """Whether all of them are gone. The guest is stopped."""
        found = text.read_many([(page, _PAGE) for page in self.pages])
        return all(page is not None and self.services.over(page) for page in found)

    def wait(self, text: StoppedMemory, clock: PauseClock, limit: float, tasks: Callable[[], Sequence[Task]]) -> None:
        """Until they are gone, while the guest runs. Raises :class:`GuestError` after ``limit`` seconds."""
        deadline = time.monotonic() + limit
        step = _FIRST_LOOK
        while True:
            with clock.paused():
                if self.over(text):
                    return
                late = time.monotonic() >= deadline
                names = self._holdouts(text, tasks()) if late else ()
            if late:
                who = f": {', '.join(names[:_NAMED])} kept from running" if names else ""
                raise GuestError(
                    f"some task may still be on its way through a probe, for {limit:g} s now{who}",
                    hint="`probekit recover` tries again",
                )
            time.sleep(step)
            step = min(2 * step, _LONGEST_LOOK)

    def _holdouts(self, text: StoppedMemory, tasks: Sequence[Task]) -> tuple[str, ...]:
        """Tasks that the kernel's wait is held up by."""
        offset = self.services.holdout
        if offset is None:
            return ()
        flags = text.read_many([(task.addr + offset, 1) for task in tasks])
        return tuple(f"{task.comm} ({task.pid})" for task, flag in zip(tasks, flags, strict=True) if flag == b"\x01")


def find_grace_services(find: Callable[[str], int | None], btf: Btf | None) -> GraceServices | None:
    """Look everything up by name; None for a kernel that lacks some of it, where the wait has to be a guest call."""
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
