"""Read guest memory with limits, and with a page cache while the guest stands still.

Terms:

*source*
    Anything with ``read`` and ``read_many``: a :class:`~probekit.target.api.Target`,
    a page walk over physical memory (:mod:`probekit.kernel.address_space`), or a fake in a test.
*copy*
    A contiguous range, read at once; pages that could not be read are zero and
    are named in ``holes``.
*scope*
    ``with memory.cached():`` keeps the pages read so far. Outside of a scope
    nothing is kept, so a value read after the guest ran is never stale.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from probekit.errors import MemoryAccessError, SymbolError

__all__ = ("PAGE_SIZE", "KernelMemory", "MemoryCopy", "MemorySource")

PAGE_SIZE = 4096
_MAX_READ = 64 << 20
_MAX_COPY = 256 << 20
_COPY_BATCH = 2 << 20
_ADDRESS_END = 1 << 64


class MemorySource(Protocol):
    """The two calls that this package needs of a target."""

    def read(self, addr: int, size: int) -> bytes: ...

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]: ...


@dataclass(frozen=True, slots=True)
class MemoryCopy:
    """A contiguous copy of guest memory."""

    start: int
    """Guest virtual address of the first byte."""
    data: bytes = field(repr=False)
    """The bytes of all pages."""
    holes: frozenset[int] = frozenset()
    """Start addresses of the pages that were unreadable. They are zero in ``data``."""

    @property
    def end(self) -> int:
        """The address after the last byte."""
        return self.start + len(self.data)

    def holds(self, addr: int, size: int) -> bool:
        """Tell whether the whole range is inside of this copy."""
        return self.start <= addr and size >= 0 and addr + size <= self.end

    def read(self, addr: int, size: int) -> bytes:
        """Return a part of the copy. Raises :class:`MemoryAccessError` when it is not all there."""
        if not self.holds(addr, size):
            raise MemoryAccessError(f"no copy of {size} bytes at {addr:#x}", addr=addr, size=size)
        return self.data[addr - self.start : addr - self.start + size]


class KernelMemory:
    """Reads with limits and an optional page cache over a :class:`MemorySource`."""

    def __init__(self, source: MemorySource) -> None:
        self._source = source
        self._pages: dict[int, bytes | None] = {}
        self._scopes = 0

    @contextmanager
    def cached(self) -> Iterator[None]:
        """Keep pages until the outermost scope ends. The guest must stay stopped inside of it."""
        self._scopes += 1
        try:
            yield
        finally:
            self._scopes -= 1
            if not self._scopes:
                self._pages.clear()

    def read(self, addr: int, size: int) -> bytes:
        """Return exactly ``size`` bytes. Raises :class:`MemoryAccessError`, and :class:`SymbolError` above 64 MiB."""
        data = self.read_many([(addr, size)])[0]
        if data is None:
            raise MemoryAccessError(f"cannot read {size} bytes of guest memory at {addr:#x}", addr=addr, size=size)
        return data

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]:
        """Read many ``(addr, size)`` ranges at once; None where a byte of one is unreadable.

        Raises :class:`SymbolError` for a size above 64 MiB, :class:`MemoryAccessError` for what is no address.
        """
        asked: list[tuple[int, int]] = []
        for addr, size in ranges:
            _check_range(addr, size)
            asked.append((addr, size))
        if not self._scopes:
            return self._fetch(asked)
        self._fill(asked)
        return [self._from_cache(addr, size) for addr, size in asked]

    def _fetch(self, ranges: list[tuple[int, int]]) -> list[bytes | None]:
        # A wild pointer must be "unreadable", not an error from the transport about a 65-bit address.
        good = [(addr, size) for addr, size in ranges if addr + size <= _ADDRESS_END]
        found = iter(self._source.read_many(good) if good else [])
        return [next(found) if addr + size <= _ADDRESS_END else None for addr, size in ranges]

    def _fill(self, ranges: list[tuple[int, int]]) -> None:
        missing = dict.fromkeys(
            page
            for addr, size in ranges
            if addr + size <= _ADDRESS_END
            for page in range(addr & -PAGE_SIZE, addr + size, PAGE_SIZE)
            if page not in self._pages
        )
        if missing:
            pages = list(missing)
            self._pages.update(zip(pages, self._source.read_many([(p, PAGE_SIZE) for p in pages]), strict=True))

    def _from_cache(self, addr: int, size: int) -> bytes | None:
        if addr + size > _ADDRESS_END:
            return None
        parts = []
        for page in range(addr & -PAGE_SIZE, addr + size, PAGE_SIZE):
            data = self._pages.get(page)
            if data is None:
                return None
            parts.append(data)
        joined = b"".join(parts)
        offset = addr & (PAGE_SIZE - 1)
        return joined[offset : offset + size]

    def copy(self, start: int, end: int) -> MemoryCopy:
        """Copy ``[start, end)``, widened to whole pages. Unreadable pages become holes.

        Raises :class:`SymbolError` above 256 MiB.
        """
        start &= -PAGE_SIZE
        end = min((end + PAGE_SIZE - 1) & -PAGE_SIZE, _ADDRESS_END)
        _check_range(start, end - start, _MAX_COPY)
        parts: list[bytes] = []
        holes: set[int] = set()
        batches = [(at, min(_COPY_BATCH, end - at)) for at in range(start, end, _COPY_BATCH)]
        for (at, size), data in zip(batches, self._source.read_many(batches), strict=True):
            if data is not None:
                parts.append(data)
                continue
            pages = [(page, PAGE_SIZE) for page in range(at, at + size, PAGE_SIZE)]
            for (page, _), found in zip(pages, self._source.read_many(pages), strict=True):
                if found is None:
                    holes.add(page)
                parts.append(found if found is not None else bytes(PAGE_SIZE))
        return MemoryCopy(start=start, data=b"".join(parts), holes=frozenset(holes))

    def u32(self, addr: int) -> int:
        """Return the unsigned 32-bit word at ``addr``. Raises :class:`MemoryAccessError`."""
        return int.from_bytes(self.read(addr, 4), "little")

    def u64(self, addr: int) -> int:
        """Return the unsigned 64-bit word at ``addr``. Raises :class:`MemoryAccessError`."""
        return int.from_bytes(self.read(addr, 8), "little")

    def u64s(self, addr: int, count: int) -> tuple[int, ...]:
        """Return ``count`` consecutive unsigned 64-bit words. Raises :class:`MemoryAccessError`."""
        return struct.unpack(f"<{count}Q", self.read(addr, 8 * count))

    def cstring(self, addr: int, limit: int = 256) -> bytes:
        """Return the bytes up to a NUL, at most ``limit``; fewer where the next page is unreadable.

        Raises :class:`MemoryAccessError` when the first page is.
        """
        size = min(limit, PAGE_SIZE - (addr & (PAGE_SIZE - 1)))
        data = self.read(addr, size)
        if b"\0" not in data and size < limit:
            rest = self.read_many([(addr + size, limit - size)])[0]
            data += rest or b""
        return data.split(b"\0", 1)[0]


def _check_range(addr: int, size: int, limit: int = _MAX_READ) -> None:
    """Refuse what cannot be a range. Sizes come from the guest: an absurd one is a wrong structure."""
    if not 0 <= size <= limit:
        raise SymbolError(f"refusing to read {size:#x} bytes at {addr:#x}: not a plausible size")
    if not 0 <= addr < _ADDRESS_END:
        raise MemoryAccessError(f"{addr:#x} is not an address", addr=addr, size=size)
