"""What stands behind the stubs for INT3: the structures that the kernel's lists lead to, and who is told of them."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest

from probekit.enabling.guest_engine.traps import check_registered, plan_traps
from probekit.enabling.sites import EnabledSite
from probekit.errors import GuestError, UnsupportedError
from probekit.guest.stack_search import words_inside
from probekit.guest.trap_registration import (
    Fixup,
    KsymLayout,
    NotifierLayout,
    TrapFacts,
    die_block,
    exception_table,
    find_trap_services,
    ksym_block,
)
from probekit.patch.sites import EntrySite, InsnSite, Site
from probekit.probe.names import ProbeName
from probekit.providers.api import Probe

F = 0xFFFFFFFF81000000
CODE = 0xFFFFFFFFC0000000
DATA = 0xFFFFC90000000000
BLOCK = NotifierLayout(call=0, following=8, priority=16, size=24)
KSYM = KsymLayout(
    ksym=64, start=0, end=8, name=16, links=48, is_prog=80, prog=8, entries=32, table=40, aux_size=256,
    prog_aux=16, prog_size=48,
)  # fmt: skip
FACTS = TrapFacts(2, 0, 128, 136, BLOCK, None, KSYM, {F + 8: Fixup(F + 0x40, 3)})


def enabled(*sites: Site) -> tuple[EnabledSite, ...]:
    probe = Probe(7, ProbeName("kinst", "vmlinux", "f", "0"), "instruction")
    return tuple(EnabledSite(number, probe, site, (0,), 0) for number, site in enumerate(sites))


SHORT = InsnSite(F, b"\x41\x54", F, True)
LONG = InsnSite(F + 16, b"\x0f\x1f\x44\x00\x00", F, False)
SEVERAL = InsnSite(F + 32, b"\x41\x54\x41\x55\x90", F, False, 2)
FAULTING = InsnSite(F + 8, b"\x48\x8b\x07", F, True)


def test_nothing_where_every_site_is_a_jump() -> None:
    assert plan_traps(enabled(EntrySite(F, LONG.old, F), LONG), FACTS) is None
    assert plan_traps((), None) is None


def test_what_may_have_to_trap_is_counted_once_for_each_place() -> None:
    traps = plan_traps(enabled(SHORT, SHORT, SEVERAL, LONG), FACTS)
    assert traps is not None and (traps.count, traps.faulting) == (2, ())


def test_a_guest_that_cannot_take_int3() -> None:
    with pytest.raises(UnsupportedError, match="INT3"):
        plan_traps(enabled(SHORT), None)


def test_the_whole_of_it() -> None:
    traps = plan_traps(enabled(SHORT, FAULTING), FACTS)
    assert traps is not None and traps.faulting == (F + 8,)
    stubs, copies = {F: CODE + 0x10, F + 8: CODE + 0x40}, {F: CODE + 0x20, F + 8: CODE + 0x50}
    built = traps.build(stubs, copies, addr=CODE + 0x100, code=(CODE, CODE + 0x4000), data=DATA)
    assert len(built.code) <= traps.code_size and len(built.block) == traps.data_size
    # The exception table is known before the first trap can be taken.
    assert [kind for kind, _ in built.hooks] == ["bpf_ksym", "die_notifier"]
    ksym, notifier = (addr for _, addr in built.hooks)
    assert notifier == DATA and DATA < ksym < DATA + len(built.block)
    assert built.block[:24] == struct.pack("<QQii", CODE + 0x100, 0, (1 << 31) - 1, 0)
    aux = built.block[ksym - KSYM.ksym - DATA :]
    table, count = int.from_bytes(aux[40:48], "little"), int.from_bytes(aux[32:36], "little")
    assert count == 1
    entry = built.code[table - CODE - 0x100 :][:12]
    where, target, kind = struct.unpack("<iiI", entry)
    assert (table + where, table + 4 + target, kind) == (CODE + 0x50, F + 0x40, 3)


def test_the_kernels_view_of_the_symbol() -> None:
    """As ``search_bpf_extables`` goes: the symbol's range, its prog, the prog's aux, the table."""
    block = ksym_block(KSYM, DATA, start=CODE, end=CODE + 0x1000, table=CODE + 0x800, entries=5)

    def word(offset: int) -> int:
        return int.from_bytes(block[offset : offset + 8], "little")

    symbol = KSYM.ksym
    assert (word(symbol), word(symbol + 8)) == (CODE, CODE + 0x1000)
    assert block[symbol + 16 : symbol + 25] == b"probekit\0" and block[symbol + 80] == 1
    assert word(symbol + 48) == word(symbol + 56) == DATA + symbol + 48  # on no list: deleting it does nothing
    prog = word(8) - DATA
    assert prog == KSYM.aux_size and word(prog + 16) == DATA
    assert word(40) == CODE + 0x800 and block[32:36] == (5).to_bytes(4, "little")


def test_the_table_is_sorted_as_the_kernel_searches_it() -> None:
    copies = [(CODE + 0x50, Fixup(F + 9, 1)), (CODE + 0x10, Fixup(F + 3, 0x211)), (CODE + 0x30, Fixup(F, 0xFFFF0011))]
    table = exception_table(copies, CODE + 0x900)
    found = []
    for number in range(3):
        at = CODE + 0x900 + 12 * number
        where, target, kind = struct.unpack_from("<iiI", table, 12 * number)
        found.append((at + where, Fixup(at + 4 + target, kind)))
    assert found == sorted(copies, key=lambda item: item[0])


def test_the_block_of_another_layout() -> None:
    block = die_block(NotifierLayout(call=16, following=0, priority=8, size=32), CODE)
    assert block == bytes(8) + struct.pack("<iiQQ", (1 << 31) - 1, 0, CODE, 0)


class Words:
    """Guest memory of single words."""

    def __init__(self, words: dict[int, int]) -> None:
        self._words = words

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]:
        return [w.to_bytes(8, "little") if (w := self._words.get(a)) is not None else None for a, _ in ranges]

    def write_many(self, edits: object) -> None:
        raise AssertionError("nothing is written")


def test_whether_the_kernel_took_our_handler() -> None:
    facts = TrapFacts(2, 0, 128, 136, BLOCK, 0x100, None, {})
    check_registered(Words({0x100: 0x200, 0x208: 0x300, 0x308: 0}), facts, 0x300)
    with pytest.raises(GuestError, match="did not take"):
        check_registered(Words({0x100: 0x200, 0x208: 0}), facts, 0x300)
    with pytest.raises(GuestError, match="unreadable"):
        check_registered(Words({0x100: 0x200}), facts, 0x300)
    with pytest.raises(GuestError, match="did not take"):
        check_registered(Words({0x100: 0x200, 0x208: 0x200}), facts, 0x300)  # a circle
    check_registered(Words({}), FACTS, 0x300)  # a kernel that does not say where its chain begins


def test_hooks_are_found_by_both_of_their_functions() -> None:
    have = {"register_die_notifier": 1, "unregister_die_notifier": 2, "bpf_ksym_add": 3, "synchronize_rcu": 5}
    found = find_trap_services(have.get)
    assert found.functions == {"die_notifier": (1, 2)} and found.wait == 5


def test_words_of_a_stack() -> None:
    stack = struct.pack("<4Q", 1, CODE + 5, 2, F) + b"\xff\xff\xff"
    assert words_inside(stack, CODE, CODE + 6) and not words_inside(stack, CODE, CODE + 5)
    assert not words_inside(stack[3:], CODE, CODE + 6)  # words are aligned
