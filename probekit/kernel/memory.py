"""Bounded reads of guest memory, whatever the stopped vCPUs happen to be doing.

Terms:

*source*
    Anything with ``read`` and ``read_many``: a :class:`~probekit.target.api.Target`,
    a page walk over physical memory (:mod:`probekit.kernel.view`), or a fake in a test.
*image*
    A contiguous copy of a range; pages that could not be read are zero and
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

__all__ = ("PAGE_SIZE", "Image", "Memory", "Source")

PAGE_SIZE = 4096
_MAX_READ = 64 << 20
_MAX_IMAGE = 256 << 20
_IMAGE_BATCH = 2 << 20
_TOP = 1 << 64


class Source(Protocol):
    """The two calls that this layer needs of a target."""

    def read(self, addr: int, size: int) -> bytes: ...

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]: ...


@dataclass(frozen=True, slots=True)
class Image:
    """A contiguous copy of guest memory. ``holes``: start addresses of pages that were unreadable (zeros here)."""

    start: int
    data: bytes = field(repr=False)
    holes: frozenset[int] = frozenset()

    @property
    def end(self) -> int:
        return self.start + len(self.data)

    def holds(self, addr: int, size: int) -> bool:
        """Whether the whole range is inside of this copy."""
        return self.start <= addr and size >= 0 and addr + size <= self.end

    def read(self, addr: int, size: int) -> bytes:
        """A part of the copy, or :class:`MemoryAccessError` when it is not all there."""
        if not self.holds(addr, size):
            raise MemoryAccessError(f"no copy of {size} bytes at {addr:#x}", addr=addr, size=size)
        return self.data[addr - self.start : addr - self.start + size]


class Memory:
    """Reads with limits and an optional page cache over a :class:`Source`."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._pages: dict[int, bytes | None] = {}
        self._depth = 0

    @property
    def source(self) -> Source:
        return self._source

    @contextmanager
    def cached(self) -> Iterator[None]:
        """Keep pages until the outermost scope ends. The guest must stay stopped inside of it."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if not self._depth:
                self._pages.clear()

    def read(self, addr: int, size: int) -> bytes:
        """Exactly ``size`` bytes or :class:`MemoryAccessError`."""
        data = self.read_many([(addr, size)])[0]
        if data is None:
            raise MemoryAccessError(f"cannot read {size} bytes of guest memory at {addr:#x}", addr=addr, size=size)
        return data

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]:
        """Many ranges at once; None where a byte of one is unreadable."""
        asked: list[tuple[int, int]] = []
        for addr, size in ranges:
            _check_range(addr, size)
            asked.append((addr, size))
        if not self._depth:
            return self._fetch(asked)
        self._fill(asked)
        return [self._from_cache(addr, size) for addr, size in asked]

    def _fetch(self, ranges: list[tuple[int, int]]) -> list[bytes | None]:
        # A wild pointer must be "unreadable", not an error from the transport about a 65-bit address.
        good = [(addr, size) for addr, size in ranges if addr + size <= _TOP]
        found = iter(self._source.read_many(good) if good else [])
        return [next(found) if addr + size <= _TOP else None for addr, size in ranges]

    def _fill(self, ranges: list[tuple[int, int]]) -> None:
        missing = dict.fromkeys(
            page
            for addr, size in ranges
            if addr + size <= _TOP
            for page in range(addr & -PAGE_SIZE, addr + size, PAGE_SIZE)
            if page not in self._pages
        )
        if missing:
            pages = list(missing)
            self._pages.update(zip(pages, self._source.read_many([(p, PAGE_SIZE) for p in pages]), strict=True))

    def _from_cache(self, addr: int, size: int) -> bytes | None:
        if addr + size > _TOP:
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

    def image(self, start: int, end: int) -> Image:
        """A copy of ``start..end`` (page-aligned outwards) that tolerates holes."""
        start &= -PAGE_SIZE
        end = min((end + PAGE_SIZE - 1) & -PAGE_SIZE, _TOP)
        _check_range(start, end - start, _MAX_IMAGE)
        parts: list[bytes] = []
        holes: set[int] = set()
        batches = [(at, min(_IMAGE_BATCH, end - at)) for at in range(start, end, _IMAGE_BATCH)]
        for (at, size), data in zip(batches, self._source.read_many(batches), strict=True):
            if data is not None:
                parts.append(data)
                continue
            pages = [(page, PAGE_SIZE) for page in range(at, at + size, PAGE_SIZE)]
            for (page, _), found in zip(pages, self._source.read_many(pages), strict=True):
                if found is None:
                    holes.add(page)
                parts.append(found if found is not None else bytes(PAGE_SIZE))
        return Image(start=start, data=b"".join(parts), holes=frozenset(holes))

    def u32(self, addr: int) -> int:
        return int.from_bytes(self.read(addr, 4), "little")

    def u64(self, addr: int) -> int:
        return int.from_bytes(self.read(addr, 8), "little")

    def u64s(self, addr: int, count: int) -> tuple[int, ...]:
        """``count`` consecutive 64-bit words."""
        return struct.unpack(f"<{count}Q", self.read(addr, 8 * count))

    def cstring(self, addr: int, limit: int = 256) -> bytes:
        """The bytes up to a NUL, at most ``limit``. Stops quietly at an unreadable page."""
        size = min(limit, PAGE_SIZE - (addr & (PAGE_SIZE - 1)))
        data = self.read(addr, size)
        if b"\0" not in data and size < limit:
            rest = self.read_many([(addr + size, limit - size)])[0]
            data += rest or b""
        return data.split(b"\0", 1)[0]


def _check_range(addr: int, size: int, limit: int = _MAX_READ) -> None:
    """Sizes come from the guest: an absurd one is a wrong structure, not a reason to allocate."""
    if not 0 <= size <= limit:
        raise SymbolError(f"refusing to read {size:#x} bytes at {addr:#x}: not a plausible size")
    if not 0 <= addr < _TOP:
        raise MemoryAccessError(f"{addr:#x} is not an address", addr=addr, size=size)
