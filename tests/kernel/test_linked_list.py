"""Lists of the kernel: their members in order; lists that do not end or lead nowhere."""

from __future__ import annotations

import struct

import pytest

from probekit.errors import MemoryAccessError, SymbolError
from probekit.kernel.linked_list import walk_list
from probekit.kernel.memory import KernelMemory

from .fakes import FakeMemory


def test_a_list_is_walked_to_its_head_and_one_that_does_not_end_is_refused() -> None:
    def memory(*links: tuple[int, int]) -> KernelMemory:
        return KernelMemory(FakeMemory(*((at, struct.pack("<Q", to)) for at, to in links)))

    assert walk_list(memory((0x10, 0x20), (0x20, 0x30), (0x30, 0x10)), 0x10, 10) == [0x20, 0x30]
    for links in (((0x10, 0x20), (0x20, 0x20)), ((0x10, 0x20), (0x20, 0x30), (0x30, 0x20))):
        with pytest.raises(SymbolError, match="does not end"):
            walk_list(memory(*links), 0x10, 10)
    with pytest.raises(SymbolError, match="does not end"):
        walk_list(memory((0x10, 0x20), (0x20, 0x30), (0x30, 0x10)), 0x10, 1)
    with pytest.raises(MemoryAccessError):
        walk_list(memory((0x10, 0x99)), 0x10, 10)
