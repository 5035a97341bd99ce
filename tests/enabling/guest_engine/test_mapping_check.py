"""Nothing goes live whose memory would fault: page by page, and in every process."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import pytest

from probekit.enabling.guest_engine.mapping_check import NotMappedError, Touched, check_mapped
from probekit.guest.process_page_tables import Unshared
from probekit.kernel.page_tables import FLAG_NX, FLAG_PRESENT, FLAG_USER, FLAG_WRITE, Leaf, PageTableRoot, walk_many
from tests.support.page_walk import walk

CODE, DATA, SLOT = 0xFFFFFFFFC0200000, 0xFFFFC90000100000, 0xFFFFE8FFFFC01238
WANTED = (Touched("code", CODE, 0x2100, code=True), Touched("data", DATA, 0x3000), Touched("per-CPU", SLOT, 8))
PAGES = [page for item in WANTED for page in item.pages()]


class _Memory:
    """Physical memory with page tables in it; a :class:`probekit.kernel.page_tables.PhysicalSource`."""

    def __init__(self) -> None:
        self.tables: dict[int, dict[int, int]] = {0x1000: {}}

    def map(self, addr: int, flags: int, *, levels: int = 4) -> None:
        table = 0x1000
        for level in range(levels, 1, -1):
            index = addr >> (12 + 9 * (level - 1)) & 511
            if index not in self.tables[table]:
                new = 0x1000 * (len(self.tables) + 1)
                self.tables[new] = {}
                self.tables[table][index] = new | FLAG_PRESENT | FLAG_WRITE | FLAG_USER
            table = self.tables[table][index] & ~0xFFF
        self.tables[table][addr >> 12 & 511] = 0x800000 | flags

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]:
        return [self._read(addr, size) for addr, size in ranges]

    def _read(self, addr: int, size: int) -> bytes | None:
        table = self.tables.get(addr & ~0xFFF)
        if table is None:
            return None
        whole = b"".join(struct.pack("<Q", table.get(index, 0)) for index in range(512))
        return whole[addr & 0xFFF :][:size]


@dataclass
class _Spaces:
    """:class:`probekit.enabling.guest_engine.mapping_check.PageTables` over such tables."""

    memory: _Memory
    others: list[Unshared] = field(default_factory=list)
    readable: bool = True

    def leaves(self, pages: Iterable[int]) -> dict[int, Leaf | None] | None:
        return walk_many(self.memory, PageTableRoot(0x1000, 4), pages) if self.readable else None

    def unshared(self, pages: Iterable[int]) -> list[Unshared]:
        return [one for one in self.others if one.addr in set(pages)]


@pytest.fixture
def spaces() -> _Spaces:
    memory = _Memory()
    for item in WANTED:
        for page in item.pages():
            memory.map(page, FLAG_PRESENT | (0 if item.code else FLAG_WRITE | FLAG_NX))
    return _Spaces(memory)


def test_all_is_well(spaces: _Spaces) -> None:
    assert check_mapped(WANTED, spaces) == len(PAGES) == 3 + 3 + 1


@pytest.mark.parametrize("page", PAGES, ids=hex)
def test_an_unmapped_page_is_refused(spaces: _Spaces, page: int) -> None:
    spaces.memory.map(page, 0)
    with pytest.raises(NotMappedError, match=r"nothing was probed: .* is not mapped") as caught:
        check_mapped(WANTED, spaces)
    assert caught.value.addr == page
    assert caught.value.name == next(item.name for item in WANTED if page in item.pages())


@pytest.mark.parametrize(
    ("page", "flags", "said"),
    [
        (CODE, FLAG_PRESENT | FLAG_NX, "is not executable"),
        (CODE + 0x2000, FLAG_PRESENT | FLAG_USER, "is open to user programs"),
        (DATA + 0x1000, FLAG_PRESENT | FLAG_NX, "is not writable"),
        (SLOT & ~0xFFF, FLAG_PRESENT | FLAG_WRITE | FLAG_USER, "is open to user programs"),
    ],
)
def test_wrong_permissions_are_refused(spaces: _Spaces, page: int, flags: int, said: str) -> None:
    spaces.memory.map(page, flags)
    with pytest.raises(NotMappedError, match=said) as caught:
        check_mapped(WANTED, spaces)
    assert caught.value.addr == page


def test_a_process_that_lacks_it_is_named(spaces: _Spaces) -> None:
    spaces.others.append(Unshared(DATA, "bash", 77))
    with pytest.raises(NotMappedError, match=r"address space of 'bash' \(pid 77\)"):
        check_mapped(WANTED, spaces)


def test_without_page_tables_nothing_can_be_said(spaces: _Spaces) -> None:
    spaces.readable = False
    assert check_mapped(WANTED, spaces) == 0


@pytest.mark.parametrize("page", [*PAGES, 0xFFFF888000000000, 0xFFFFC90000104000])
def test_many_pages_are_walked_as_one_is(spaces: _Spaces, page: int) -> None:
    """Against the plain walker: address and permissions."""
    memory = spaces.memory
    one = walk(lambda addr, size: memory._read(addr, size) or bytes(size), 0x1000, page)
    many = walk_many(memory, PageTableRoot(0x1000, 4), [page])[page]
    assert (None if one is None else (one[0], one[2])) == (None if many is None else tuple(many))
