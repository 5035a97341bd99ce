"""A journal's records as bytes: edits that contradict themselves are refused, and a file says where its records end."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probekit.patch.edits import Edit
from probekit.patch.journal_records import (
    MAGIC,
    MAGIC_V1,
    Kind,
    RecordError,
    decode_edits,
    edits_size,
    encode_edits,
    encode_record,
    first_record,
    read_records,
)

TOP = 1 << 64


@st.composite
def _edits(draw: st.DrawFn) -> list[Edit]:
    """Edits that do not overlap, in any order."""
    at, found = draw(st.integers(0, 1 << 40)), []
    for size in draw(st.lists(st.integers(1, 16), max_size=6)):
        found.append(
            Edit(at, draw(st.binary(min_size=size, max_size=size)), draw(st.binary(min_size=size, max_size=size)))
        )
        at += size + draw(st.integers(0, 100))
    return draw(st.permutations(found))


@given(edits=_edits())
def test_edits_are_read_back(edits: list[Edit]) -> None:
    data = encode_edits(edits)
    assert decode_edits(data) == tuple(edits)
    assert len(encode_record(Kind.EDITS, data)) == edits_size([edit.old for edit in edits])


@settings(max_examples=300)
@given(data=st.binary(max_size=80), count=st.integers(0, 4))
def test_edits_of_any_bytes(data: bytes, count: int) -> None:
    try:
        edits = decode_edits(struct.pack("<I", count) + data)
    except RecordError:
        return
    assert encode_edits(edits) == struct.pack("<I", count) + data


@pytest.mark.parametrize(
    ("edits", "why"),
    [
        ([Edit(8, b"", b"")], "0 old bytes"),
        ([Edit(8, b"ab", b"cd"), Edit(9, b"a", b"b")], "overlaps"),
        ([Edit(9, b"a", b"b"), Edit(8, b"ab", b"cd")], "overlaps"),
        ([Edit(8, b"a", b"b")] * 2, "overlaps"),
        ([Edit(TOP - 1, b"ab", b"cd")], "beyond the end of memory"),
    ],
)
def test_edits_that_cannot_be(edits: list[Edit], why: str) -> None:
    with pytest.raises(RecordError, match=why):
        decode_edits(encode_edits(edits))


def test_the_last_byte_of_memory_may_be_edited() -> None:
    edits = [Edit(TOP - 2, b"ab", b"cd")]
    assert decode_edits(encode_edits(edits)) == tuple(edits)


@pytest.mark.parametrize("magic", [MAGIC, MAGIC_V1])
def test_where_a_file_ends(magic: bytes) -> None:
    first, second = encode_record(Kind.HEADER, b"{}"), encode_record(Kind.NOTE, b"more")
    found = read_records(magic + first + second + bytes(100))
    assert (found.magic, found.torn, found.size) == (magic, False, len(magic + first + second))
    assert [item.payload for item in found.records] == [b"{}", b"more"]
    torn = read_records(magic + first + second[:-1])
    assert (torn.torn, torn.size, len(torn.records)) == (True, len(magic + first), 1)
    assert first_record(magic + first + b"whatever").kind == Kind.HEADER


@pytest.mark.parametrize("data", [b"", b"PKJL", MAGIC.replace(b"\x02", b"\x03"), MAGIC.replace(b"\r\n", b"\n")])
def test_no_format_of_ours(data: bytes) -> None:
    with pytest.raises(RecordError, match="does not begin like a journal"):
        read_records(data + bytes(20))
