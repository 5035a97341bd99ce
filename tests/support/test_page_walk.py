"""Page tables walked by hand."""

from __future__ import annotations

import struct

import pytest

from probekit.kernel.page_tables import FLAG_NX, FLAG_PRESENT, FLAG_USER, FLAG_WRITE
from tests.support.page_walk import walk

_PS = 1 << 7
_VA = 0xFFFFFFFF81203456
_ALL = FLAG_PRESENT | FLAG_WRITE | FLAG_USER


class _Tables:
    """Physical memory of page tables: entries by address, 0 elsewhere."""

    def __init__(self, *entries: tuple[int, int]) -> None:
        self.entries = dict(entries)

    def __call__(self, addr: int, size: int) -> bytes:
        assert size == 8
        return struct.pack("<Q", self.entries.get(addr, 0))


def _index(shift: int) -> int:
    return 8 * (_VA >> shift & 511)


def _four(last: int, *, upper: int = _ALL) -> _Tables:
    return _Tables(
        (0x1000 + _index(39), 0x2000 | upper),
        (0x2000 + _index(30), 0x3000 | _ALL),
        (0x3000 + _index(21), 0x4000 | _ALL),
        (0x4000 + _index(12), last),
    )


def test_four_levels_lead_to_a_small_page() -> None:
    assert walk(_four(0x9000 | _ALL), 0x1000, _VA) == (0x9456, 4096, _ALL)


def test_five_levels_begin_one_table_higher() -> None:
    tables = _four(0x9000 | _ALL)
    tables.entries[0x8000 + 8 * 511] = 0x1000 | _ALL
    assert walk(tables, 0x8000, _VA, la57=True) == (0x9456, 4096, _ALL)


def test_a_large_page_ends_the_walk_early() -> None:
    two = _Tables((0x1000 + _index(39), 0x2001), (0x2000 + _index(30), 0x3001), (0x3000 + _index(21), 0x40000001 | _PS))
    assert walk(two, 0x1000, _VA) == (0x40000000 | _VA & 0x1FFFFF, 2 << 20, FLAG_PRESENT)
    giant = _Tables((0x1000 + _index(39), 0x2001), (0x2000 + _index(30), 0x80000001 | _PS))
    assert walk(giant, 0x1000, _VA) == (0x80000000 | _VA & 0x3FFFFFFF, 1 << 30, FLAG_PRESENT)


def test_writing_needs_every_level_and_no_execute_only_one() -> None:
    found = walk(_four(0x9000 | _ALL, upper=FLAG_PRESENT | FLAG_NX), 0x1000, _VA)
    assert found is not None
    assert found[2] == FLAG_PRESENT | FLAG_NX


def test_an_entry_that_is_not_present_maps_nothing() -> None:
    assert walk(_four(0x9000), 0x1000, _VA) is None


@pytest.mark.parametrize("va", [-1, 1 << 64, 1 << 47, 0xFFFF_7FFF_FFFF_FFFF])
def test_an_address_that_is_not_canonical_is_never_looked_up(va: int) -> None:
    def forbidden(addr: int, size: int) -> bytes:
        raise AssertionError((addr, size))

    assert walk(forbidden, 0x1000, va) is None


def test_the_low_bits_of_cr3_are_flags() -> None:
    assert walk(_four(0x9000 | _ALL), 0x1000 | 0xFFF | 1 << 63, _VA) == (0x9456, 4096, _ALL)
