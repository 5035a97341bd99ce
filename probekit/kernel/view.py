"""Kernel memory as the kernel sees it, wherever the vCPUs were stopped.

A stub reads through the page tables of one vCPU. With page-table isolation
(PTI, commit aa8c6248f8c7, v4.15) a vCPU stopped in user space has tables that
map hardly any of the kernel. So a :class:`KernelView` reads directly first
and, for kernel addresses that the direct way does not reach, walks page
tables itself in physical memory (QEMU's ``Qqemu.PhyMemMode``).

PTI keeps two top-level tables side by side, the kernel's at the even page and
the user's at the odd one, so the kernel's is ``CR3`` with bit 12 cleared
(``PTI_USER_PGTABLE_BIT``). Without PTI bit 12 is just an address bit: both
readings are tried, and the one that maps most of the kernel's range wins.
Once the symbols are known, ``init_top_pgt`` (which never goes away) is used.

Example: CR3 ``0x1a2b1801`` in user mode (PCID 0x801) has its kernel table at
``0x1a2b0000``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from probekit.errors import MemoryAccessError, SymbolError, TargetError, UnsupportedError
from probekit.kernel.base import KERNEL_MAP, KERNEL_MAP_SIZE, STEP
from probekit.kernel.memory import PAGE_SIZE
from probekit.target.api import Regs, Target
from probekit.target.paging import FLAG_NX, FLAG_PRESENT, FLAG_USER, FLAG_WRITE

__all__ = (
    "KernelView",
    "Leaf",
    "PhysicalMemory",
    "PhysicalSource",
    "Tables",
    "root_candidates",
    "translate_many",
    "walk_many",
)

_LARGE = 1 << 7
_ADDRESS = 0x000FFFFFFFFFF000
_LA57 = 1 << 12
_LONG_MODE_ACTIVE = 1 << 10
_KERNEL_HALF = 1 << 63


@runtime_checkable
class PhysicalMemory(Protocol):
    """A target that can read guest physical memory: inside of the context, addresses are physical."""

    def physical_memory(self) -> AbstractContextManager[None]: ...


@dataclass(frozen=True, slots=True)
class Tables:
    """A page-table tree. ``root``: physical address of its top; ``levels``: 4, or 5 with LA57."""

    root: int
    levels: int


class KernelView:
    """A :class:`~probekit.kernel.memory.Source` that reaches all kernel memory. The target must be stopped."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._tables: Tables | None = None
        self._own_root: int | None = None
        self._fixed = False

    @property
    def target(self) -> Target:
        return self._target

    def read(self, addr: int, size: int) -> bytes:
        data = self.read_many([(addr, size)])[0]
        if data is None:
            raise MemoryAccessError(f"cannot read {size} bytes of guest memory at {addr:#x}", addr=addr, size=size)
        return data

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]:
        found = self._target.read_many(ranges)
        missing = [i for i, data in enumerate(found) if data is None and ranges[i][0] & _KERNEL_HALF]
        if missing:
            for i, data in zip(missing, self._walk([ranges[i] for i in missing]), strict=True):
                found[i] = data
        return found

    def translate(self, addr: int) -> int | None:
        """The guest physical address of a kernel address, or None. For writes where the direct way is closed."""
        return self.translate_many([addr])[addr]

    def translate_many(self, addrs: Iterable[int]) -> dict[int, int | None]:
        """The guest physical address of each kernel address, None where it has none or none can be known."""
        tables = self._usable_tables()
        if tables is None or not isinstance(self._target, PhysicalMemory):
            return dict.fromkeys(addrs)
        with self._target.physical_memory():
            return translate_many(self._target, tables, addrs)

    def walk_many(self, addrs: Iterable[int]) -> dict[int, Leaf | None] | None:
        """Translations with their permissions; None when page tables cannot be read. See :func:`walk_many`."""
        tables = self._usable_tables()
        if tables is None or not isinstance(self._target, PhysicalMemory):
            return None
        with self._target.physical_memory():
            return walk_many(self._target, tables, addrs)

    def adopt_root(self, init_top_pgt: int) -> None:
        """From now on walk the kernel's own tables, whose virtual address is ``init_top_pgt``, when walking at all."""
        self._own_root = init_top_pgt

    def tables(self) -> Tables | None:
        """The kernel's own page tables, None until :meth:`adopt_root` and where they cannot be found."""
        tables = self._usable_tables()
        return tables if self._fixed else None

    def _usable_tables(self) -> Tables | None:
        """The tables to walk. Until the kernel's own are known they are chosen anew: a process's may be gone."""
        target = self._target
        if self._fixed or not isinstance(target, PhysicalMemory):
            return self._tables
        regs = [target.regs(vcpu) for vcpu in target.vcpus()]
        try:
            with target.physical_memory():
                tables = _best(target, root_candidates(regs))
                if tables is not None and self._own_root is not None:
                    root = translate_many(target, tables, [self._own_root])[self._own_root]
                    if root is not None:
                        tables = Tables(root, tables.levels)
                        self._fixed = True
        except UnsupportedError:
            tables = None
        self._tables = tables
        return tables

    def _walk(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]:
        target = self._target
        tables = self._usable_tables()
        if tables is None or not isinstance(target, PhysicalMemory):
            return [None] * len(ranges)
        with target.physical_memory():
            pages = {page for addr, size in ranges for page in range(addr & -PAGE_SIZE, addr + size, PAGE_SIZE)}
            where = translate_many(target, tables, pages)
            plans = [_physical_runs(addr, size, where) for addr, size in ranges]
            wanted = [run for plan in plans if plan is not None for run in plan]
            parts = iter(target.read_many(wanted))
            result: list[bytes | None] = []
            for plan in plans:
                pieces = [next(parts) for _ in plan] if plan is not None else [None]
                whole = [piece for piece in pieces if piece is not None]
                result.append(b"".join(whole) if len(whole) == len(pieces) else None)
            return result


def check_long_mode(target: Target) -> None:
    """Raise :class:`SymbolError` when no vCPU runs 64-bit code, as in firmware and boot loaders."""
    states = [target.regs(vcpu).values for vcpu in target.vcpus()]
    known = [values["efer"] for values in states if "efer" in values]
    if known and not any(efer & _LONG_MODE_ACTIVE for efer in known):
        raise SymbolError(
            "no vCPU is in 64-bit mode: the guest is still in its firmware or boot loader",
            hint="let it boot Linux and attach again",
        )


def root_candidates(regs: Iterable[Regs]) -> tuple[Tables, ...]:
    """Every table root that the vCPUs' registers suggest, kernel readings of CR3 first."""
    plain: dict[Tables, None] = {}
    cleared: dict[Tables, None] = {}
    for item in regs:
        values = item.values
        if "cr3" not in values or not values.get("efer", _LONG_MODE_ACTIVE) & _LONG_MODE_ACTIVE:
            continue
        levels = 5 if values.get("cr4", 0) & _LA57 else 4
        root = values["cr3"] & _ADDRESS
        (cleared if root & PAGE_SIZE else plain)[Tables(root & ~PAGE_SIZE, levels)] = None
        if root & PAGE_SIZE:
            plain[Tables(root, levels)] = None
    return (*cleared, *(tables for tables in plain if tables not in cleared))


def _best(target: Target, candidates: Sequence[Tables]) -> Tables | None:
    """The tables that map most of the kernel's range."""
    steps = range(KERNEL_MAP, KERNEL_MAP + KERNEL_MAP_SIZE, STEP)
    best, most = None, 0
    for tables in candidates:
        try:
            where = translate_many(target, tables, steps)
        except TargetError:
            continue
        count = sum(physical is not None for physical in where.values())
        if count > most:
            best, most = tables, count
    return best


class PhysicalSource(Protocol):
    """Reads of guest physical memory; None where there is none."""

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]: ...


class Leaf(NamedTuple):
    """Where a page is, and what may be done there: the ``FLAG_*`` bits of :mod:`probekit.target.paging`."""

    physical: int
    flags: int


def translate_many(source: PhysicalSource, tables: Tables, addrs: Iterable[int]) -> dict[int, int | None]:
    """Physical addresses of many virtual ones. ``source``: such as a target in physical mode."""
    return {a: leaf.physical if leaf is not None else None for a, leaf in walk_many(source, tables, addrs).items()}


def walk_many(source: PhysicalSource, tables: Tables, addrs: Iterable[int]) -> dict[int, Leaf | None]:
    """The translation of many virtual addresses, level by level; None where nothing is mapped.

    WRITE and USER hold when every level grants them, NX when one level sets it.
    """
    result: dict[int, Leaf | None] = {}
    pending = dict.fromkeys(addrs, (tables.root, FLAG_PRESENT | FLAG_WRITE | FLAG_USER))
    for level in range(tables.levels, 0, -1):
        shift = 12 + 9 * (level - 1)
        nodes = list(dict.fromkeys(node for node, _ in pending.values()))
        contents = dict(zip(nodes, source.read_many([(node, PAGE_SIZE) for node in nodes]), strict=True))
        following: dict[int, tuple[int, int]] = {}
        for addr, (node, flags) in pending.items():
            table = contents[node]
            index = addr >> shift & 0x1FF
            entry = int.from_bytes(table[8 * index : 8 * index + 8], "little") if table is not None else 0
            flags = (flags & entry) | ((flags | entry) & FLAG_NX)
            if not entry & FLAG_PRESENT:
                result[addr] = None
            elif level == 1 or (level <= 3 and entry & _LARGE):
                low = (1 << shift) - 1
                result[addr] = Leaf((entry & _ADDRESS & ~low) | (addr & low), flags)
            else:
                following[addr] = (entry & _ADDRESS, flags)
        pending = following
    return result


def _physical_runs(addr: int, size: int, where: dict[int, int | None]) -> list[tuple[int, int]] | None:
    """The physically contiguous runs of a virtual range, or None when a page of it is not mapped."""
    runs: list[tuple[int, int]] = []
    for start, length in _by_page(addr, size):
        page = where[start & -PAGE_SIZE]
        if page is None:
            return None
        physical = page + (start & (PAGE_SIZE - 1))
        if runs and sum(runs[-1]) == physical:
            runs[-1] = (runs[-1][0], runs[-1][1] + length)
        else:
            runs.append((physical, length))
    return runs


def _by_page(addr: int, size: int) -> Iterator[tuple[int, int]]:
    end = addr + size
    while addr < end:
        step = min(end - addr, PAGE_SIZE - addr % PAGE_SIZE)
        yield addr, step
        addr += step
