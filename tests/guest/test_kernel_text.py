"""Kernel memory of a stopped guest, also when every vCPU maps next to nothing of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from probekit.errors import MemoryAccessError, UnsupportedError
from probekit.guest.kernel_text import KernelText

WITNESS, TEXT = 0xFFFFFFFF82000000, 0xFFFFFFFF81000000


class View:
    """The kernel's own page tables: virtual to physical pages."""

    def __init__(self, target: Target, pages: dict[int, int]) -> None:
        self.target, self.pages = target, pages
        self.asked: list[tuple[int, int]] = []

    def translate(self, page: int) -> int | None:
        return self.pages.get(page)

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]:
        self.asked += ranges
        return [
            bytes(self.target.physical[frame + addr % 4096 :][:size])
            if (frame := self.pages.get(addr & -4096)) is not None
            else None
            for addr, size in ranges
        ]


class Target:
    """``isolated``: its vCPUs are in user mode and map no kernel memory. ``written``: (address, data, by physical)."""

    def __init__(self, *, isolated: bool) -> None:
        self.isolated = isolated
        self.physical = bytearray(0x10000)
        self.by_physical = False
        self.written: list[tuple[int, bytes, bool]] = []

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]:
        assert list(ranges) == [(WITNESS, 1)]
        return [None if self.isolated else b"x"]

    def write_many(self, edits: Iterable[tuple[int, bytes]]) -> None:
        self.written += [(addr, data, self.by_physical) for addr, data in edits]


class WithPhysical(Target):
    @contextmanager
    def physical_memory(self) -> Iterator[None]:
        self.by_physical = True
        yield
        self.by_physical = False


class Ram:
    """The quick way, which has some ranges only."""

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]:
        return [b"quick"[:size] if addr == TEXT else None for addr, size in ranges]


def made(target: Target, ram: Any = None) -> tuple[KernelText, View]:
    view = View(target, {TEXT: 0x3000, TEXT + 0x1000: 0x1000})
    shown: Any = (target, view)
    return KernelText(shown[0], shown[1], WITNESS, ram), view


def test_writes_go_straight_through_where_kernel_memory_is_mapped() -> None:
    target = WithPhysical(isolated=False)
    made(target)[0].write_many([(TEXT + 1, b"ab"), (TEXT, b"c")])
    assert target.written == [(TEXT + 1, b"ab", False), (TEXT, b"c", False)]


def test_else_they_go_by_physical_address_page_by_page_and_in_order() -> None:
    target = WithPhysical(isolated=True)
    made(target)[0].write_many([(TEXT + 0xFFE, b"abcd"), (TEXT, b"e")])
    assert target.written == [(0x3FFE, b"ab", True), (0x1000, b"cd", True), (0x3000, b"e", True)]
    assert not target.by_physical


def test_nothing_is_written_when_a_page_is_not_mapped() -> None:
    target = WithPhysical(isolated=True)
    with pytest.raises(MemoryAccessError, match="is not mapped"):
        made(target)[0].write_many([(TEXT, b"a"), (TEXT + 0x1FFF, b"bc")])
    assert target.written == []


def test_a_stub_that_cannot_write_physical_memory_says_so() -> None:
    target = Target(isolated=True)
    with pytest.raises(UnsupportedError, match="every vCPU is in user mode"):
        made(target)[0].write_many([(TEXT, b"a")])
    assert target.written == []


def test_reads_take_the_quick_way_and_only_the_rest_goes_through_the_stub() -> None:
    target = Target(isolated=False)
    target.physical[0x1000:0x1004] = b"stub"
    text, view = made(target, Ram())
    assert text.read_many([(TEXT + 0x1000, 4), (TEXT, 5), (TEXT + 0x5000, 1)]) == [b"stub", b"quick", None]
    assert view.asked == [(TEXT + 0x1000, 4), (TEXT + 0x5000, 1)]
    assert text.read(TEXT, 5) == b"quick"
    with pytest.raises(MemoryAccessError, match="cannot read 1 bytes"):
        text.read(TEXT + 0x5000, 1)
