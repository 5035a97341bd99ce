"""Lay out the bytes in guest memory: record headers and the per-CPU block. Writer and reader both use this module.

Each CPU has its own *block* in guest memory. Only that CPU writes it, except for the ring's tail, which is the host's.
A slot in the kernel's own per-CPU area holds the block's address, so that code in the guest finds it with one load.

    block   header | values or table of each aggregation, in their order | scratch | ring
    header  u64 words, see HeaderWord; CostWords where clauses are measured
    dense   aggregations whose key the probe alone decides: site * value words
    table   open addressing: tag (0 = free), key words, value words
    scratch the scratch memory of one firing, see probekit.buffers.variables
    ring    records, a power of two bytes; head and tail only grow

A record is a header of 24 bytes and its clause's payload:

    u32 size (with the header, a multiple of 8)   u32 clause (PAD_CLAUSE: skip to the ring's start)
    u64 time stamp counter                        u32 site   u32 fault (0: none, else FaultKind)
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Literal, NamedTuple

from probekit.buffers.aggs import AggPlan
from probekit.records import record

__all__ = (
    "BLOCK_MAGIC",
    "FAULT_WORDS",
    "MAX_PROBES_PER_LOOKUP",
    "PAD_CLAUSE",
    "RECORD_HEADER",
    "SAMPLED_ONE_IN",
    "CostWords",
    "CpuBlockLayout",
    "DenseStore",
    "FaultKind",
    "HeaderWord",
    "Policy",
    "RawRecord",
    "TableStore",
    "plan_block",
    "read_dense",
    "read_records",
    "read_table",
    "walk_records",
)

BLOCK_MAGIC = 0x70726F62656B6974  # "probekit"
"""The first word of every block. After a reboot of the guest it is no longer there."""

RECORD_HEADER = struct.Struct("<IIQII")
"""Size, clause, time stamp counter, site, fault."""
FAULT_WORDS = struct.Struct("<QQQ")
"""The payload of a faulted clause's record: the word at fault, the action, the operation's index times 4."""

PAD_CLAUSE = 0xFFFFFFFF
"""The clause of a record that only fills the ring up to its end."""
MAX_PROBES_PER_LOOKUP = 64
"""How many entries a look-up visits before it counts a drop. It bounds the time of one firing."""

_WORD = 8
_PAGE = 4096
_DENSE_LIMIT = 4 << 20


Policy = Literal["switch", "fill", "ring"]
"""What happens when a record finds no room.

- ``switch``: the record is dropped and counted
- ``fill``: tracing ends
- ``ring``: the oldest records are dropped instead, so the guest writes the tail as well
"""


class HeaderWord(IntEnum):
    """Index of each u64 in the block's header."""

    MAGIC = 0
    """``BLOCK_MAGIC``."""
    GUARD = 1
    """Not 0 while this CPU runs a clause: 1, and the bits of its NMI count where the program calls into the kernel.

    A firing that finds it set is a recursion drop, unless the clause itself caused the firing: see
    :mod:`probekit.codegen.thunk`.
    """
    HEAD = 2
    """Bytes ever written to the ring. The guest writes it."""
    TAIL = 3
    """Bytes ever read from the ring. The host writes it."""
    PRINCIPAL_DROPS = 4
    """Records that found no room in the ring."""
    RECURSION_DROPS = 5
    """Firings that found the guard set."""
    FAULTS = 6
    """Clauses that a fault aborted."""
    DYNAMIC_DROPS = 7
    """Stores to ``self->`` variables and array elements that found no room."""
    BUSY_DROPS = 8
    """Accesses to array elements whose bucket another CPU kept locked too long."""
    SPEC_UNAVAILABLE = 9
    """Calls of ``speculation()`` that found no free speculation."""
    SPEC_BUSY = 10
    """Calls of ``speculation()`` that found no free speculation, but one that the host still has to process."""
    RANDOM = 11
    """The state of ``rand()``."""
    FILLED = 12
    """Not 0 when a record found no room and the policy is ``fill``."""
    CHILL_SINCE = 13
    """When the current interval of ``chill()`` began, by the time stamp counter."""
    CHILLED = 14
    """Ticks that ``chill()`` has waited in that interval."""
    AGG_DROPS = 15
    """The first of several words, one for each aggregation: how many data found no room in its table."""


class FaultKind(IntEnum):
    """Why a clause was aborted. The numbers are DTrace's (DTRACEFLT_*)."""

    UNKNOWN = 0
    BADADDR = 1
    BADALIGN = 2
    ILLOP = 3
    DIVZERO = 4
    NOSCRATCH = 5
    KPRIV = 6
    UPRIV = 7
    TUPOFLOW = 8
    BADSTACK = 9
    BADSIZE = 10
    BADINDEX = 11


@record
class DenseStore:
    """The values of one aggregation, one for each site; site ``s`` has its value at ``offset + s * stride``."""

    agg: int
    """The aggregation's index."""
    offset: int
    """Where the first value begins in the block."""
    words: int
    """Words of a value."""
    count: int
    """How many values there are."""
    presence: bool
    """True when each value has one more word, which is not 0 after its first datum; ``count()`` needs none."""

    @property
    def stride(self) -> int:
        """Bytes from one site's value to the next."""
        return (self.words + self.presence) * _WORD

    @property
    def size(self) -> int:
        """Bytes of the whole store."""
        return self.count * self.stride

    @property
    def single(self) -> bool:
        """True when there is one value for all sites (an aggregation without a key)."""
        return self.count == 1


@record
class TableStore:
    """The hash table of one aggregation."""

    agg: int
    """The aggregation's index."""
    offset: int
    """Where it begins in the block."""
    key_words: int
    """Words of a key."""
    words: int
    """Words of a value."""
    capacity: int
    """How many entries it has: a power of two."""

    @property
    def stride(self) -> int:
        """Bytes of an entry: its tag, key and value."""
        return (1 + self.key_words + self.words) * _WORD

    @property
    def size(self) -> int:
        """Bytes of the whole store."""
        return self.capacity * self.stride


SAMPLED_ONE_IN = 16
"""One of this many firings of a measured clause is timed, beginning with the first."""


@record
class CostWords:
    """The words in which the costs of clauses are counted. Each property is the offset of a u64 in the block."""

    offset: int
    """Where they begin in the block."""
    clauses: int
    """How many clauses there are."""

    @property
    def entries(self) -> int:
        """Counts how often clauses were called: once for all clauses of a probe."""
        return self.offset

    @property
    def spare(self) -> int:
        """A word that only calibrations increment."""
        return self.offset + _WORD

    def firings(self, clause: int) -> int:
        """Return the offset of the word that counts how often a clause has run."""
        return self.offset + (2 + 3 * clause) * _WORD

    def samples(self, clause: int) -> int:
        """Return the offset of the word that counts how many of these firings were timed."""
        return self.firings(clause) + _WORD

    def ticks(self, clause: int) -> int:
        """Return the offset of the word with the ticks of the time stamp counter in all timed firings."""
        return self.firings(clause) + 2 * _WORD

    @property
    def size(self) -> int:
        """Bytes of all these words."""
        return (2 + 3 * self.clauses) * _WORD


@record
class CpuBlockLayout:
    """Where everything is in one CPU's block. All offsets are bytes from its start."""

    size: int
    """Bytes of the block, a multiple of the page size."""
    stores: tuple[DenseStore | TableStore, ...]
    """Where the values of each aggregation are."""
    ring_offset: int
    """Where the ring begins."""
    ring_size: int
    """Bytes of the ring: a power of two, or 0 where nothing is recorded."""
    scratch_offset: int = 0
    """Where the scratch memory begins."""
    policy: Policy = "switch"
    """What happens when a record finds no room in the ring."""
    costs: CostWords | None = None
    """None where clauses are not measured."""

    @property
    def header_words(self) -> int:
        """How many words of the header are in use."""
        return HeaderWord.AGG_DROPS + len(self.stores)


class RawRecord(NamedTuple):
    """A record from a ring."""

    clause: int
    """The clause's index."""
    timestamp: int
    """The CPU's time stamp counter."""
    site: int
    """The site's number."""
    fault: int
    """0, or a :class:`FaultKind`."""
    payload: bytes
    """The fields, or :data:`FAULT_WORDS` for a fault."""


def _power_of_two_at_most(value: int) -> int:
    return 1 << (max(value, 1).bit_length() - 1)


def _plan_store(agg: AggPlan, sites: int, aggsize: int, offset: int) -> tuple[DenseStore | TableStore, int]:
    """Return the store of one aggregation, and the offset after it."""
    words = agg.words
    count = max(sites, 1) if agg.keys else 1
    dense = DenseStore(agg.index, offset, words, count, presence=agg.func != "count")
    if agg.constant_keyed and dense.size <= _DENSE_LIMIT:
        return dense, offset + dense.size
    stride = (1 + agg.key_words + words) * _WORD
    capacity = max(_power_of_two_at_most(aggsize // stride), 8)
    return (
        TableStore(agg=agg.index, offset=offset, key_words=agg.key_words, words=words, capacity=capacity),
        offset + capacity * stride,
    )


def plan_block(
    aggs: Sequence[AggPlan],
    *,
    sites: int,
    aggsize: int,
    bufsize: int,
    scratch: int = 0,
    policy: Policy = "switch",
    measured: int = 0,
) -> CpuBlockLayout:
    """Lay out one CPU's block.

    - ``sites``: how many sites the program has
    - ``aggsize``: bytes for each hashed aggregation
    - ``bufsize``: bytes of the ring, rounded down to a power of two; 0: no ring, nothing is recorded
    - ``scratch``: bytes of scratch memory
    - ``policy``: what happens when a record finds no room in the ring
    - ``measured``: how many clauses are measured
    """
    stores: list[DenseStore | TableStore] = []
    offset = (HeaderWord.AGG_DROPS + len(aggs)) * _WORD
    costs = CostWords(offset, measured) if measured else None
    offset = -(-(offset + (costs.size if costs is not None else 0)) // 64) * 64
    for agg in aggs:
        store, offset = _plan_store(agg, sites, aggsize, offset)
        stores.append(store)
        offset = -(-offset // 64) * 64
    scratch_offset = offset
    offset = -(-(offset + scratch) // 64) * 64
    ring_size = _power_of_two_at_most(bufsize) if bufsize else 0
    size = -(-(offset + ring_size) // _PAGE) * _PAGE
    return CpuBlockLayout(
        size=size,
        stores=tuple(stores),
        ring_offset=offset,
        ring_size=ring_size,
        scratch_offset=scratch_offset,
        policy=policy,
        costs=costs,
    )


def read_dense(store: DenseStore, data: bytes) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield the site and the words of each value that has had a datum. ``data``: the store's bytes."""
    row = store.stride // _WORD
    values = struct.unpack_from(f"<{store.count * row}q", data)
    if row == 1:
        for site, value in enumerate(values):
            if value:
                yield site, (value,)
        return
    for site in range(store.count):
        if values[(site + 1) * row - 1]:
            yield site, values[site * row : site * row + store.words]


def read_table(store: TableStore, data: bytes) -> Iterator[tuple[bytes, tuple[int, ...]]]:
    """Yield the key's bytes and the value's words of each entry in use. ``data``: the store's bytes."""
    key_size = store.key_words * _WORD
    unpack = struct.Struct(f"<{store.words}q").unpack_from
    for offset in range(0, store.capacity * store.stride, store.stride):
        if data[offset : offset + _WORD] != b"\0\0\0\0\0\0\0\0":
            key_at = offset + _WORD
            yield data[key_at : key_at + key_size], unpack(data, key_at + key_size)


def read_records(ring: bytes, head: int, tail: int) -> tuple[list[RawRecord], bool]:
    """Return the records between ``tail`` and ``head`` of a ring's bytes, and whether all of them made sense."""
    size = len(ring)
    if not size or not 0 <= head - tail <= size:
        return [], head == tail
    start = tail % size
    return walk_records((ring[start:] + ring[:start])[: head - tail], tail, size)


def walk_records(data: bytes, tail: int, size: int) -> tuple[list[RawRecord], bool]:
    """Return the records in ``data``, and whether all of them made sense.

    ``data``: the bytes from ``tail`` on of a ring of ``size`` bytes. The guest is not trusted: the walk ends at a size
    that is not a multiple of 8, is too small, or reaches past the end of the bytes or of the ring.
    """
    records: list[RawRecord] = []
    alike = 1
    # A tail that is not aligned could leave less than a header before the ring's end.
    if tail % _WORD or len(data) % _WORD or len(data) > size:
        return records, False
    unpack, header, end = RECORD_HEADER.unpack_from, RECORD_HEADER.size, len(data)
    at, room = 0, size - tail % size
    sizes = memoryview(data).cast("I")
    while at < end:
        if end - at < header or room < header:
            # Only a pad can be that short.
            length, clause = struct.unpack_from("<II", data, at)
            timestamp = site = fault = 0
            if clause != PAD_CLAUSE:
                return records, False
        else:
            length, clause, timestamp, site, fault = unpack(data, at)
        if length % _WORD or length < _WORD or length > room or at + length > end:
            return records, False
        if clause != PAD_CLAUSE and length < header:
            return records, False
        # Most records are as long as the one before. After several of the same length, many are taken at once.
        count = min(end - at, room, alike * length) // length
        stretch = slice(at // 4, (at + count * length) // 4, length // 4)
        if count > 1 and length >= header and sizes[stretch].tolist() == [length] * count:
            shape = struct.Struct(f"<4xIQII{length - header}s")
            many = map(RawRecord._make, shape.iter_unpack(memoryview(data)[at : at + count * length]))
            records += [found for found in many if found.clause != PAD_CLAUSE]
            alike *= 2
        else:
            count = 1
            if clause != PAD_CLAUSE:
                records.append(RawRecord(clause, timestamp, site, fault, data[at + header : at + length]))
            alike = 2 if alike == 1 else 1
        at += count * length
        room = room - count * length or size
    return records, True
