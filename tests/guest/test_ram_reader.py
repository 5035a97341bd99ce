"""Kernel memory out of the RAM file: where a page is may be remembered only where it stays."""

from __future__ import annotations

import struct

import pytest

from probekit.errors import MemoryAccessError
from probekit.guest.ram_reader import RamReader
from probekit.kernel.page_tables import PageTableRoot

TEXT, MODULE, STACK = 0xFFFFFFFF81000000, 0xFFFFFFFFC0200000, 0xFFFFC90000010000
IMAGE = range(TEXT, TEXT + 0x2000)


class _Ram:
    """Physical memory; page tables from 0 on."""

    def __init__(self) -> None:
        self.data = bytearray(1 << 17)
        self.free = 0x1000

    def map(self, addr: int, physical: int) -> None:
        table = 0
        for shift in (39, 30, 21):
            at = table + 8 * (addr >> shift & 511)
            (entry,) = struct.unpack_from("<Q", self.data, at)
            if not entry:
                entry, self.free = self.free | 3, self.free + 0x1000
                struct.pack_into("<Q", self.data, at, entry)
            table = entry & ~0xFFF
        struct.pack_into("<Q", self.data, table + 8 * (addr >> 12 & 511), physical | 3)

    def read(self, phys: int, size: int) -> bytes:
        if phys + size > len(self.data):
            raise MemoryAccessError("no RAM", addr=phys, size=size)
        return bytes(self.data[phys : phys + size])

    def write(self, phys: int, data: bytes) -> None:
        self.data[phys : phys + len(data)] = data


@pytest.fixture
def ram() -> _Ram:
    ram = _Ram()
    for number, addr in enumerate((TEXT, TEXT + 0x1000, STACK, STACK + 0x1000, MODULE)):
        ram.map(addr, 0x10000 + 0x1000 * number)
        ram.write(0x10000 + 0x1000 * number, bytes([number + 1]) * 0x1000)
    return ram


def test_ranges_over_pages_and_what_is_not_there(ram: _Ram) -> None:
    text = RamReader(ram, PageTableRoot(0, 4), IMAGE)
    wanted = [(TEXT + 0xFFE, 4), (STACK, 2), (STACK + 0x1FFF, 2), (TEXT, 0), (0x400000, 8)]
    assert text.read_many(wanted) == [b"\1\1\2\2", b"\3\3", None, b"", None]
    with pytest.raises(MemoryAccessError, match="cannot read"):
        text.read(STACK + 0x2000, 1)


@pytest.mark.parametrize("all_pages", [False, True])
def test_what_was_mapped_anew_is_not_what_it_was(ram: _Ram, all_pages: bool) -> None:
    text = RamReader(ram, PageTableRoot(0, 4), IMAGE)
    text = text.caching_reader() if all_pages else text
    places = [(TEXT, 1), (STACK, 1), (MODULE, 1)]
    assert text.read_many(places) == [b"\1", b"\3", b"\5"]
    for addr, _ in places:
        ram.map(addr, 0x13000)
    assert text.read_many(places) == [b"\1", *((b"\3", b"\5") if all_pages else (b"\4", b"\4"))]
    text.invalidate()
    assert text.read_many(places) == [b"\4", b"\4", b"\4"]
