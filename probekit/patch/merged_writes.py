"""Merge small writes that lie close together into few large ones.

A packet to the stub costs more than the bytes in it. While the machine is
stopped nothing else writes. So the bytes between two writes are read, and
written back unchanged with them::

    0x10: 01    0x30: 01     ->    0x10: 01 .. .. .. 01
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from probekit.errors import MemoryAccessError
from probekit.patch.edits import TextMemory

__all__ = ("MergedWrites",)

_MAX_GAP = 64  # bytes between two writes that are merged
_MAX_RUN = 4096  # bytes of a merged write


class MergedWrites:
    """A :class:`probekit.patch.edits.TextMemory` that writes through another one. The machine must be stopped."""

    def __init__(self, text: TextMemory) -> None:
        """Read and write through ``text``."""
        self._text = text

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]:
        """Read ``(addr, size)`` ranges; None where one is unreadable."""
        return self._text.read_many(ranges)

    def write_many(self, edits: Iterable[tuple[int, bytes]]) -> None:
        """Write ``(addr, data)`` pairs, sorted by address.

        Raises :class:`MemoryAccessError` before any write when the bytes between two writes cannot be read.
        """
        runs = _runs(sorted(edits))
        copies = self._text.read_many([(start, end - start) for start, end, _ in runs])
        whole: list[tuple[int, bytes]] = []
        for (start, end, members), copy in zip(runs, copies, strict=True):
            if copy is None:
                raise MemoryAccessError(f"cannot read {start:#x}", addr=start, size=end - start)
            run = bytearray(copy)
            for addr, data in members:
                run[addr - start : addr - start + len(data)] = data
            whole.append((start, bytes(run)))
        self._text.write_many(whole)


def _runs(edits: Sequence[tuple[int, bytes]]) -> list[tuple[int, int, list[tuple[int, bytes]]]]:
    """Return ``(start, end, writes)`` of every range that is written at once."""
    runs: list[tuple[int, int, list[tuple[int, bytes]]]] = []
    for addr, data in edits:
        end = addr + len(data)
        if runs and addr - runs[-1][1] <= _MAX_GAP and end - runs[-1][0] <= _MAX_RUN:
            start, before, members = runs[-1]
            members.append((addr, data))
            runs[-1] = (start, max(end, before), members)
        else:
            runs.append((addr, end, [(addr, data)]))
    return runs
