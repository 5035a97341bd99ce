"""Read kernel memory as the kernel sees it, wherever the vCPUs were stopped.

A stub reads through the page tables of one vCPU. With page-table isolation
(PTI, commit aa8c6248f8c7, v4.15) a vCPU stopped in user space has tables that
map hardly any of the kernel. So :class:`KernelAddressSpace` reads directly first
and, for kernel addresses that it does not reach that way, walks page tables
itself in physical memory (QEMU's ``Qqemu.PhyMemMode``).

PTI keeps two top-level tables side by side, the kernel's at the even page and
the user's at the odd one, so the kernel's is ``CR3`` with bit 12 cleared. Every
reading of CR3 is tried, and the one that maps most of the kernel's range wins.
Once the symbols are known, ``init_top_pgt`` (which never goes away) is used.

Example: CR3 ``0x1a2b1801`` in user mode (PCID 0x801) has its kernel table at
``0x1a2b0000``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from probekit.errors import MemoryAccessError, TargetError, UnsupportedError
from probekit.kernel.image_base import KERNEL_MAP, KERNEL_MAP_SIZE, STEP
from probekit.kernel.memory import PAGE_SIZE
from probekit.kernel.page_tables import (
    Leaf,
    PageTableRoot,
    PhysicalMemory,
    root_candidates,
    translate_many,
    walk_many,
)
from probekit.target.api import Target

__all__ = ("KernelAddressSpace",)

_KERNEL_HALF = 1 << 63


class KernelAddressSpace:
    """A :class:`~probekit.kernel.memory.MemorySource` that reaches all kernel memory. The target must be stopped."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._root: PageTableRoot | None = None
        self._init_top_pgt: int | None = None
        self._found_own_root = False

    @property
    def target(self) -> Target:
        """The machine whose memory this is."""
        return self._target

    def read(self, addr: int, size: int) -> bytes:
        """Return ``size`` bytes at a virtual address. Raises :class:`MemoryAccessError`."""
        data = self.read_many([(addr, size)])[0]
        if data is None:
            raise MemoryAccessError(f"cannot read {size} bytes of guest memory at {addr:#x}", addr=addr, size=size)
        return data

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]:
        """Read ``(addr, size)`` ranges; None where one is unreadable, also with our own page walk."""
        found = self._target.read_many(ranges)
        missing = [i for i, data in enumerate(found) if data is None and ranges[i][0] & _KERNEL_HALF]
        if missing:
            for i, data in zip(missing, self._read_by_walk([ranges[i] for i in missing]), strict=True):
                found[i] = data
        return found

    def translate(self, addr: int) -> int | None:
        """Return the guest physical address of a kernel address, or None. For writes that the stub refuses."""
        return self.translate_many([addr])[addr]

    def translate_many(self, addrs: Iterable[int]) -> dict[int, int | None]:
        """Return the guest physical address of each kernel address; None where nothing is mapped or known."""
        root = self._usable_root()
        if root is None or not isinstance(self._target, PhysicalMemory):
            return dict.fromkeys(addrs)
        with self._target.physical_memory():
            return translate_many(self._target, root, addrs)

    def walk_many(self, addrs: Iterable[int]) -> dict[int, Leaf | None] | None:
        """Return each address's leaf entry (permissions too); None when page tables cannot be read at all."""
        root = self._usable_root()
        if root is None or not isinstance(self._target, PhysicalMemory):
            return None
        with self._target.physical_memory():
            return walk_many(self._target, root, addrs)

    def adopt_root(self, init_top_pgt: int) -> None:
        """Prefer the kernel's own tables from now on; ``init_top_pgt``: their virtual address."""
        self._init_top_pgt = init_top_pgt

    def page_table_root(self) -> PageTableRoot | None:
        """Return the root of the kernel's own page tables, or None; it is not known before :meth:`adopt_root`."""
        root = self._usable_root()
        return root if self._found_own_root else None

    def _usable_root(self) -> PageTableRoot | None:
        """Return the root to walk from. Until the kernel's own is known, choose again: a process may have ended."""
        target = self._target
        if self._found_own_root or not isinstance(target, PhysicalMemory):
            return self._root
        regs = [target.regs(vcpu) for vcpu in target.vcpus()]
        try:
            with target.physical_memory():
                root = _best_candidate(target, root_candidates(regs))
                if root is not None and self._init_top_pgt is not None:
                    own = translate_many(target, root, [self._init_top_pgt])[self._init_top_pgt]
                    if own is not None:
                        root = PageTableRoot(own, root.levels)
                        self._found_own_root = True
        except UnsupportedError:
            root = None
        self._root = root
        return root

    def _read_by_walk(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]:
        target = self._target
        root = self._usable_root()
        if root is None or not isinstance(target, PhysicalMemory):
            return [None] * len(ranges)
        with target.physical_memory():
            pages = {page for addr, size in ranges for page in range(addr & -PAGE_SIZE, addr + size, PAGE_SIZE)}
            frames = translate_many(target, root, pages)
            plans = [_physical_runs(addr, size, frames) for addr, size in ranges]
            wanted = [run for plan in plans if plan is not None for run in plan]
            parts = iter(target.read_many(wanted))
            result: list[bytes | None] = []
            for plan in plans:
                pieces = [next(parts) for _ in plan] if plan is not None else [None]
                whole = [piece for piece in pieces if piece is not None]
                result.append(b"".join(whole) if len(whole) == len(pieces) else None)
            return result


def _best_candidate(target: Target, candidates: Sequence[PageTableRoot]) -> PageTableRoot | None:
    """Return the root that maps most of the kernel's range."""
    steps = range(KERNEL_MAP, KERNEL_MAP + KERNEL_MAP_SIZE, STEP)
    best, most = None, 0
    for root in candidates:
        try:
            found = translate_many(target, root, steps)
        except TargetError:
            continue
        count = sum(physical is not None for physical in found.values())
        if count > most:
            best, most = root, count
    return best


def _physical_runs(addr: int, size: int, frames: dict[int, int | None]) -> list[tuple[int, int]] | None:
    """Return the physically contiguous runs of a virtual range, or None when a page is not mapped.

    ``frames``: the physical address of each virtual page.
    """
    runs: list[tuple[int, int]] = []
    for start, length in _split_by_page(addr, size):
        frame = frames[start & -PAGE_SIZE]
        if frame is None:
            return None
        physical = frame + (start & (PAGE_SIZE - 1))
        if runs and sum(runs[-1]) == physical:
            runs[-1] = (runs[-1][0], runs[-1][1] + length)
        else:
            runs.append((physical, length))
    return runs


def _split_by_page(addr: int, size: int) -> Iterator[tuple[int, int]]:
    end = addr + size
    while addr < end:
        step = min(end - addr, PAGE_SIZE - addr % PAGE_SIZE)
        yield addr, step
        addr += step
