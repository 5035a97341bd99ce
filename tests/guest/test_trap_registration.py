"""Structures of ours on the kernel's lists: their bytes, and the functions that add and remove them."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probekit.guest.calls import AddListEntry, CallPurpose, RemoveListEntry
from probekit.guest.trap_registration import (
    EXTABLE_ENTRY,
    Fixup,
    KsymLayout,
    NotifierLayout,
    die_block,
    exception_table,
    find_trap_services,
    ksym_block,
)

_KSYM = KsymLayout(
    ksym=0x40, start=0, end=8, name=16, links=0x90, is_prog=0xB0, prog=0x18, entries=0x20, table=0x28,
    aux_size=0x140, prog_aux=0x30, prog_size=0x48,
)  # fmt: skip


class Point:
    """Notes each guest call."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, tuple[int, ...], CallPurpose | None]] = []

    def call(self, function: int, *args: int, purpose: CallPurpose | None = None, **_: Any) -> int:
        self.calls.append((function, args, purpose))
        return 0


_NAMES = ["register_die_notifier", "unregister_die_notifier", "bpf_ksym_add", "bpf_ksym_del", "synchronize_rcu"]


def test_each_kind_is_added_and_removed_by_its_own_functions() -> None:
    services = find_trap_services(lambda name: _NAMES.index(name) + 1)
    point = Point()
    services.add(point, "bpf_ksym", 0x1000)
    services.remove(point, "die_notifier", 0x2000)
    services.settle(point)
    assert point.calls == [
        (3, (0x1000,), AddListEntry("bpf_ksym", 0x1000)),
        (2, (0x2000,), RemoveListEntry("die_notifier", 0x2000)),
        (5, (), None),
    ]


@pytest.mark.parametrize("missing", _NAMES[:4])
def test_a_kind_that_could_not_be_removed_again_is_not_available(missing: str) -> None:
    services = find_trap_services(lambda name: None if name == missing else 1)
    assert len(services.functions) == 1


def test_a_kernel_that_needs_no_wait_is_not_called() -> None:
    point = Point()
    find_trap_services(lambda _name: None).settle(point)
    assert point.calls == []


def test_our_notifier_comes_first() -> None:
    block = die_block(NotifierLayout(call=0, following=8, priority=16, size=24), 0xFFFFFFFFC0001000)
    assert struct.unpack("<QQi4x", block) == (0xFFFFFFFFC0001000, 0, 0x7FFFFFFF)


def test_a_symbol_block_points_at_itself_and_at_its_code() -> None:
    addr = 0xFFFF888000001000
    block = ksym_block(_KSYM, addr, start=0x5000, end=0x6000, table=0x7000, entries=3)
    assert len(block) == _KSYM.size

    def word(offset: int) -> int:
        return int.from_bytes(block[offset : offset + 8], "little")

    assert (word(0x40), word(0x48)) == (0x5000, 0x6000)
    links = addr + 0x40 + 0x90
    assert (word(0xD0), word(0xD8)) == (links, links), "an empty list points at itself"
    assert word(0x18) == addr + _KSYM.aux_size and word(_KSYM.aux_size + 0x30) == addr
    assert word(0x28) == 0x7000 and int.from_bytes(block[0x20:0x24], "little") == 3
    assert block[0x50:0x59] == b"probekit\0" and block[0xF0] == 1


_BASE = 0xFFFFFFFFC0000000


@given(st.dictionaries(st.integers(0, 1 << 20), st.tuples(st.integers(0, 1 << 20), st.integers(0, 15)), max_size=20))
def test_an_exception_table_is_sorted_and_read_back_as_the_kernel_reads_it(
    copies: dict[int, tuple[int, int]],
) -> None:
    addr = _BASE + (1 << 21)
    table = exception_table([(_BASE + at, Fixup(_BASE + to, kind)) for at, (to, kind) in copies.items()], addr)
    found = []
    for at in range(0, len(table), EXTABLE_ENTRY.size):
        insn, fixup, kind = EXTABLE_ENTRY.unpack_from(table, at)
        found.append((addr + at + insn - _BASE, (addr + at + 4 + fixup - _BASE, kind)))
    assert found == sorted(copies.items())
