"""Page table walks: large pages, permissions, five levels, holes; and roots out of CR3."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest

from probekit.kernel.page_tables import (
    FLAG_NX,
    FLAG_PRESENT,
    FLAG_USER,
    FLAG_WRITE,
    Leaf,
    PageTableRoot,
    mapped_pages,
    root_candidates,
    walk_many,
)
from probekit.target.api import Regs
from tests.support.page_walk import walk

VA = 0xFFFFFFFF_81001123
FOUR_LEVELS = {0x1FF8: 0x2067, 0x2FF0: 0x3067, 0x3040: 0x4067, 0x4008: FLAG_NX | 0xABC061}
TWO_MIB = {**FOUR_LEVELS, 0x3040: 0x12E000E7}
ONE_GIB = {**FOUR_LEVELS, 0x2FF0: 0x400000E7}
FIVE_LEVELS = {0x1FF8: 0x5067, 0x5FF8: 0x2067, 0x2FF0: 0x3067, 0x3040: 0x4067, 0x4008: 0xABC061}


class _Physical:
    """Physical memory from 0 on with these 8-byte entries, the top table at 0x1000."""

    def __init__(self, entries: dict[int, int]) -> None:
        self.data = bytearray(0x8000)
        for addr, value in entries.items():
            struct.pack_into("<Q", self.data, addr, value)

    def read(self, addr: int, size: int) -> bytes:
        return bytes(self.data[addr : addr + size])

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]:
        return [self.read(*item) if sum(item) <= len(self.data) else None for item in ranges]


def _walk(entries: dict[int, int], va: int, levels: int = 4) -> Leaf | None:
    return walk_many(_Physical(entries), PageTableRoot(0x1000, levels), [va])[va]


@pytest.mark.parametrize(
    ("entries", "levels", "found"),
    [
        (FOUR_LEVELS, 4, Leaf(0xABC123, FLAG_PRESENT | FLAG_NX)),
        (TWO_MIB, 4, Leaf(0x12E01123, FLAG_PRESENT | FLAG_WRITE | FLAG_USER)),
        (ONE_GIB, 4, Leaf(0x41001123, FLAG_PRESENT | FLAG_WRITE | FLAG_USER)),
        (FIVE_LEVELS, 5, Leaf(0xABC123, FLAG_PRESENT)),
    ],
)
def test_a_walk_and_the_plain_walker_agree(entries: dict[int, int], levels: int, found: Leaf) -> None:
    physical = _Physical(entries)
    assert _walk(entries, VA, levels) == found
    plain = walk(physical.read, 0x1018, VA, levels == 5)
    assert plain is not None and (plain[0], plain[2]) == found


@pytest.mark.parametrize("hole", FOUR_LEVELS)
def test_nothing_is_mapped_where_an_entry_is_not_present(hole: int) -> None:
    entries = {**FOUR_LEVELS, hole: FOUR_LEVELS[hole] & ~1}
    assert _walk(entries, VA) is None is walk(_Physical(entries).read, 0x1018, VA)


def test_a_table_that_cannot_be_read_is_empty() -> None:
    assert _walk({**FOUR_LEVELS, 0x3040: 0x999067}, VA) is None


def test_addresses_that_are_none() -> None:
    """The plain walker's own."""
    read = _Physical(FIVE_LEVELS).read
    for bad in (0x0000_8000_0000_0000, -1, 1 << 64):
        assert walk(read, 0x1018, bad) is None
    assert walk(read, 0x1018, 0x0100_0000_0000_0000, True) is None


@pytest.mark.parametrize(
    ("entries", "first"), [(FOUR_LEVELS, (VA & -4096, 0xABC000)), (TWO_MIB, (0xFFFFFFFF_81000000, 0x12E00000))]
)
def test_mapped_pages(entries: dict[int, int], first: tuple[int, int]) -> None:
    root = PageTableRoot(0x1000, 4)
    found = list(mapped_pages(_Physical(entries), root, 0xFFFFFFFF_80000000, 0xFFFFFFFF_82000000))
    assert found[0] == first and len(found) == (1 if entries is FOUR_LEVELS else 512)
    leaves = walk_many(_Physical(entries), root, [virtual for virtual, _ in found])
    assert [(virtual, leaf.physical) for virtual, leaf in leaves.items() if leaf is not None] == found
    inside = list(mapped_pages(_Physical(entries), root, VA & -4096, (VA & -4096) + 4096))
    assert inside == [pair for pair in found if pair[0] == VA & -4096]
    assert list(mapped_pages(_Physical(entries), root, 0xFFFFFFFF_C0000000, 0xFFFFFFFF_FF000000)) == []


def test_each_page_table_root_is_a_candidate_once() -> None:
    def regs(cr3: int, cr4: int = 0, efer: int = 0xD01) -> Regs:
        return Regs(values={"cr3": cr3, "cr4": cr4, "efer": efer}, raw=b"")

    assert root_candidates([regs(0x1801), regs(0x4000, cr4=1 << 12), regs(0x9000, efer=0)]) == (
        PageTableRoot(0x0, 4),
        PageTableRoot(0x1000, 4),
        PageTableRoot(0x4000, 5),
    )
