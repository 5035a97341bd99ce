"""Compare the page tables of all processes: does each map our memory as the kernel's own tables do?

x86-64 Linux gives each process a top-level page table of its own. Entries of the kernel's half are copied from
``init_top_pgt``. When the vmalloc area gets a new entry later, a process without it faults at the first access. In
NMI context that is fatal: an ``iret`` from the fault lets the next NMI in. Since commit 6eb82f994026 (v5.8) kernels
fill all top-level entries of the vmalloc area at boot. This module checks the tables instead of assuming that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from probekit.errors import GuestError, SymbolError, TargetError
from probekit.guest.memory import PauseClock
from probekit.guest.ram_reader import RamReader
from probekit.kernel.address_space import KernelAddressSpace
from probekit.kernel.btf import Btf
from probekit.kernel.memory import KernelMemory
from probekit.kernel.page_tables import Leaf
from probekit.kernel.tasks import read_tasks

__all__ = ("ProcessPageTables", "Unshared")

_ACCESSED_DIRTY: Final = 0x60  # the processor sets these by itself
_KERNEL: Final = 1 << 63
_TOP_SHIFT: Final = {4: 39, 5: 48}


class Unshared(NamedTuple):
    """A page that the tables of one process do not map as the kernel's own tables do."""

    addr: int
    """Virtual address of the page."""
    comm: str
    """Name of a task of that process."""
    pid: int
    """ID of that task."""


class ProcessPageTables:
    """Reads the page tables of the kernel and of every process. The guest runs, and is stopped only for a moment."""

    def __init__(
        self,
        view: KernelAddressSpace,
        memory: KernelMemory,
        clock: PauseClock,
        *,
        ram: RamReader | None,
        tasks: Callable[[KernelMemory], Sequence[int]],
        btf: Btf | None,
        top: int | None,
    ) -> None:
        """Read through ``ram`` where there is one, else through ``view`` and ``memory`` while the guest is stopped.

        ``memory``: the kernel's memory while the guest is stopped. ``ram``: no other thread may read through it at the
        same time.
        ``tasks``: addresses of the guest's tasks. ``btf``: None when the kernel has no type information; processes are
        not compared then. ``top``: address of ``init_top_pgt``, None when it is not known.
        """
        self._view = view
        self._memory = memory
        self._clock = clock
        self._ram = ram
        self._tasks = tasks
        self._btf = btf
        self._top = top

    def leaves(self, pages: Iterable[int]) -> dict[int, Leaf | None] | None:
        """Return how the kernel's own tables map each page; None when this stub cannot read page tables.

        The tables that map our memory do not change, so they can be read while the guest runs.
        """
        if self._ram is not None:
            return self._ram.walk_many(pages)
        with self._clock.paused():
            return self._view.walk_many(pages)

    def unshared(self, pages: Iterable[int]) -> list[Unshared]:
        """Return the pages whose top-level entry differs in some process. Raises :class:`GuestError` for bad tables.

        The result is empty when processes cannot be compared.
        """
        if self._btf is None or self._top is None:
            return []
        if self._ram is not None:
            # The guest runs, so the lists may be changing and this result is not used: the read only puts their pages
            # into the cache, for a short read below with the guest stopped.
            with suppress(SymbolError, TargetError):
                self._tops(self._btf, KernelMemory(self._ram))
        with self._clock.paused():
            tables = self._view.page_table_root()
            return self._differing(pages, self._btf, self._top, _TOP_SHIFT[tables.levels]) if tables is not None else []

    def _differing(self, pages: Iterable[int], btf: Btf, own: int, shift: int) -> list[Unshared]:
        page_at = {addr >> shift & 0x1FF: addr for addr in pages}  # by index in the top-level table
        tops = self._tops(btf, self._memory)
        found = self._memory.read_many([(top + 8 * index, 8) for top in (own, *tops) for index in page_at])
        if any(entry is None for entry in found):
            raise GuestError("a process's page table cannot be read")
        entries = [int.from_bytes(entry or b"", "little") & ~_ACCESSED_DIRTY for entry in found]
        kernels, *others = [entries[at : at + len(page_at)] for at in range(0, len(entries), len(page_at))]
        wrong = [
            (addr, task)
            for task, row in zip(tops.values(), others, strict=True)
            for addr, mine, theirs in zip(page_at.values(), row, kernels, strict=True)
            if mine != theirs
        ]
        tasks = read_tasks(self._memory, btf, [task for _, task in wrong])
        return [Unshared(addr, task.comm, task.pid) for (addr, _), task in zip(wrong, tasks, strict=True)]

    def _tops(self, btf: Btf, memory: KernelMemory) -> dict[int, int]:
        """Return every top-level table in use, with the address of a task that uses it.

        A kernel thread uses the tables of the process that ran before it (``active_mm``).
        Raises :class:`SymbolError` or :class:`TargetError` when the list of tasks cannot be followed.
        """
        task_struct, pgd = btf.struct("task_struct"), btf.struct("mm_struct").field("pgd").offset
        offsets = [task_struct.field(name).offset for name in ("mm", "active_mm")]
        tasks = [task for task in self._tasks(memory) for _ in offsets]
        found = memory.read_many([(task + offsets[n % 2], 8) for n, task in enumerate(tasks)])
        spaces: dict[int, int] = {}
        for task, word in zip(tasks, found, strict=True):
            mm = int.from_bytes(word or b"", "little")
            if mm & _KERNEL:
                spaces.setdefault(mm, task)
        tops = memory.read_many([(mm + pgd, 8) for mm in spaces])
        return {
            int.from_bytes(top, "little"): task
            for task, top in zip(spaces.values(), tops, strict=True)
            if top is not None
        }
