"""Speculations as the guest sees them: who has speculated, when one is free again, and which records leave it."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest

from probekit.buffers.actions import Commit, Discard, Speculate
from probekit.buffers.layout import HeaderWord, RawRecord
from probekit.buffers.variables import (
    SPECULATION_ACTIVE,
    SPECULATION_ENDED,
    SPECULATION_FREE,
    SPECULATION_HOST,
    SPECULATION_MANY,
)
from probekit.enabling.guest_engine.variables import GuestSpeculations
from probekit.enabling.host.probes import record_integer
from probekit.enabling.speculation import Speculations
from tests.codegen.emulated_kernel import DATA
from tests.codegen.host_variables import GuestBytes
from tests.codegen.machine import Machine

OTHER_CPU = 0xFFFFC90000123000
"""The address of another CPU's block."""

SCRIPT = """
fbt::: /arg0 == 1/ { self->s = speculation(); trace(self->s); }
fbt::: /arg0 == 2/ { speculate(arg1); trace(arg2); }
fbt::: /arg0 == 3/ { commit(arg1); }
fbt::: /arg0 == 4/ { discard(arg1); }
"""


def numbers(guest: Machine) -> GuestSpeculations:
    place = guest.storage.speculations
    assert place is not None
    memory = GuestBytes(guest)
    return GuestSpeculations(place, base=DATA, memory=lambda: memory, no_clause_running=nullcontext)


def fire(guest: Machine, *args: int) -> list[RawRecord]:
    done = guest.fire(rdi=args[0], rsi=(*args, 0)[1], rdx=(*args, 0, 0)[2])
    assert (done.fault, done.bad) == (0, ())
    return guest.drain()


def number(guest: Machine, record: RawRecord) -> int:
    """What a record's speculative action names."""
    plan = guest.program.clauses[record.clause].record
    assert plan is not None
    (action,) = (a for a in plan.actions if isinstance(a, Speculate | Commit | Discard))
    return record_integer(plan, record, action.field, signed=True)


def word_address(guest: Machine, index: int = 1) -> int:
    place = guest.storage.speculations
    assert place is not None
    return DATA + place.offset + 8 * (index - 1)


def word(guest: Machine, index: int = 1) -> int:
    """What the guest knows of a speculation."""
    return int.from_bytes(guest.read(word_address(guest, index), 8), "little")


def on_another_cpu(guest: Machine, index: int, value: int = OTHER_CPU) -> None:
    """Somebody else has speculated."""
    guest.write(word_address(guest, index), value.to_bytes(8, "little"))


def acquired(guest: Machine) -> int:
    (record,) = fire(guest, 1)
    return int.from_bytes(record.payload[:4], "little")


def test_numbers_are_acquired_and_counted() -> None:
    guest = Machine(SCRIPT, nspec=3)
    assert [acquired(guest) for _ in range(5)] == [1, 2, 3, 0, 0]
    assert guest.word(HeaderWord.SPEC_UNAVAILABLE) == 2
    on_another_cpu(guest, 2)
    fire(guest, 4, 2)
    assert acquired(guest) == 0
    assert (guest.word(HeaderWord.SPEC_UNAVAILABLE), guest.word(HeaderWord.SPEC_BUSY)) == (2, 1)
    numbers(guest).release(2)
    assert acquired(guest) == 2


def test_only_an_active_one_takes_records() -> None:
    guest = Machine(SCRIPT, nspec=2)
    for never in (0, 1, 2, 3, -1, 1 << 62):
        assert fire(guest, 2, never, 5) == []
    assert acquired(guest) == 1
    (record,) = fire(guest, 2, 1, 5)
    assert number(guest, record) == 1 and fire(guest, 2, 2, 5) == []
    fire(guest, 3, 1)
    assert fire(guest, 2, 1, 5) == []
    assert acquired(guest) == 1
    on_another_cpu(guest, 1)
    fire(guest, 3, 1)
    assert fire(guest, 2, 1, 5) == []


def test_one_that_only_this_cpu_has_used_is_free_at_once() -> None:
    """With records or without any, by commit or discard: as often as one likes."""
    guest = Machine(SCRIPT, nspec=1)
    for turn in range(12):
        assert acquired(guest) == 1
        for _ in range(turn % 3):
            assert len(fire(guest, 2, 1, 5)) == 1
        assert word(guest) == (guest.block if turn % 3 else SPECULATION_ACTIVE)
        (record,) = fire(guest, 3 + turn % 2, 1)
        assert number(guest, record) == -1 and word(guest) == SPECULATION_FREE
        (record,) = fire(guest, 3, 1)
        assert number(guest, record) == 0
    assert guest.word(HeaderWord.SPEC_UNAVAILABLE) == guest.word(HeaderWord.SPEC_BUSY) == 0


@pytest.mark.parametrize("before", [OTHER_CPU, SPECULATION_HOST, SPECULATION_MANY])
@pytest.mark.parametrize("kind", [3, 4])
def test_one_that_others_have_used_waits_for_the_host(before: int, kind: int) -> None:
    guest = Machine(SCRIPT, nspec=1)
    for speculates in (False, True):
        assert acquired(guest) == 1
        on_another_cpu(guest, 1, before)
        if speculates:
            assert len(fire(guest, 2, 1, 5)) == 1 and word(guest) == SPECULATION_MANY
        (record,) = fire(guest, kind, 1)
        assert number(guest, record) == 1 and word(guest) == SPECULATION_ENDED
        assert acquired(guest) == 0
        numbers(guest).release(1)


@pytest.mark.parametrize("meanwhile", [OTHER_CPU, SPECULATION_ENDED, SPECULATION_FREE])
@pytest.mark.parametrize("kind", [2, 3])
def test_another_cpu_changes_the_word_meanwhile(kind: int, meanwhile: int) -> None:
    """Between the read of the word and the exchange."""
    guest = Machine(SCRIPT, nspec=1)
    assert acquired(guest) == 1
    seen: list[int] = []

    def change(uc: Any, access: int, addr: int, size: int, value: int, user: object) -> None:
        seen.append(addr)
        if len(seen) == 2:  # the read is the first access, and the exchange the second one
            uc.mem_write(addr, meanwhile.to_bytes(8, "little"))

    guest.on_read(word_address(guest), change)
    records = fire(guest, kind, 1, 5)
    assert len(seen) >= 2
    after = {SPECULATION_FREE: SPECULATION_FREE, SPECULATION_ENDED: SPECULATION_ENDED}
    if kind == 2:
        assert len(records) == (meanwhile == OTHER_CPU)
        assert word(guest) == after.get(meanwhile, SPECULATION_MANY)
    else:
        assert number(guest, records[0]) == (meanwhile == OTHER_CPU)
        assert word(guest) == after.get(meanwhile, SPECULATION_ENDED)


def test_an_end_that_does_nothing_says_so() -> None:
    guest = Machine(SCRIPT, nspec=2)
    for kind in (3, 4):
        for never in (0, 1, 2, 3, -1):
            (record,) = fire(guest, kind, never)
            assert number(guest, record) == 0
        assert acquired(guest) == 1
        on_another_cpu(guest, 1)
        (record,) = fire(guest, kind, 1)
        assert number(guest, record) == 1
        (record,) = fire(guest, kind, 1)
        assert number(guest, record) == 0
        numbers(guest).release(1)


def test_numbers_of_any_type_are_told_to_the_host() -> None:
    for cast in ("(int)", "(unsigned int)", "(uint64_t)", "(int64_t)"):
        guest = Machine(SCRIPT.replace("commit(arg1)", f"commit({cast}arg1)"), nspec=2)
        assert acquired(guest) == 1
        (record,) = fire(guest, 3, 1)
        assert number(guest, record) == -1


def test_the_host_takes_part() -> None:
    guest = Machine(SCRIPT, nspec=2)
    shared = numbers(guest)
    host = Speculations(2, 1000)
    assert host.acquire() == 1
    host.share(shared)
    assert acquired(guest) == 2 and host.acquire() == 0 and host.unavailable == 1
    record = RawRecord(1, 5, 0, 0, b"x" * 8)
    fire(guest, 2, 2, 5)
    host.hold(2, 0, record)
    assert host.commit(2) == []
    assert host.settle() == [], "what another CPU has speculated may still be in its buffer"
    host.hold(2, 1, record)
    assert host.settle() == [(0, record), (1, record)]
    assert host.acquire() == 2
    fire(guest, 2, 2, 5)
    host.discard(2)
    host.discard(2)
    assert host.acquire() == 0 and host.busy == 1
    assert host.settle() == [] == host.settle()
    assert acquired(guest) == 2


def test_the_host_alone_needs_no_reading() -> None:
    guest = Machine(SCRIPT, nspec=1)
    host = Speculations(1, 1000)
    assert host.acquire() == 1
    record = RawRecord(1, 5, 0, 0, b"x" * 8)
    host.speculate(1, 0, record)
    host.share(numbers(guest))
    assert word(guest) == SPECULATION_HOST
    for _ in range(3):
        host.speculate(1, 0, record)
        assert word(guest) == SPECULATION_HOST
        assert {held for _, held in host.commit(1)} == {record} and word(guest) == SPECULATION_FREE
        host.speculate(1, 0, record)
        assert host.acquire() == 1 and word(guest) == SPECULATION_ACTIVE
    fire(guest, 2, 1, 5)
    host.speculate(1, 0, record)
    assert word(guest) == SPECULATION_MANY and host.commit(1) == [] and word(guest) == SPECULATION_ENDED
    host.speculate(1, 0, record)
    host.speculate(7, 0, record)
    assert host.settle() == [] and host.settle() == [(0, record)]
