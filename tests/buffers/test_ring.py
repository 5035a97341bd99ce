"""The ring's reader, whatever the guest left in the ring."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from probekit.buffers.layout import PAD_CLAUSE, RECORD_HEADER, RawRecord, read_records, walk_records


def record(payload: bytes, *, clause: int = 0) -> bytes:
    return RECORD_HEADER.pack(RECORD_HEADER.size + len(payload), clause, 7, 3, 0) + payload


def test_records_and_padding() -> None:
    ring = record(b"a" * 8) + record(b"", clause=PAD_CLAUSE) + record(b"", clause=1)
    found, sound = read_records(ring.ljust(128, b"\0"), len(ring), 0)
    assert found == [RawRecord(0, 7, 3, 0, b"a" * 8), RawRecord(1, 7, 3, 0, b"")]
    assert sound


def test_a_walk_ends_where_it_makes_no_sense() -> None:
    good = record(b"")
    for bad in (bytes(24), record(b"")[:20] + b"\0" * 4 + b"x" * 3, b"\x07" + bytes(23), b"\xff" * 24):
        ring = good + bad
        assert len(read_records(ring.ljust(64, b"\0"), 64, 0)[0]) >= 1
    assert read_records(good + bytes(40), 64, 0) == ([RawRecord(0, 7, 3, 0, b"")], False)


def test_positions_that_make_no_sense() -> None:
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
