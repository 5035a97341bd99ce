"""Read the guest engine's data memory: records, counters, aggregations, globals.

The memory may be read while the guest runs, in short stops, or as a copy that was made
when probing ended (:class:`DataSnapshot`). All functions here work with each of these.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace

from probekit.buffers.layout import BLOCK_MAGIC, CpuBlockLayout, DenseStore, HeaderWord, RawRecord, walk_records
from probekit.consumer.aggregations import stored_rows
from probekit.consumer.events import ProbeIdentity
from probekit.enabling.api import Drained, Rows
from probekit.enabling.guest_engine.data_layout import DataPlan
from probekit.enabling.guest_engine.read_times import ReadTimes
from probekit.enabling.guest_engine.variables import GuestSpeculations, GuestVariables
from probekit.errors import GuestError, InternalError, MemoryAccessError, ProbekitError, required
from probekit.guest.memory import DataMemory, PauseClock
from probekit.ir.ops import Program

__all__ = ("DataSnapshot", "ProgramData")

_MAX_TRIES = 2000
_MAX_COPY = 64 << 20  # bytes; of more no copies are kept

_MASK = (1 << 64) - 1


class DataSnapshot:
    """Holds a copy of our data memory on the host: a :class:`probekit.guest.memory.DataMemory`."""

    def __init__(self, addr: int, data: bytes) -> None:
        self._addr = addr
        self._data = bytearray(data)

    @property
    def live(self) -> bool:
        """Return True: reading the copy does not stop the guest."""
        return True

    def read(self, addr: int, size: int) -> bytes:
        """Return exactly ``size`` bytes; raises :class:`MemoryAccessError` outside the copy."""
        start = self._offset(addr, size)
        return bytes(self._data[start : start + size])

    def write(self, addr: int, data: bytes) -> None:
        """Change the copy; raises :class:`MemoryAccessError` outside it."""
        start = self._offset(addr, len(data))
        self._data[start : start + len(data)] = data

    def _offset(self, addr: int, size: int) -> int:
        start = addr - self._addr
        if not 0 <= start <= start + size <= len(self._data):
            raise MemoryAccessError(f"{addr:#x} is not in the copy", addr=addr, size=size)
        return start


class ProgramData:
    """Reads and writes the data of one program in guest memory."""

    def __init__(
        self,
        memory: DataMemory,
        base: int,
        *,
        plan: DataPlan,
        layout: CpuBlockLayout,
        program: Program,
        cpus: Sequence[int],
        probes: Mapping[int, ProbeIdentity],
        clock: PauseClock,
    ) -> None:
        """Read ``memory``, where the data is laid out by ``plan`` from address ``base`` on.

        ``cpus``: numbers of the CPUs that have a block, in order of the blocks. ``probes``: by site number.
        """
        self.memory = memory
        """Reads and writes the data; a :class:`DataSnapshot` after probing has ended."""
        self._base = base
        self._plan = plan
        self._layout = layout
        self._program = program
        self._cpus = tuple(cpus)
        self._probes = probes
        self._clock = clock
        self._corrupt = 0
        self._copies: list[tuple[float, DataSnapshot]] = []  # newest last, at most two
        self._times = ReadTimes(self._cpus)
        self.variables = GuestVariables(
            program, plan.storage, base=base, memory=lambda: self.memory, no_clause_running=self.no_clause_running
        )
        """Reads and writes strings, arrays and objects."""
        words = plan.storage.speculations
        self.speculations = (
            GuestSpeculations(words, base=base, memory=lambda: self.memory, no_clause_running=self.no_clause_running)
            if words is not None
            else None
        )
        """None when no clause in the guest uses speculations."""

    @contextmanager
    def no_clause_running(self) -> Iterator[None]:
        """Stop the guest during a ``with`` block, at a moment when no CPU is inside a clause.

        Raises :class:`GuestError` when a CPU stays inside a clause.
        """
        if self.frozen:
            yield
            return
        for _ in range(_MAX_TRIES):
            with self._clock.paused():
                if not self.cpus_in_clauses():
                    yield
                    return
            time.sleep(0.0005)
        raise GuestError("a CPU of the guest stays inside a clause")

    def freeze(self) -> None:
        """Make a copy and use it from now on. The guest's memory may be freed afterwards."""
        with self._one_pause():
            self.memory = DataSnapshot(self._base, self.memory.read(self._base, self._plan.size))

    def keep_copy(self) -> None:
        """Keep a copy in case the guest dies. Called now and then, when the guest was just seen to run.

        The copy before the newest is the good one: the guest was alive after it was made. Where a copy would need a
        stop, none is kept.
        """
        if self.memory.live and not self.frozen and self._plan.size <= _MAX_COPY:
            copy = DataSnapshot(self._base, self.memory.read(self._base, self._plan.size))
            self._copies = [*self._copies[-1:], (time.monotonic(), copy)]

    def salvage(self, *, intact: bool) -> float | None:
        """Keep what can still be read, as :meth:`freeze` does, of a guest that is gone.

        ``intact``: whether its memory is still what it was. Returns the age of the data in seconds, and 0 where it is
        the last; None where nothing is left.
        """
        if intact and not self.frozen:
            with suppress(ProbekitError):
                self.freeze()
                if self._is_ours():
                    return 0.0
        if not self._copies:
            self.memory = DataSnapshot(self._base, b"")
            return None
        taken, self.memory = self._copies[0]
        return time.monotonic() - taken

    def _is_ours(self) -> bool:
        """Return whether every CPU's block begins as a block does."""
        heads = (self.memory.read(self._block(n) + 8 * HeaderWord.MAGIC, 8) for n in range(len(self._cpus)))
        return all(int.from_bytes(head, "little") == BLOCK_MAGIC for head in heads)

    def cpus_in_clauses(self) -> list[int]:
        """Return the numbers of the CPUs that are inside a clause, as their guard words say."""
        guards = (self.memory.read(self._block(n) + 8 * HeaderWord.GUARD, 8) for n in range(len(self._cpus)))
        return [cpu for cpu, guard in zip(self._cpus, guards, strict=True) if any(guard)]

    def silence(self) -> None:
        """Set the activity word, so that every thunk returns at once."""
        self.memory.write(self._base, struct.pack("<Q", 1))

    @property
    def frozen(self) -> bool:
        """Whether probing is over, so that :attr:`memory` is a copy."""
        return isinstance(self.memory, DataSnapshot)

    def drain(self, *, take: bool = True) -> Drained:
        """Read the counters, and with ``take`` remove the records from the rings and return them.

        Rings that are read while the guest runs are read twice: the second time tells that of the records of the first
        time none is missing. Raises :class:`GuestError` when the memory is no longer ours, as after a reboot.
        """
        first = self._read_all(take)
        if not first.records or first.complete_until is None or not self.memory.live:
            return first
        second = self._read_all(take)
        return replace(
            second,
            records=first.records + second.records,
            corrupt=first.corrupt + second.corrupt,
            fill=max(first.fill, second.fill),
        )

    def _read_all(self, take: bool) -> Drained:
        """Read the header of each CPU's block, and with ``take`` its ring."""
        records: list[tuple[int, RawRecord]] = []
        newest: dict[int, int] = {}
        principal: dict[int, int] = {}
        dynamic = busy = unavailable = busy_speculations = 0
        filled = False
        fill = 0.0
        recursion: dict[int, int] = {}
        aggregation: dict[int, int] = {}
        corrupt, self._corrupt = self._corrupt, 0
        with self._one_pause():
            # Before the first ring: what begins to fire later than this is newer than what was read until now.
            inside = set(self.cpus_in_clauses()) if take and self.memory.live else set[int]()
            for index, cpu in enumerate(self._cpus):
                words = self._header(index)
                principal[cpu] = words[HeaderWord.PRINCIPAL_DROPS]
                recursion[cpu] = words[HeaderWord.RECURSION_DROPS]
                aggregation[cpu] = sum(words[HeaderWord.AGG_DROPS :])
                dynamic += words[HeaderWord.DYNAMIC_DROPS]
                busy += words[HeaderWord.BUSY_DROPS]
                unavailable += words[HeaderWord.SPEC_UNAVAILABLE]
                busy_speculations += words[HeaderWord.SPEC_BUSY]
                filled = filled or bool(words[HeaderWord.FILLED])
                used = (words[HeaderWord.HEAD] - words[HeaderWord.TAIL]) / max(self._layout.ring_size, 1)
                fill = max(fill, min(used, 1.0))
                if not take:
                    continue
                if not self.memory.live and words[HeaderWord.GUARD]:
                    inside.add(cpu)
                found, sound = self._take_ring(self._block(index), words[HeaderWord.HEAD], words[HeaderWord.TAIL])
                if found:
                    newest[cpu] = found[-1].timestamp
                records += [(cpu, record) for record in found]
                corrupt += not sound
        if take:
            self._times.note(newest, inside, paused=not self.memory.live)
        return Drained(
            tuple(records),
            principal,
            recursion,
            aggregation,
            corrupt,
            dynamic_drops=dynamic,
            busy_drops=busy,
            unavailable=unavailable,
            busy_speculations=busy_speculations,
            filled=filled,
            fill=fill,
            complete_until=None if self.frozen else self._times.complete_until,
        )

    def _header(self, index: int) -> tuple[int, ...]:
        """Return the header words of a block. Raises :class:`GuestError` when it is no longer ours."""
        count = self._layout.header_words
        words = struct.unpack(f"<{count}Q", self.memory.read(self._block(index), 8 * count))
        if words[HeaderWord.MAGIC] != BLOCK_MAGIC:
            raise GuestError(
                "probekit's memory in the guest is gone: a snapshot was loaded, or the guest rebooted or died",
                hint="nothing is left to restore in what runs now; attach again",
            )
        return words

    def aggregations(self) -> dict[int, Rows]:
        """Return all values of all CPUs, by aggregation number."""
        raw: list[tuple[int, bytes]] = []
        with self._one_pause():
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

    def cost_words(self) -> list[bytes]:
        """Return the bytes of each CPU's :class:`probekit.buffers.layout.CostWords`. The program must be measured."""
        words = required(self._layout.costs, "the layout of cost words in a measured program")
        with self._one_pause():
            blocks = (self._block(index) for index in range(len(self._cpus)))
            return [self.memory.read(block + words.offset, words.size) for block in blocks]

    def counted(self, agg: int) -> int:
        """Return the sum over all CPUs of a ``count()`` that has no key, or the probe as its key."""
        store = self._layout.stores[agg]
        if not isinstance(store, DenseStore):
            raise InternalError(f"aggregation {agg} is counted inline, but its values are in a hash table")
        with self._one_pause():
            blocks = (self._block(index) for index in range(len(self._cpus)))
            data = [self.memory.read(block + store.offset, store.size) for block in blocks]
        return sum(sum(struct.unpack(f"<{len(words) // 8}Q", words)) for words in data)

    def load(self, var: int) -> int:
        """Return a global's 64-bit value, unsigned."""
        return int.from_bytes(self.memory.read(self._global(var), 8), "little")

    def store(self, var: int, value: int) -> None:
        """Set a global, modulo 2**64."""
        self.memory.write(self._global(var), struct.pack("<Q", value & _MASK))

    def _global(self, var: int) -> int:
        return self._base + self._plan.storage.globals_[var].offset

    def _block(self, index: int) -> int:
        return self._base + self._plan.block(index)

    def _one_pause(self) -> AbstractContextManager[None]:
        """Stop the guest once for many reads, if reading needs a stop."""
        return nullcontext() if self.memory.live else self._clock.paused()

    def _take_ring(self, block: int, head: int, tail: int) -> tuple[list[RawRecord], bool]:
        """Read from tail to head and move the tail. Returns the records, and whether the whole ring was well-formed.

        A malformed ring is emptied.
        """
        if head == tail:
            return [], True
        size = self._layout.ring_size
        ring = block + self._layout.ring_offset
        records, sound = list[RawRecord](), False
        if 0 < head - tail <= size:
            start, length = tail % size, head - tail
            first = min(length, size - start)
            data = self.memory.read(ring + start, first)
            if length > first:
                data += self.memory.read(ring, length - first)
            records, sound = walk_records(data, tail, size)
        self.memory.write(block + 8 * HeaderWord.TAIL, struct.pack("<Q", head))
        return records, sound
