"""Reads of guest memory: the cache's scope, limits, copies with holes."""

from __future__ import annotations

import pytest

from probekit.errors import MemoryAccessError, SymbolError
from probekit.kernel.memory import KernelMemory

from .fakes import FakeMemory


def test_memory_cache_lives_in_its_scope() -> None:
    source = FakeMemory((0x1000, bytes(range(256)) * 32))
    memory = KernelMemory(source)
    with memory.cached():
        assert memory.read(0x1FFE, 4) == b"\xfe\xff\x00\x01"
        before = source.batches
        assert memory.u32(0x1000) == 0x03020100 and memory.read_many([(0x2FFF, 2), (0x5000, 1)])[1] is None
        source.segments[0x1000][0] = 0x77
        assert memory.read(0x1000, 1) == b"\x00" and source.batches == before + 1
    assert memory.read(0x1000, 1) == b"\x77"


def test_reads_are_bounded_and_strings_end_at_the_page() -> None:
    memory = KernelMemory(FakeMemory((0x1000, b"abc\0" + bytes(4092))))
    assert memory.cstring(0x1000) == b"abc"
    assert memory.cstring(0x1FFF, 64) == b""
    with pytest.raises(MemoryAccessError):
        memory.read(0x3000, 1)
    with pytest.raises(SymbolError, match="not a plausible size"):
        memory.read(0x1000, 1 << 40)
    assert memory.read_many([((1 << 64) - 4, 8)]) == [None]
    with memory.cached():
        assert memory.read_many([((1 << 64) - 4, 8)]) == [None]
    copy = memory.copy(0x1000, 0x4000)
    assert copy.data[:3] == b"abc" and copy.holes == {0x2000, 0x3000} and len(copy.data) == 0x3000
    with pytest.raises(MemoryAccessError):
        copy.read(0x3FFF, 2)
