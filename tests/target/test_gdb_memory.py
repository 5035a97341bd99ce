"""Memory through gdb: ranges are cut and joined, and one that gdb refuses is the only one without bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_gdb import ScriptedGdb

from probekit.errors import Cancelled, MemoryAccessError
from probekit.interruption import interruptible
from probekit.target.gdb_memory import read_ranges, write_edits

_START, _SIZE = 0x1000, 0x9000


def _content(addr: int, size: int) -> bytes:
    return bytes((at * 7 + at // 256) & 0xFF for at in range(addr, addr + size))


def _memory(text: str) -> dict[str, object] | str:
    """Answer a read as gdb does: what is not wholly there is refused."""
    addr, size = int(text.split()[1], 16), int(text.split()[2])
    if not _START <= addr <= addr + size <= _START + _SIZE:
        return "Unable to read memory."
    block = {"begin": f"{addr:#018x}", "offset": "0x0", "end": f"{addr + size:#x}"}
    return {"memory": [{**block, "contents": _content(addr, size).hex()}]}


@given(st.lists(st.tuples(st.integers(0, 0xB000), st.integers(0, 0x9000)), max_size=6))
def test_each_range_has_its_own_bytes_or_none(ranges: list[tuple[int, int]]) -> None:
    gdb = ScriptedGdb({"-data-read-memory-bytes": _memory})
    expected = [
        _content(addr, size) if not size or _START <= addr <= addr + size <= _START + _SIZE else None
        for addr, size in ranges
    ]
    assert read_ranges(gdb, ranges) == expected
    assert all(int(text.split()[2]) <= 0x4000 for text in gdb.sent)


@pytest.mark.parametrize(
    "blocks",
    [
        [],
        [{"begin": "0x2000", "contents": "00000000"}],
        [{"begin": "0x1000", "contents": "0000"}],
        [{"begin": "0x1000", "contents": "0000"}, {"begin": "0x1002", "contents": "0000"}],
    ],
    ids=["nothing", "elsewhere", "short", "in parts"],
)
def test_an_answer_that_is_not_the_whole_range_is_no_memory(blocks: list[dict[str, str]]) -> None:
    assert read_ranges(ScriptedGdb({"-data-read-memory-bytes": {"memory": blocks}}), [(0x1000, 4)]) == [None]


def test_all_writes_are_tried_and_the_first_refused_one_is_raised() -> None:
    gdb = ScriptedGdb({"-data-write-memory-bytes 0x9": "Could not write memory", "-data-write-memory-bytes 0xa": "no"})
    with pytest.raises(MemoryAccessError, match="Could not write") as caught:
        write_edits(gdb, [(0x1000, b"\x01\x02"), (0x9000, b"\x03"), (0xA000, b"\x04"), (0x2000, b"\x05")])
    assert (caught.value.addr, caught.value.size) == (0x9000, 1)
    assert [text.split()[1:] for text in gdb.sent] == [
        ["0x1000", "0102"], ["0x9000", "03"], ["0xa000", "04"], ["0x2000", "05"],
    ]  # fmt: skip


def test_a_long_write_goes_in_pieces_that_cover_it() -> None:
    gdb = ScriptedGdb()
    data = _content(0x1000, 0x2801)
    write_edits(gdb, [(0x1000, data)])
    pieces = [(int(addr, 16), bytes.fromhex(text)) for _, addr, text in map(str.split, gdb.sent)]
    assert b"".join(piece for _, piece in pieces) == data
    assert [addr for addr, _ in pieces] == [0x1000, 0x2000, 0x3000]


def test_many_reads_are_given_up_when_the_user_wants_to_stop() -> None:
    gdb = ScriptedGdb({"-data-read-memory-bytes": _memory})
    with pytest.raises(Cancelled), interruptible(lambda: bool(gdb.sent)):
        read_ranges(gdb, [(_START, 8)] * 10_000)
    assert 0 < len(gdb.sent) < 1000
