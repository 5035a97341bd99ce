"""Small writes made as large ones change exactly the same bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probekit.errors import MemoryAccessError
from probekit.patch.merged_writes import MergedWrites
from tests.support.fake_target import FakeTarget

BASE = 0x1000
SIZE = 0x4000


@given(st.dictionaries(st.integers(0, SIZE - 8), st.binary(min_size=1, max_size=8), max_size=60))
def test_the_same_bytes(writes: dict[int, bytes]) -> None:
    before = bytes(n * 7 & 0xFF for n in range(SIZE))
    plain, merged = (FakeTarget({BASE: bytearray(before)}) for _ in range(2))
    edits: list[tuple[int, bytes]] = []
    end = 0
    for addr, data in sorted(writes.items()):
        if addr >= end:  # edits do not overlap
            edits.append((BASE + addr, data))
            end = addr + len(data)
    plain.write_many(edits)
    MergedWrites(merged).write_many(reversed(edits))
    assert plain.memory == merged.memory
    assert len(merged.written) <= len(plain.written)


def test_neighbours_are_one_write() -> None:
    target = FakeTarget({BASE: bytearray(SIZE)})
    MergedWrites(target).write_many([(BASE + 50 * n, b"\x01") for n in range(100)] + [(BASE + 0x3000, b"\x02")])
    assert len(target.written) == 3
    assert target.memory[BASE][::50].count(1) == 100 and target.memory[BASE][0x3000] == 2


def test_nothing_is_written_where_a_part_is_unreadable() -> None:
    target = FakeTarget({BASE: bytearray(SIZE)})
    with pytest.raises(MemoryAccessError):
        MergedWrites(target).write_many([(BASE, b"\x01"), (BASE + SIZE, b"\x01")])
    assert target.written == []
