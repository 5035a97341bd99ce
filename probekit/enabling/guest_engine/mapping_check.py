"""Check, before a site goes live, that every page which a probe touches is mapped in every process.

A probe may fire in an NMI, where a page fault must not happen, and in any process. So every page of our code, of our
data and of the per-CPU slots is looked up in the kernel's page tables, and their top-level entries in those of every
process (:mod:`probekit.guest.process_page_tables`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from probekit.errors import GuestError
from probekit.guest.linux import Allocation
from probekit.guest.process_page_tables import Unshared
from probekit.kernel.page_tables import FLAG_NX, FLAG_USER, FLAG_WRITE, Leaf

__all__ = ("NotMappedError", "PageTables", "Touched", "check_mapped", "memory_touched")

_PAGE = 4096
_MASK = (1 << 64) - 1


class Touched(NamedTuple):
    """Memory that probes will touch."""

    name: str
    """Its name in an error message."""
    addr: int
    size: int
    code: bool = False
    """Whether it is executed; otherwise it is written."""

    def pages(self) -> range:
        """Return the address of each of its pages."""
        return range(self.addr & -_PAGE, self.addr + self.size, _PAGE)


def memory_touched(memory: Iterable[Allocation], cpu_offsets: Iterable[int]) -> list[Touched]:
    """Return the parts of our ``memory`` that probes touch. ``cpu_offsets``: per-CPU base of each possible CPU."""
    offsets = tuple(cpu_offsets)
    found: list[Touched] = []
    for item in memory:
        match item.kind:
            case "exec" | "data":
                found.append(Touched(item.kind, item.addr, item.size, code=item.kind == "exec"))
            case "percpu":
                found += [Touched("per-CPU", (item.addr + offset) & _MASK, item.size) for offset in offsets]
    return found


class PageTables(Protocol):
    """Looks up pages: :class:`probekit.guest.process_page_tables.ProcessPageTables`.

    The guest runs; it is stopped if necessary.
    """

    def leaves(self, pages: Iterable[int]) -> Mapping[int, Leaf | None] | None:
        """Return the kernel's mapping of each page, None for an unmapped page; None if no tables can be read."""
        ...

    def unshared(self, pages: Iterable[int]) -> list[Unshared]:
        """Return the pages whose top-level entry differs in some process."""
        ...


class NotMappedError(GuestError):
    """A page of our memory would fault when a probe touches it."""

    def __init__(self, name: str, addr: int, why: str) -> None:
        """Describe the page at ``addr`` in the memory ``name``. ``why``: a verb phrase such as "is not mapped"."""
        super().__init__(
            f"nothing was probed: the page at {addr:#x} ({name}) {why}",
            hint="a probe that fires in an NMI must not fault; the guest's page tables are not as expected",
        )
        self.name = name
        """The name of the memory."""
        self.addr = addr
        """The address of the page."""


def check_mapped(touched: Sequence[Touched], tables: PageTables) -> int:
    """Look up every page. Returns how many were checked, 0 when page tables cannot be read.

    Raises :class:`NotMappedError` for the first page that is not mapped as it must be.
    """
    owners = {page: item for item in touched for page in item.pages()}
    leaves = tables.leaves(owners)
    if leaves is None:
        return 0
    for page, item in owners.items():
        why = _wrong(leaves.get(page), code=item.code)
        if why:
            raise NotMappedError(item.name, page, why)
    for addr, comm, pid in tables.unshared(owners):
        raise NotMappedError(owners[addr].name, addr, f"is not mapped in the address space of {comm!r} (pid {pid})")
    return len(owners)


def _wrong(leaf: Leaf | None, *, code: bool) -> str:
    if leaf is None:
        return "is not mapped"
    if leaf.flags & FLAG_USER:
        return "is open to user programs"
    if code and leaf.flags & FLAG_NX:
        return "is not executable"
    if not code and not leaf.flags & FLAG_WRITE:
        return "is not writable"
    return ""
