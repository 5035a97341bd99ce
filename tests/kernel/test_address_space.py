"""Kernel memory read by our own page walk."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from probekit.errors import MemoryAccessError
from probekit.kernel.address_space import KernelAddressSpace
from probekit.kernel.memory import PAGE_SIZE
from probekit.target.api import Regs

from .fakes import BASE, FakeTarget


class _Physical(FakeTarget):
    """Nothing is mapped virtually; physical memory can be read."""

    physical = False

    @contextmanager
    def physical_memory(self) -> Iterator[None]:
        self.physical = True
        try:
            yield
        finally:
            self.physical = False

    def _get(self, addr: int, size: int) -> bytes | None:
        return super()._get(addr, size) if self.physical else None

    def regs(self, vcpu: int) -> Regs:
        return Regs(values={"cs": 0x33, "cr3": 0x11801, "cr4": 0, "efer": 0xD01}, raw=b"")


def _tables() -> tuple[tuple[int, bytes], ...]:
    """Kernel root at 0x10000, user root at 0x11000; two pages of BASE and one large page after them."""

    def page(**entries: int) -> bytes:
        data = bytearray(PAGE_SIZE)
        for name, value in entries.items():
            struct.pack_into("<Q", data, 8 * int(name[1:]), value)
        return bytes(data)

    return (
        (0x10000, page(e511=0x12000 | 3)),
        (0x11000, page()),
        (0x12000, page(e510=0x13000 | 3)),
        (0x13000, page(e8=0x14000 | 3, e9=0x400000 | 0x83, e10=0x14000 | 3)),
        (0x14000, page(e0=0x8000000000016000 | 3, e1=0x15000 | 3, e2=0x12345000)),
        (0x15000, b"B" * PAGE_SIZE),
        (0x16000, b"A" * PAGE_SIZE),
        (0x400000, b"L" * (2 << 20)),
    )


def test_it_walks_the_kernels_tables() -> None:
    view = KernelAddressSpace(_Physical(*_tables()))
    assert view.read_many([(BASE + 0xFF8, 16), (BASE + 0x2000, 1), (BASE + (2 << 20) - 1, 1), (0x1000, 1)]) == [
        b"A" * 8 + b"B" * 8,
        None,
        None,
        None,
    ]
    assert view.read(BASE + (2 << 20), 5000) == b"L" * 5000
    assert view.translate(BASE + 0x1234) == 0x15234 and view.translate(BASE + 0x2000) is None
    with pytest.raises(MemoryAccessError):
        view.read(BASE + 0x2000, 8)


def test_without_physical_memory_it_is_unreadable() -> None:
    view = KernelAddressSpace(FakeTarget())
    assert view.read_many([(BASE, 8)]) == [None] and view.translate(BASE) is None
