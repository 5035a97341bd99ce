"""The private address space of a program on the host."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from probekit.interp.memory import MAX_SIZE, BadAddress, NoScratch, PrivateMemory


def test_new_memory_is_zero_and_keeps_what_is_written() -> None:
    memory = PrivateMemory()
    addr = memory.allocate_scratch(16)
    assert memory.read(addr, 16) == bytes(16)
    memory.write(addr + 4, b"abcd")
    assert memory.read(addr, 8) == b"\0\0\0\0abcd"


def test_running_off_a_block_does_not_reach_the_next_one() -> None:
    memory = PrivateMemory()
    first, second = memory.allocate_object(16), memory.allocate_object(16)
    assert second > first + 16
    with pytest.raises(BadAddress):
        memory.read(first, 17)
    with pytest.raises(BadAddress):
        memory.write(first + 16, b"x")


@pytest.mark.parametrize("addr", [0, -1, 1 << 64, 0xFFFFFFFF81000000])
def test_an_address_that_a_script_makes_up_is_a_fault(addr: int) -> None:
    memory = PrivateMemory()
    memory.allocate_scratch(8)
    with pytest.raises(BadAddress):
        memory.read(addr, 1)


def test_scratch_is_counted_in_words_up_to_its_limit_and_is_free_again_after_the_clause() -> None:
    memory = PrivateMemory(limit=16)
    memory.allocate_scratch(1)
    addr = memory.allocate_scratch(8)
    with pytest.raises(NoScratch):
        memory.allocate_scratch(1)
    memory.end_clause()
    with pytest.raises(BadAddress):
        memory.read(addr, 1)
    memory.allocate_scratch(16)


def test_a_negative_or_enormous_size_is_refused() -> None:
    memory = PrivateMemory()
    with pytest.raises(NoScratch):
        memory.allocate_scratch(-1)
    with pytest.raises(NoScratch):
        memory.allocate_object(MAX_SIZE + 1)
    with pytest.raises(NoScratch):
        memory.allocate_local(MAX_SIZE + 1)


def test_each_kind_of_memory_lives_as_long_as_it_should() -> None:
    memory = PrivateMemory()
    scratch, local, kept = memory.allocate_scratch(8), memory.allocate_local(8), memory.allocate_object(8)
    memory.end_clause()
    assert memory.read(local, 8) == memory.read(kept, 8) == bytes(8)
    memory.end_firing()
    for gone in (scratch, local):
        with pytest.raises(BadAddress):
            memory.read(gone, 8)
    memory.free(kept)
    with pytest.raises(BadAddress):
        memory.read(kept, 8)


def test_only_scratch_may_be_copied_into() -> None:
    memory = PrivateMemory()
    assert memory.in_scratch(memory.allocate_scratch(8), 8)
    assert not memory.in_scratch(memory.allocate_scratch(8), 9)
    assert not memory.in_scratch(memory.allocate_object(8), 8)


def test_a_string_ends_at_its_nul_its_limit_or_its_block() -> None:
    memory = PrivateMemory()
    assert memory.read_string(memory.copy_string(b"hello"), 100) == b"hello"
    addr = memory.allocate_object(4)
    memory.write(addr, b"abcd")
    assert memory.read_string(addr, 2) == b"ab"
    assert memory.read_string(addr, 100) == b"abcd"


def _pages(pages: dict[int, bytes]) -> Callable[[int, int], bytes | None]:
    def outside(addr: int, size: int) -> bytes | None:
        page = pages.get(addr >> 12)
        return page[addr & 0xFFF :][:size] if page is not None and (addr & 0xFFF) + size <= 4096 else None

    return outside


def test_a_string_of_the_guest_does_not_need_the_page_after_its_end() -> None:
    memory = PrivateMemory(read_guest=_pages({1: b"x" * 4094 + b"a\0"}))
    assert memory.read_string(0x1FFE, 100) == b"a"


def test_a_string_of_the_guest_that_runs_into_a_missing_page_is_a_fault_there() -> None:
    memory = PrivateMemory(read_guest=_pages({1: b"x" * 4096}))
    with pytest.raises(BadAddress) as caught:
        memory.read_string(0x1FFE, 100)
    assert caught.value.addr == 0x2000


def test_the_guest_s_memory_is_never_written() -> None:
    memory = PrivateMemory(read_guest=_pages({1: bytes(4096)}))
    assert memory.read(0x1000, 4) == bytes(4)
    with pytest.raises(BadAddress):
        memory.write(0x1000, b"x")


def test_nothing_is_read_or_written_for_no_bytes() -> None:
    memory = PrivateMemory()
    assert memory.read(0, 0) == b""
    memory.write(0, b"")
