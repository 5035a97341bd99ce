"""What the guest engine's data memory holds, read: records, counters, aggregations, globals.

The memory may be live, behind stops, or a copy that was taken when probing ended
(:class:`Snapshot`): everything here works on each of them alike.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

from probekit.buffers.layout import BLOCK_MAGIC, BlockLayout, HeaderWord, RawRecord, read_records
from probekit.consumer.aggregate import stored_rows
from probekit.consumer.events import Probe
from probekit.enabling.api import Drained, Rows
from probekit.enabling.data import DataPlan
from probekit.errors import GuestError, MemoryAccessError
from probekit.guest.memory import DataMemory, PauseClock
from probekit.ir.ops import Program

__all__ = ("Blocks", "Snapshot")

_MASK = (1 << 64) - 1


class Snapshot:
    """A copy of our data memory: a :class:`probekit.guest.memory.DataMemory` that nobody else sees."""

    def __init__(self, addr: int, data: bytes) -> None:
        self._addr = addr
        self._data = bytearray(data)

    @property
    def live(self) -> bool:
        """Reading it stops nobody."""
        return True

    def read(self, addr: int, size: int) -> bytes:
        """Exactly ``size`` bytes; raises :class:`MemoryAccessError` outside the copy."""
        start = self._place(addr, size)
        return bytes(self._data[start : start + size])

    def write(self, addr: int, data: bytes) -> None:
        """Change the copy; raises :class:`MemoryAccessError` outside it."""
        start = self._place(addr, len(data))
        self._data[start : start + len(data)] = data

    def _place(self, addr: int, size: int) -> int:
        start = addr - self._addr
        if not 0 <= start <= start + size <= len(self._data):
            raise MemoryAccessError(f"{addr:#x} is not in the copy", addr=addr, size=size)
        return start


class Blocks:
    """One enabling's data memory. ``base``: its address; ``cpus``: numbers of the possible CPUs, in block order."""

    def __init__(
        self,
        memory: DataMemory,
        base: int,
        *,
        plan: DataPlan,
        layout: BlockLayout,
        program: Program,
        cpus: Sequence[int],
        probes: Mapping[int, Probe],
        clock: PauseClock,
    ) -> None:
        self.memory = memory
        self._base = base
        self._plan = plan
        self._layout = layout
        self._program = program
        self._cpus = tuple(cpus)
        self._probes = probes
        self._clock = clock
        self._globals = [v.index for v in program.variables if v.scope == "global"]
        self._corrupt = 0

    def freeze(self) -> None:
        """Go on with a copy; the guest's memory may be freed behind this."""
        with self._held():
            self.memory = Snapshot(self._base, self.memory.read(self._base, self._plan.size))

    def silence(self) -> None:
        """Set the activity word; thunks look at it before anything else."""
        self.memory.write(self._base, struct.pack("<Q", 1))

    def drain(self) -> Drained:
        """Take what is in the rings, and read the counters. Raises :class:`GuestError` when the memory is not ours."""
        records: list[tuple[int, RawRecord]] = []
        principal: dict[int, int] = {}
        recursion: dict[int, int] = {}
        aggregation: dict[int, int] = {}
        corrupt, self._corrupt = self._corrupt, 0
        with self._held():
            for index, cpu in enumerate(self._cpus):
                block = self._block(index)
                size = 8 * self._layout.header_words
                words = struct.unpack(f"<{self._layout.header_words}Q", self.memory.read(block, size))
                if words[HeaderWord.MAGIC] != BLOCK_MAGIC:
                    raise GuestError(
                        "the guest's memory of probekit is gone: it rebooted or died",
                        hint="nothing is left to restore in the new kernel; attach again",
                    )
                principal[cpu] = words[HeaderWord.PRINCIPAL_DROPS]
                recursion[cpu] = words[HeaderWord.RECURSION_DROPS]
                aggregation[cpu] = sum(words[HeaderWord.AGG_DROPS :])
                found, sound = self._take_ring(block, words[HeaderWord.HEAD], words[HeaderWord.TAIL])
                records += [(cpu, record) for record in found]
                corrupt += not sound
        return Drained(tuple(records), principal, recursion, aggregation, corrupt)

    def aggregations(self) -> dict[int, Rows]:
        """All values of all CPUs, by aggregation number."""
        raw: list[tuple[int, bytes]] = []
        with self._held():
            for index in range(len(self._cpus)):
                block = self._block(index)
                raw += [(s.agg, self.memory.read(block + s.offset, s.size)) for s in self._layout.stores]
        rows: dict[int, Rows] = {}
        for agg, data in raw:
            store, plan = self._layout.stores[agg], self._program.aggregations[agg]
            found, corrupt = stored_rows(plan, store, data, self._probes)
            rows.setdefault(agg, []).extend(found)
            self._corrupt += corrupt
        return rows

    def load(self, var: int) -> int:
        """A global's 64-bit value, unsigned."""
        return int.from_bytes(self.memory.read(self._global(var), 8), "little")

    def store(self, var: int, value: int) -> None:
        """Set a global."""
        self.memory.write(self._global(var), struct.pack("<Q", value & _MASK))

    def _global(self, var: int) -> int:
        return self._base + self._plan.variables + 8 * self._globals.index(var)

    def _block(self, index: int) -> int:
        return self._base + self._plan.block(index)

    def _held(self) -> AbstractContextManager[None]:
        """One stop for many reads, where reading stops the guest."""
        return nullcontext() if self.memory.live else self._clock.paused()

    def _take_ring(self, block: int, head: int, tail: int) -> tuple[list[RawRecord], bool]:
        """Read from tail to head and move the tail; a ring that makes no sense is emptied."""
        if head == tail:
            return [], True
        size = self._layout.ring_size
        ring = block + self._layout.ring_offset
        start, length = tail % size, min(head - tail, size) if head > tail else 0
        image = bytearray(size)
        first = min(length, size - start)
        image[start : start + first] = self.memory.read(ring + start, first)
        if length > first:
            image[: length - first] = self.memory.read(ring, length - first)
        records, sound = read_records(bytes(image), head, tail)
        self.memory.write(block + 8 * HeaderWord.TAIL, struct.pack("<Q", head))
        return records, sound
