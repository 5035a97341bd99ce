"""Read kernel memory through the shared RAM file: without packets, and while the guest runs.

    virtual page -> (the kernel's own page tables, read from the same file) -> physical page -> mapping

Kernel text is only *read* this way. It is written through the stub, because an
emulator must see that code changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from probekit.errors import MemoryAccessError
from probekit.guest.memory import RamBytes
from probekit.kernel.page_tables import Leaf, PageTableRoot, PhysicalSource, translate_many, walk_many

__all__ = ("RamReader",)

_PAGE = 4096
_KERNEL_HALF = 1 << 63
_EVERYWHERE = range(1 << 64)


class _RamFrames:
    """Reads page-table frames from the RAM file: a :class:`probekit.kernel.page_tables.PhysicalSource`."""

    def __init__(self, ram: RamBytes) -> None:
        self._ram = ram

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]:
        """Return the bytes of physical ``(addr, size)`` ranges, None outside RAM."""
        found: list[bytes | None] = []
        for addr, size in ranges:
            try:
                found.append(self._ram.read(addr, size))
            except MemoryAccessError:
                found.append(None)
        return found


class RamReader:
    """Reads kernel addresses through the RAM file and the kernel's page tables."""

    def __init__(self, ram: RamBytes, tables: PageTableRoot, lasting: range) -> None:
        """Read by ``tables``, the kernel's own page tables.

        ``lasting``: addresses of the kernel's image; where their pages are is looked up once. Other memory is mapped
        and unmapped while the guest runs (modules, stacks, our own pages), so each read looks its pages up again.
        """
        self._frames: PhysicalSource = _RamFrames(ram)
        self._ram = ram
        self._tables = tables
        self._lasting = lasting
        self._frame_of: dict[int, int | None] = {}

    def caching_reader(self) -> RamReader:
        """Return a reader that caches every page, for a caller who calls :meth:`invalidate` when pages may change."""
        return RamReader(self._ram, self._tables, _EVERYWHERE)

    def invalidate(self) -> None:
        """Look every page up again, because memory was mapped or unmapped."""
        self._frame_of.clear()

    def walk_many(self, pages: Iterable[int]) -> dict[int, Leaf | None]:
        """Return how the kernel's tables map each page now, None for one that is not mapped."""
        return walk_many(self._frames, self._tables, pages)

    def read(self, addr: int, size: int) -> bytes:
        """Return exactly ``size`` bytes; raises :class:`MemoryAccessError`."""
        data = self.read_many([(addr, size)])[0]
        if data is None:
            raise MemoryAccessError(f"cannot read {size} bytes of guest memory at {addr:#x}", addr=addr, size=size)
        return data

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]:
        """Return the bytes of ``(addr, size)`` ranges; None where a page is not mapped, not RAM or not the kernel's."""
        pages = {p for addr, size in ranges for p in range(addr & -_PAGE, addr + size, _PAGE)}
        missing = [page for page in pages if page not in self._frame_of and page & _KERNEL_HALF]
        if missing:
            self._frame_of.update(translate_many(self._frames, self._tables, missing))
        copies: dict[int, bytes | None] = {page: self._page(page) for page in pages}
        found: list[bytes | None] = []
        for addr, size in ranges:
            offset = addr & (_PAGE - 1)
            page = copies[addr - offset] if size else b""
            if page is not None and offset + size <= _PAGE:
                found.append(page[offset : offset + size])
            else:
                found.append(_join(copies, addr, size))
        for addr in missing:
            if addr not in self._lasting:
                del self._frame_of[addr]
        return found

    def _page(self, page: int) -> bytes | None:
        frame = self._frame_of.get(page)
        if frame is None:
            return None
        try:
            return self._ram.read(frame, _PAGE)
        except MemoryAccessError:
            return None


def _join(copies: dict[int, bytes | None], addr: int, size: int) -> bytes | None:
    """Join the parts of a range that crosses pages; None when one of the pages is missing."""
    parts: list[bytes] = []
    for page in range(addr & -_PAGE, addr + size, _PAGE):
        copy = copies[page]
        if copy is None:
            return None
        parts.append(copy)
    offset = addr & (_PAGE - 1)
    return b"".join(parts)[offset : offset + size]
