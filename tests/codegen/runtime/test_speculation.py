"""Speculations as the guest sees them: free, active, ended; and which records leave it."""

from __future__ import annotations

from contextlib import nullcontext

from probekit.buffers.actions import Commit, Discard, Speculate
from probekit.buffers.layout import HeaderWord, RawRecord
from probekit.enabling.guest_engine.variables import GuestSpeculations
from probekit.enabling.host.probes import record_integer
from probekit.enabling.speculation import Speculations
from tests.codegen.emulated_kernel import DATA
from tests.codegen.host_variables import GuestBytes
from tests.codegen.machine import Machine

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
    return record_integer(plan, record, action.field)


def acquired(guest: Machine) -> int:
    (record,) = fire(guest, 1)
    return int.from_bytes(record.payload[:4], "little")


def test_numbers_are_acquired_and_counted() -> None:
    guest = Machine(SCRIPT, nspec=3)
    assert [acquired(guest) for _ in range(5)] == [1, 2, 3, 0, 0]
    assert guest.word(HeaderWord.SPEC_UNAVAILABLE) == 2
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


def test_an_end_that_does_nothing_says_so() -> None:
    guest = Machine(SCRIPT, nspec=2)
    for kind in (3, 4):
        for never in (0, 1, 2, 3, -1):
            (record,) = fire(guest, kind, never)
            assert number(guest, record) == 0
        assert acquired(guest) == 1
        (record,) = fire(guest, kind, 1)
        assert number(guest, record) == 1
        (record,) = fire(guest, kind, 1)
        assert number(guest, record) == 0
        numbers(guest).release(1)


def test_the_host_takes_part() -> None:
    guest = Machine(SCRIPT, nspec=2)
    shared = numbers(guest)
    host = Speculations(2, 1000)
    assert host.acquire() == 1
    host.share(shared)
    assert acquired(guest) == 2 and host.acquire() == 0 and host.unavailable == 1
    record = RawRecord(1, 5, 0, 0, b"x" * 8)
    host.hold(2, 0, record)
    host.commit(2)
    assert host.settle() == [], "what another CPU has speculated may still be in its buffer"
    host.hold(2, 1, record)
    assert host.settle() == [(0, record), (1, record)]
    assert host.acquire() == 2
    host.discard(2)
    host.discard(2)
    assert host.acquire() == 0 and host.busy == 1
    assert host.settle() == [] == host.settle()
    assert acquired(guest) == 2
