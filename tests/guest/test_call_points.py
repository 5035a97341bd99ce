"""Where a kernel function may be called: safe points with a known pad, and landings by chance."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from probekit.errors import GuestError
from probekit.guest.call_points import LANDING, PADS, find_landings, safe_point_candidates, unchanged_landing

START, CHUNK = 0xFFFFFFFF81000000, 256 << 10


def test_landings_are_found_in_chunks_and_only_the_first_few() -> None:
    text = bytearray(b"\x90" * (3 * CHUNK))
    places = [5, 5 + 2, 1000, CHUNK + 1, 2 * CHUNK + 8]
    for place in places:
        text[place : place + 2] = LANDING
    text[CHUNK - 1 : CHUNK + 1] = LANDING  # over the border of two chunks: not seen
    reads: list[tuple[int, int]] = []

    def read(addr: int, size: int) -> bytes:
        reads.append((addr, size))
        return bytes(text[addr - START : addr - START + size])

    assert find_landings(read, START, START + len(text)) == tuple(START + place for place in places)
    assert reads == [(START + n * CHUNK, CHUNK) for n in range(3)]
    assert find_landings(read, START, START + 6) == (), "the second byte lies behind the end"
    assert len(find_landings(lambda addr, size: LANDING * (size // 2), START, START + 10 * CHUNK)) == 8


def test_only_functions_that_begin_with_a_pad_are_safe_points() -> None:
    symbols = {
        "x64_sys_call": 0x1000,
        "__x64_sys_read": 0x2000,
        "__x64_sys_write": 0x3000,
        "vmstat_update": 0x4000,
        "extfrag_for_order": 0x5000,
    }
    code = {
        0x1000: b"\xf3\x0f\x1e\xfa\x55",  # endbr64; push rbp
        0x2000: b"\x0f\x1f\x44\x00\x00",  # nop dword ptr [rax + rax]
        0x3000: b"\xe8\x11\x22\x33\x44",  # call: somebody traces it
        0x5000: b"\x66\x0f\x1f\x00\x0f",  # nop word ptr [rax]: a sealed endbr64
    }

    def read_many(ranges: Sequence[tuple[int, int]]) -> list[bytes | None]:
        assert all(size == 5 for _, size in ranges)
        return [code.get(addr) for addr, _ in ranges]

    assert safe_point_candidates(symbols.get, read_many) == {0x1000: 4, 0x2000: 5, 0x5000: 4}
    assert safe_point_candidates({}.get, read_many) == {}
    assert all(len(pad) == size for pad, size in PADS.items())


def test_a_landing_that_a_probe_has_changed_is_passed_over() -> None:
    code = {0x1000: b"\xe9\x00", 0x2000: None, 0x3000: LANDING, 0x4000: LANDING}

    def read_many(ranges: Sequence[tuple[int, int]]) -> list[bytes | None]:
        return [code[addr] for addr, _ in ranges]

    assert unchanged_landing(read_many, tuple(code)) == 0x3000
    with pytest.raises(GuestError, match="was changed"):
        unchanged_landing(read_many, (0x1000, 0x2000))
