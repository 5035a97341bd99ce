"""Unwinding from outside: only with the kernel's tables, and never more of them than a kernel can have."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from probekit.errors import UnsupportedError
from probekit.guest.stacks import GuestStacks
from probekit.kernel.btf import Btf
from probekit.target.api import Regs
from tests.kernel.fakes import BtfWriter

IPS, ENTRIES, STACK = 0xFFFFFFFF82000000, 0xFFFFFFFF82100000, 0xFFFFC90000001000
REGS = dict.fromkeys(("rip", "rsp", "rbp", "r10", "r13", "rdx", "rdi"), STACK)


class Memory:
    """Kernel memory that is all there, or nothing; ``reads``: every read."""

    def __init__(self, *, there: bool = True) -> None:
        self.there = there
        self.reads: list[tuple[int, int]] = []

    def read(self, addr: int, size: int) -> bytes | None:
        self.reads.append((addr, size))
        return bytes(size) if self.there else None


class Symbols:
    """``count``: entries of the kernel's table; None: it has none."""

    def __init__(self, count: int | None) -> None:
        self.count = count

    def range(self, start: str, end: str) -> tuple[int, int] | None:
        return (IPS, IPS + 4 * self.count) if self.count is not None else None

    def addr(self, name: str) -> int | None:
        return ENTRIES if self.count is not None else None


def btf(*, orc: bool) -> Btf:
    w = BtfWriter()
    half, number = w.int("short", 2), w.int("unsigned int", 4, signed=False)
    if orc:
        w.struct(
            "orc_entry",
            6,
            [("sp_offset", half, 0), ("bp_offset", half, 16)]
            + [(name, number, 32 + at, size) for name, at, size in FIELDS],
        )
    return Btf(w.data())


FIELDS = (("sp_reg", 0, 4), ("bp_reg", 4, 4), ("type", 8, 3), ("signal", 11, 1))


def made(count: int | None = 4, *, types: bool = True, orc: bool = True, memory: Memory | None = None) -> GuestStacks:
    kernel: Any = SimpleNamespace(
        btf=btf(orc=orc) if types else None,
        symbols=Symbols(count),
        modules=(),
        text=SimpleNamespace(start=0xFFFFFFFF81000000, end=0xFFFFFFFF81800000),
    )
    return GuestStacks(kernel, memory or Memory())


def regs(*, user: bool = False) -> Regs:
    return Regs({**REGS, "cs": 0x33 if user else 0x10}, b"")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"types": False}, "unwind tables .ORC. and types"),
        ({"orc": False}, "unwind tables .ORC. and types"),
        ({"count": None}, "unwind tables .ORC."),
        ({"count": 1 << 30}, "would have 4294967296 bytes"),
        ({"count": 0}, "would have 0 bytes"),
        ({"memory": Memory(there=False)}, "cannot be read"),
    ],
)
def test_kernels_whose_stacks_cannot_be_unwound(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UnsupportedError, match=said):
        made(**options).load()


def test_tables_are_read_once_and_in_pieces() -> None:
    memory = Memory()
    stacks = made(1 << 18, memory=memory)
    stacks.load()
    assert max(size for _, size in memory.reads) == 1 << 20 and len(memory.reads) == 3
    stacks.load()
    assert len(memory.reads) == 3


def test_programs_have_no_kernel_stack() -> None:
    memory = Memory()
    assert made(memory=memory).frames(regs(user=True), 10) == [] and memory.reads == []


def test_the_first_frames_are_left_out_and_no_more_than_asked_for_are_looked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[int] = []

    class Unwinder:
        def callers(self, known: dict[str, int], read: Any) -> Any:
            assert known == REGS
            for number in range(100):
                seen.append(number)
                yield number

    stacks = made()
    monkeypatch.setattr(GuestStacks, "_make", lambda self: Unwinder())
    assert stacks.frames(regs(), 3, skip=2) == [2, 3, 4] and len(seen) <= 6


def test_a_stack_is_read_page_by_page() -> None:
    memory = Memory()
    read = made(memory=memory)._reader()
    assert read(STACK + 8, 8) == bytes(8) == read(STACK + 0xFF8, 8)
    assert memory.reads == [(STACK, 4096)]
    assert read(STACK + 0xFFC, 8) == bytes(8) and memory.reads[-1] == (STACK + 0xFFC, 8), "over two pages"
    assert made(memory=Memory(there=False))._reader()(STACK, 8) is None
