"""The bytes in guest memory: record headers and the per-CPU block. Writer and reader both start here.

Each CPU owns one *block* in guest memory; nobody else writes it but for the
ring's tail, which is the host's. A slot in the kernel's own per-CPU area holds
the block's address, so that in-guest code finds it with one load.

    block   header | dense values | hashed tables | ring
    header  u64 words, see HeaderWord
    dense   aggregations whose key the probe alone decides: site * value words
    table   open addressing: tag (0 = free), key words, value words
    ring    records, a power of two bytes; head and tail only grow

A record is a header of 24 bytes and its clause's payload:

    u32 size (with the header, a multiple of 8)   u32 clause (PAD_CLAUSE: skip to the ring's start)
    u64 time stamp counter                        u32 site   u32 fault (0: none, else Fault)
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

from probekit.buffers.aggs import AggPlan

__all__ = (
    "BLOCK_MAGIC",
    "MAX_PROBES_PER_LOOKUP",
    "PAD_CLAUSE",
    "RECORD_HEADER",
    "BlockLayout",
    "DenseStore",
    "FaultKind",
    "HeaderWord",
    "RawRecord",
    "TableStore",
    "plan_block",
    "read_dense",
    "read_records",
    "read_table",
)

BLOCK_MAGIC = 0x70726F62656B6974  # "probekit": tells a live block from memory that a reboot has swept
RECORD_HEADER = struct.Struct("<IIQII")
PAD_CLAUSE = 0xFFFFFFFF
MAX_PROBES_PER_LOOKUP = 64
"""How many entries a lookup visits before it counts a drop: bounds the time of one firing."""

_WORD = 8
_PAGE = 4096
_DENSE_LIMIT = 4 << 20


class HeaderWord(IntEnum):
    """Index of each u64 in the block's header."""

    MAGIC = 0
    GUARD = 1
    """1 while this CPU runs a clause; a firing that finds it set is a recursion drop."""
    HEAD = 2
    """Bytes ever written to the ring. Guest writes."""
    TAIL = 3
    """Bytes ever read from it. Host writes."""
    PRINCIPAL_DROPS = 4
    RECURSION_DROPS = 5
    FAULTS = 6
    AGG_DROPS = 7
    """First of one word for each aggregation."""


class FaultKind(IntEnum):
    """Why a clause was aborted, DTrace's numbering (DTRACEFLT_*)."""

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


@dataclass(frozen=True, slots=True)
class DenseStore:
    """Values of one aggregation in a row: site ``s`` is at ``offset + s * stride`` (one value if ``single``).

    ``presence``: a last word of each value is not 0 once it has had a datum; a ``count()`` needs none.
    """

    agg: int
    offset: int
    words: int
    count: int
    presence: bool

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


@dataclass(frozen=True, slots=True)
class TableStore:
    """One aggregation's hash table: ``capacity`` (a power of two) entries of ``stride`` bytes at ``offset``."""

    agg: int
    offset: int
    key_words: int
    words: int
    capacity: int

    @property
    def stride(self) -> int:
        """Bytes of an entry: tag, key, value."""
        return (1 + self.key_words + self.words) * _WORD

    @property
    def size(self) -> int:
        """Bytes of the whole store."""
        return self.capacity * self.stride


@dataclass(frozen=True, slots=True)
class BlockLayout:
    """Where everything is in one CPU's block; all offsets are bytes from its start."""

    size: int
    stores: tuple[DenseStore | TableStore, ...]
    ring_offset: int
    ring_size: int

    @property
    def header_words(self) -> int:
        """Words of the header in use."""
        return HeaderWord.AGG_DROPS + len(self.stores)


@dataclass(frozen=True, slots=True)
class RawRecord:
    """One record out of a ring. ``timestamp``: the CPU's time stamp counter; ``fault``: 0 or a FaultKind."""

    clause: int
    timestamp: int
    site: int
    fault: int
    payload: bytes


def _power_of_two_at_most(value: int) -> int:
    return 1 << (max(value, 1).bit_length() - 1)


def _store(agg: AggPlan, sites: int, aggsize: int, offset: int) -> tuple[DenseStore | TableStore, int]:
    """The store of one aggregation and the offset behind it."""
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


def plan_block(aggs: Sequence[AggPlan], *, sites: int, aggsize: int, bufsize: int) -> BlockLayout:
    """Lay out one CPU's block.

    ``sites``: how many probes the program has; ``aggsize``: bytes for each hashed aggregation;
    ``bufsize``: bytes of the ring, rounded down to a power of two (0: no ring, nothing is recorded).
    """
    stores: list[DenseStore | TableStore] = []
    offset = -(-(HeaderWord.AGG_DROPS + len(aggs)) * _WORD // 64) * 64
    for agg in aggs:
        store, offset = _store(agg, sites, aggsize, offset)
        stores.append(store)
        offset = -(-offset // 64) * 64
    ring_size = _power_of_two_at_most(bufsize) if bufsize else 0
    size = -(-(offset + ring_size) // _PAGE) * _PAGE
    return BlockLayout(size=size, stores=tuple(stores), ring_offset=offset, ring_size=ring_size)


def read_dense(store: DenseStore, data: bytes) -> Iterator[tuple[int, tuple[int, ...]]]:
    """``(site, words)`` of each value that has had a datum. ``data``: the store's own bytes."""
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
    """``(key bytes, words)`` of each entry in use. ``data``: the store's own bytes, whatever the guest left there."""
    key_size = store.key_words * _WORD
    unpack = struct.Struct(f"<{store.words}q").unpack_from
    for offset in range(0, store.capacity * store.stride, store.stride):
        if data[offset : offset + _WORD] != b"\0\0\0\0\0\0\0\0":
            key_at = offset + _WORD
            yield data[key_at : key_at + key_size], unpack(data, key_at + key_size)


def read_records(ring: bytes, head: int, tail: int) -> tuple[list[RawRecord], bool]:
    """The records between ``tail`` and ``head`` of a ring's bytes, and whether all of it made sense.

    The guest is untrusted: a size that is not a multiple of 8, too small or past the head ends the walk.
    """
    size = len(ring)
    records: list[RawRecord] = []
    # A tail that is not aligned could leave less than a header before the ring's end.
    if not 0 <= head - tail <= size or tail % _WORD:
        return records, head == tail
    while tail < head:
        at = tail % size
        length, clause = struct.unpack_from("<II", ring, at)
        if length % _WORD or length < _WORD or at + length > size or tail + length > head:
            return records, False
        if clause != PAD_CLAUSE:
            if length < RECORD_HEADER.size:
                return records, False
            _, _, timestamp, site, fault = RECORD_HEADER.unpack_from(ring, at)
            payload = ring[at + RECORD_HEADER.size : at + length]
            records.append(RawRecord(clause, timestamp, site, fault, payload))
        tail += length
    return records, True
