"""Where no INT3 may be put: what the kernel says itself, the path of INT3, and handlers of NMIs."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from probekit.enabling.text_facts import branch_tracking, refused_text
from probekit.kernel.btf import Btf
from probekit.kernel.memory import KernelMemory
from tests.kernel.fakes import BtfWriter, FakeMemory

TEXT, DATA = 0xFFFFFFFF81000000, 0xFFFFFFFF82000000
SYMBOLS = {
    "rcu_is_watching": TEXT,
    "first_notifier": TEXT + 0x100,
    "second_notifier": TEXT + 0x200,
    "nmi_handle": TEXT + 0x300,
    "some_nmi_handler": TEXT + 0x400,
    "innocent": TEXT + 0x500,
    "die_chain": DATA,
    "nmi_desc": DATA + 0x100,
    "boot_cpu_data": DATA + 0x800,
}
LINKS = DATA + 0x400


class Symbol(NamedTuple):
    addr: int
    end: int


class Exclusion(NamedTuple):
    start: int
    end: int
    reason: str


class Kernel:
    """A kernel of a few symbols; ``words``: its data by address."""

    def __init__(self, words: dict[int, int], *, types: bool = True) -> None:
        data = bytearray(0x1000)
        for addr, word in words.items():
            struct.pack_into("<Q", data, addr - DATA, word)
        self.memory = KernelMemory(FakeMemory((DATA, bytes(data))))
        self.btf = Btf(_types()) if types else None
        self.symbols = self

    def addr(self, name: str) -> int | None:
        return SYMBOLS.get(name)

    def lookup(self, addr: int) -> tuple[Symbol, int] | None:
        start = addr & ~0xFF
        return (Symbol(start, start + 0x80), addr - start) if start in SYMBOLS.values() and addr < DATA else None

    def exclusions(self) -> Iterator[Exclusion]:
        yield Exclusion(TEXT + 0x600, TEXT + 0x680, "on the kernel's own list")


def _types() -> bytes:
    w = BtfWriter()
    word, number = w.int("long", 8), w.int("int", 4)
    w.struct("notifier_block", 24, [("notifier_call", word, 0), ("next", word, 64), ("priority", number, 128)])
    w.struct("atomic_notifier_head", 16, [("lock", number, 0), ("head", word, 64)])
    w.struct("nmi_desc", 32, [("lock", number, 0), ("head", word, 64)])
    w.struct("nmiaction", 48, [("list", word, 0), ("handler", word, 128)])
    w.struct("cpuinfo_x86", 256, [("x86", number, 0), ("x86_capability", w.array(number, 22), 64)])
    return w.data()


def lists() -> dict[int, int]:
    """Two die notifiers, and one handler of NMIs among four empty lists."""
    first, second, action = DATA + 0x40, DATA + 0x80, LINKS
    words = {DATA + 8: first, first: TEXT + 0x110, first + 8: second, second: TEXT + 0x200}
    for number in range(4):
        head = DATA + 0x100 + 32 * number + 8
        words |= {head: head, head + 8: head}
    head = DATA + 0x108
    words |= {head: action, head + 8: action, action: head, action + 8: head, action + 16: TEXT + 0x400}
    return words


def reasons(kernel: Kernel) -> dict[int, str]:
    shown: Any = kernel
    refused = refused_text(shown)
    return {at: why for at in range(TEXT, TEXT + 0x700, 0x80) if (why := refused.reason(at)) is not None}


def test_every_source_with_its_reason() -> None:
    found = reasons(Kernel(lists()))
    path, nmi = found[TEXT], found[TEXT + 0x300]
    assert "INT3" in path and "NMI" in nmi and path != nmi
    assert found == {
        TEXT: path,
        TEXT + 0x100: path,
        TEXT + 0x200: path,
        TEXT + 0x300: nmi,
        TEXT + 0x400: nmi,
        TEXT + 0x600: "on the kernel's own list",
    }


def test_a_kernel_without_types_has_its_names_and_its_list() -> None:
    assert set(reasons(Kernel(lists(), types=False))) == {TEXT, TEXT + 0x300, TEXT + 0x600}


@pytest.mark.parametrize("lead", [0x1234, DATA + 0x40], ids=["nowhere", "to itself"])
def test_a_chain_that_makes_no_sense_ends(lead: int) -> None:
    words = lists() | {DATA + 0x48: lead}
    assert set(reasons(Kernel(words))) == {TEXT, *(TEXT + at for at in (0x100, 0x300, 0x400, 0x600))}


def test_branch_tracking_is_a_bit_of_the_kernels_own_list() -> None:
    word = DATA + 0x800 + 8 + 4 * 18
    for bits, tracked in ((0, False), (1 << 20, True), (~(1 << 20) & 0xFFFFFFFF, False)):
        shown: Any = Kernel({word: bits})
        assert branch_tracking(shown) is tracked
    unknown: Any = Kernel({}, types=False)
    assert branch_tracking(unknown), "refuses more when it is not known"
