"""The first bytes of executable memory, which say where the journal's copy is."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probekit.patch.recovery_table import HEADER_SIZE, MAX_TABLE, NO_HEADER, header, read_header

_ADDR = 0xFFFF888000001000


def test_a_header_leads_back_to_the_bytes_that_it_was_made_of() -> None:
    written = header(_ADDR, b"journal")
    found = read_header(written + bytes(4096 - len(written)))
    assert found is not None
    assert (found.addr, found.size) == (_ADDR, 7)
    assert found.fits(b"journal")
    assert not found.fits(b"journaL")
    assert not found.fits(b"journal\0")


def test_a_wiped_page_has_no_header() -> None:
    assert len(NO_HEADER) == HEADER_SIZE
    assert read_header(NO_HEADER) is None


@pytest.mark.parametrize(("addr", "size"), [(0x1000, 7), (_ADDR, 0), (_ADDR, MAX_TABLE + 1)])
def test_a_forged_header_outside_the_kernel_or_of_no_plausible_size_is_none(addr: int, size: int) -> None:
    forged = bytearray(header(_ADDR, b"journal"))
    struct.pack_into("<QI", forged, 16, addr, size)
    assert read_header(bytes(forged)) is None


@given(st.binary(max_size=2 * HEADER_SIZE))
def test_other_bytes_are_no_header(page: bytes) -> None:
    assert read_header(page) is None
    assert read_header(header(_ADDR, b"journal")[: HEADER_SIZE - 1]) is None
