"""Map guest RAM that the hypervisor keeps in a file.

With ``-object memory-backend-file,share=on`` QEMU's guest memory *is* the
file: reading the mapping sees the guest's memory while it runs. Physical
addresses are not file offsets: below 4 GiB there is a hole for devices, and
the rest of the RAM follows it. The monitor's ``info mtree -f`` shows the
offset of each range::

    0000000000100000-000000007fffffff (prio 0, ram): ram0 @0000000000100000

A range is ``rom`` where guest writes do not go to RAM (shadowed BIOS): probekit
does not write there either. *Code* must not be written this way: TCG
would keep running its translation of the old bytes. Use the stub for code.
"""

from __future__ import annotations

import bisect
import itertools
import mmap
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from probekit.errors import MemoryAccessError, TargetError

__all__ = ("GuestRam", "RamRange", "parse_ram_ranges", "parse_ram_spans")

_RANGE: Final = re.compile(
    r"\s+([0-9a-f]{16})-([0-9a-f]{16}) \(prio -?\d+, (ram|rom)\): (\S+)(?: @([0-9a-f]{16}))?(?: KVM)?\s*"
)
_VIEW: Final = re.compile(r"FlatView #\d+")
_MEMORY_SPACE: Final = re.compile(r'\s+AS "memory", root: \S+')


@dataclass(frozen=True, slots=True)
class RamRange:
    """A range of RAM."""

    start: int
    """Its guest physical address."""
    size: int
    """Bytes."""
    offset: int
    """Where it begins in the backend's file, in bytes."""
    writable: bool
    """False for ROM, where guest writes do not go to RAM."""


def parse_ram_ranges(mtree: str, backend: str) -> tuple[RamRange, ...]:
    """Return the ranges of the memory backend named ``backend`` in the text of ``info mtree -f``, by address.

    Raises :class:`TargetError` when there are none, or when they overlap: then the text has another form.
    """
    ranges: list[RamRange] = []
    ours = False
    for line in mtree.splitlines():
        if _VIEW.fullmatch(line.rstrip()):
            ours = False
        elif _MEMORY_SPACE.match(line):
            ours = True
        elif ours and (match := _RANGE.fullmatch(line)) and match[4] == backend:
            start, last = int(match[1], 16), int(match[2], 16)
            ranges.append(RamRange(start, last - start + 1, int(match[5] or "0", 16), match[3] == "ram"))
    ranges.sort(key=lambda one: one.start)
    if not ranges:
        raise TargetError(f"the memory map has no RAM of the memory backend {backend!r}")
    for left, right in itertools.pairwise(ranges):
        if left.start + left.size > right.start:
            raise TargetError(f"the memory map says that RAM overlaps at {right.start:#x}")
    if any(one.size <= 0 for one in ranges):
        raise TargetError("the memory map has a range that ends before it starts")
    return tuple(ranges)


def parse_ram_spans(mtree: str) -> tuple[tuple[int, int], ...]:
    """Return ``(start, end)`` of all physical memory that ``info mtree -f`` calls RAM or ROM, which is safe to read."""
    spans: list[tuple[int, int]] = []
    ours = False
    for line in mtree.splitlines():
        if _VIEW.fullmatch(line.rstrip()):
            ours = False
        elif _MEMORY_SPACE.match(line):
            ours = True
        elif ours and (match := _RANGE.fullmatch(line)):
            spans.append((int(match[1], 16), int(match[2], 16) + 1))
    return tuple(spans)


class GuestRam:
    """Maps the guest's RAM file, and addresses it by guest physical address. The machine may run all the time."""

    def __init__(self, path: str | Path, ranges: tuple[RamRange, ...]) -> None:
        """Map ``path``. Raises :class:`TargetError` when it cannot be mapped or is shorter than ``ranges`` say."""
        self.path = Path(path)
        self._ranges = ranges
        self._starts = [one.start for one in ranges]
        try:
            with self.path.open("r+b", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                if size == 0 or any(one.offset + one.size > size for one in ranges):
                    raise TargetError(f"{self.path}: {size} bytes are less than the guest's memory map needs")
                self._map = mmap.mmap(file.fileno(), size)
        except OSError as problem:
            raise TargetError(f"{self.path}: cannot map the guest's memory: {problem.strerror or problem}") from problem
        self._view = memoryview(self._map)

    def read(self, phys: int, size: int) -> bytes:
        """Return ``size`` bytes at the physical address ``phys``. Raises :class:`MemoryAccessError` outside of RAM."""
        if size < 0:
            raise ValueError(f"cannot read {size} bytes")
        parts = []
        while size > 0:
            offset, room, _ = self._locate(phys, size)
            step = min(size, room)
            parts.append(bytes(self._view[offset : offset + step]))
            phys, size = phys + step, size - step
        return b"".join(parts)

    def write(self, phys: int, data: bytes) -> None:
        """Write data (never code, see above) at ``phys``, all of it or nothing. Raises :class:`MemoryAccessError`."""
        pieces = []
        done = 0
        while done < len(data):
            offset, room, writable = self._locate(phys + done, len(data) - done)
            if not writable:
                raise MemoryAccessError(f"guest physical {phys:#x} is read-only", addr=phys, size=len(data))
            step = min(len(data) - done, room)
            pieces.append((offset, done, step))
            done += step
        for offset, done, step in pieces:
            self._view[offset : offset + step] = data[done : done + step]

    def u64(self, phys: int, count: int) -> memoryview:
        """Return ``count`` 8-byte words at ``phys`` as a live view: each index reads (or writes) guest memory at once.

        One aligned word is read whole, so a counter is never seen half written. ``phys`` must be a multiple of 8.
        Release the view before :meth:`close`. Raises :class:`MemoryAccessError`, :class:`ValueError`.
        """
        if phys % 8 or count < 0:
            raise ValueError(f"no view of {count} words at {phys:#x}")
        offset, room, writable = self._locate(phys, 8 * count)
        if room < 8 * count or not writable:
            raise MemoryAccessError(
                f"guest physical {phys:#x} ({8 * count} bytes) is not one piece of writable RAM",
                addr=phys,
                size=8 * count,
            )
        return self._view[offset : offset + 8 * count].cast("Q")

    def close(self) -> None:
        """Unmap. Safe to call twice. A mapping with views still in use goes with the last of them."""
        self._view.release()
        try:
            self._map.close()
        except BufferError:
            return

    def _locate(self, phys: int, size: int) -> tuple[int, int, bool]:
        """Return the file offset of ``phys``, the bytes of its range from there on, and whether it may be written."""
        index = bisect.bisect_right(self._starts, phys) - 1
        if index >= 0:
            one = self._ranges[index]
            inside = phys - one.start
            if inside < one.size:
                return one.offset + inside, one.size - inside, one.writable
        raise MemoryAccessError(f"guest physical {phys:#x} is not RAM", addr=phys, size=size)
