"""The layout of a CPU's block, and the readers of its stores and ring, whatever the guest left there."""

from __future__ import annotations

import struct
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from probekit.buffers.aggs import AggPlan, KeyPart
from probekit.buffers.layout import (
    PAD_CLAUSE,
    RECORD_HEADER,
    CostWords,
    DenseStore,
    HeaderWord,
    RawRecord,
    TableStore,
    plan_block,
    read_dense,
    read_records,
    read_table,
    walk_records,
)


def record(payload: bytes, *, clause: int = 0) -> bytes:
    return RECORD_HEADER.pack(RECORD_HEADER.size + len(payload), clause, 7, 3, 0) + payload


def test_pads_between_records_are_skipped() -> None:
    ring = record(b"a" * 8) + record(b"", clause=PAD_CLAUSE) + record(b"", clause=1)
    found, sound = read_records(ring.ljust(128, b"\0"), len(ring), 0)
    assert found == [RawRecord(0, 7, 3, 0, b"a" * 8), RawRecord(1, 7, 3, 0, b"")]
    assert sound


def test_a_walk_ends_at_the_first_record_that_makes_no_sense() -> None:
    good = record(b"")
    for bad in (bytes(24), record(b"")[:20] + b"\0" * 4 + b"x" * 3, b"\x07" + bytes(23), b"\xff" * 24):
        ring = good + bad
        assert len(read_records(ring.ljust(64, b"\0"), 64, 0)[0]) >= 1
    assert read_records(good + bytes(40), 64, 0) == ([RawRecord(0, 7, 3, 0, b"")], False)


def test_positions_outside_the_ring_give_no_records() -> None:
    assert read_records(bytes(64), 65 + 64, 0) == ([], False)
    assert read_records(bytes(64), 0, 8) == ([], False)
    assert read_records(bytes(64), 70, 62) == ([], False)
    assert read_records(bytes(64), 8, 8) == ([], True)


@given(ring=st.binary(min_size=64, max_size=64), head=st.integers(0, 200), tail=st.integers(0, 200))
def test_no_ring_makes_the_reader_raise(ring: bytes, head: int, tail: int) -> None:
    records, _ = read_records(ring, head, tail)
    assert sum(RECORD_HEADER.size + len(r.payload) for r in records) <= len(ring)


@given(
    sizes=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9), st.booleans()), max_size=12),
    start=st.integers(0, 50),
    broken=st.one_of(st.none(), st.integers(0, 600)),
)
def test_many_alike_are_what_each_of_them_is(
    sizes: list[tuple[int, int, bool]], start: int, broken: int | None
) -> None:
    """Stretches of equal records, of others, and pads between; with a byte changed the two ways agree as well."""
    pieces = [record(bytes(8 * n), clause=PAD_CLAUSE if pad else n) for n, times, pad in sizes for _ in range(times)]
    data = bytearray(b"".join(pieces))
    if broken is not None and broken < len(data):
        data[broken] ^= 0x18
    size = 1 << 14
    whole = walk_records(bytes(data), 8 * start, size)
    assert whole == one_by_one(bytes(data))
    if broken is None:
        assert whole == ([r for r in whole[0] if r.clause != PAD_CLAUSE], True)
        assert len(whole[0]) == sum(times for _, times, pad in sizes if not pad)


def one_by_one(data: bytes) -> tuple[list[RawRecord], bool]:
    """The plainest reader there is, of data that do not wrap."""
    found, at = list[RawRecord](), 0
    while at < len(data):
        if len(data) - at < RECORD_HEADER.size:
            length, clause = struct.unpack_from("<II", data, at)
            head = (length, clause, 0, 0, 0)
        else:
            head = RECORD_HEADER.unpack_from(data, at)
        length, clause, *more = head
        least = 8 if clause == PAD_CLAUSE else RECORD_HEADER.size
        if length % 8 or length < least or at + length > len(data) or (len(data) - at < 24 and clause != PAD_CLAUSE):
            return found, False
        if clause != PAD_CLAUSE:
            found.append(RawRecord(clause, *more, data[at + RECORD_HEADER.size : at + length]))
        at += length
    return found, True


COUNT = AggPlan(0, "c", "count", ())
BY_PROBE = AggPlan(1, "p", "sum", (KeyPart("probe"),))
BY_NAME = AggPlan(2, "n", "avg", (KeyPart("string", size=16),))


def test_the_parts_of_a_block_follow_one_another_without_overlap() -> None:
    block = plan_block((COUNT, BY_PROBE, BY_NAME), sites=5, aggsize=1000, bufsize=5000, scratch=100, measured=2)
    costs = block.costs
    assert costs is not None
    places = [(0, 8 * block.header_words), (costs.offset, costs.size)]
    places += [(store.offset, store.size) for store in block.stores]
    places += [(block.scratch_offset, 100), (block.ring_offset, block.ring_size)]
    for (offset, size), (following, _) in pairwise(places):
        assert offset + size <= following
    assert block.ring_offset + block.ring_size <= block.size
    assert block.size % 4096 == 0


def test_the_ring_is_a_power_of_two_and_may_be_absent() -> None:
    assert plan_block((), sites=1, aggsize=0, bufsize=5000).ring_size == 4096
    assert plan_block((), sites=1, aggsize=0, bufsize=0).ring_size == 0


def test_each_aggregation_has_its_word_of_drops_in_the_header() -> None:
    block = plan_block((COUNT, BY_NAME), sites=1, aggsize=1000, bufsize=0)
    assert block.header_words == HeaderWord.AGG_DROPS + 2


def test_only_a_key_of_the_probe_alone_is_stored_without_hashing() -> None:
    one, row, table = plan_block((COUNT, BY_PROBE, BY_NAME), sites=5, aggsize=1000, bufsize=0).stores
    assert isinstance(one, DenseStore)
    assert one.single
    assert not one.presence
    assert isinstance(row, DenseStore)
    assert (row.count, row.stride) == (5, 16)
    assert isinstance(table, TableStore)
    assert (table.stride, table.capacity) == (8 * (1 + 2 + 2), 16)


def test_a_row_of_values_too_large_for_each_site_is_hashed() -> None:
    plan = AggPlan(0, "q", "quantize", (KeyPart("probe"),))
    (store,) = plan_block((plan,), sites=100_000, aggsize=1 << 16, bufsize=0).stores
    assert isinstance(store, TableStore)


def test_a_table_has_at_least_eight_entries() -> None:
    (store,) = plan_block((BY_NAME,), sites=1, aggsize=1, bufsize=0).stores
    assert isinstance(store, TableStore)
    assert store.capacity == 8


def test_the_words_of_costs_do_not_overlap() -> None:
    costs = CostWords(offset=128, clauses=3)
    words = [costs.entries, costs.spare]
    words += [word(n) for n in range(3) for word in (costs.firings, costs.samples, costs.ticks)]
    assert words == list(range(128, 128 + costs.size, 8))


def test_a_dense_count_of_zero_has_had_no_datum() -> None:
    store = DenseStore(agg=0, offset=0, words=1, count=3, presence=False)
    assert list(read_dense(store, struct.pack("<3q", 4, 0, -1))) == [(0, (4,)), (2, (-1,))]


def test_a_dense_sum_of_zero_is_told_from_none_by_its_presence_word() -> None:
    store = DenseStore(agg=0, offset=0, words=1, count=2, presence=True)
    assert list(read_dense(store, struct.pack("<4q", 0, 1, 0, 0))) == [(0, (0,))]


def test_the_entries_of_a_table_that_are_in_use_are_those_with_a_tag() -> None:
    store = TableStore(agg=0, offset=0, key_words=1, words=2, capacity=2)
    used = struct.pack("<Q8sqq", 99, b"sh", 5, -6)
    assert list(read_table(store, bytes(store.stride) + used)) == [(b"sh".ljust(8, b"\0"), (5, -6))]
