"""The ring's reader, whatever the guest left in the ring."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from probekit.buffers.layout import PAD_CLAUSE, RECORD_HEADER, RawRecord, read_records


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
