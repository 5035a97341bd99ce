"""Our data memory as the host reads it: records, counters and values, live and as a copy, and whatever a guest does."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from probekit.buffers.layout import HeaderWord
from probekit.consumer.events import ProbeIdentity
from probekit.enabling.guest_engine.data_memory import DataSnapshot, ProgramData
from probekit.errors import GuestError, InternalError, MemoryAccessError
from tests.codegen.built_program import Function
from tests.codegen.emulated_kernel import DATA
from tests.codegen.machine import Machine

TEXT = """
int64_t x;
fbt::: { x = arg0; trace(arg0); @c = count(); @s[arg1] = sum(arg0); }
"""


class _Memory:
    """The machine's memory as the host reaches it."""

    def __init__(self, guest: Machine, live: bool) -> None:
        self._guest = guest
        self.live = live

    def read(self, addr: int, size: int) -> bytes:
        return self._guest.read(addr, size)

    def write(self, addr: int, data: bytes) -> None:
        self._guest.write(addr, data)


class _Clock:
    """Counts pauses; ``during``: called in each."""

    def __init__(self) -> None:
        self.pauses = 0
        self.during: Any = None

    @contextmanager
    def paused(self) -> Iterator[None]:
        self.pauses += 1
        if self.during is not None:
            self.during(self.pauses)
        yield


def made(text: str = TEXT, *, live: bool = True, **options: Any) -> tuple[Machine, ProgramData, _Clock]:
    """A machine whose code uses CPU 1's block, and the host's view of its data."""
    guest, clock = Machine(text, [Function()], **options), _Clock()
    guest.write(DATA + guest.plan.block(0), guest.plan.block_head())
    data = ProgramData(
        _Memory(guest, live),
        DATA,
        plan=guest.plan,
        layout=guest.layout,
        program=guest.program,
        cpus=(0, 1),
        probes={s.number: ProbeIdentity(s.probe.id, s.probe.name) for s in guest.sites},
        clock=clock,  # type: ignore[arg-type]
    )
    return guest, data, clock


def test_records_are_taken_once_and_values_stay() -> None:
    guest, data, clock = made()
    for value in (3, 4):
        guest.fire(rdi=value, rsi=9)
    drained = data.drain()
    assert [(cpu, record.payload) for cpu, record in drained.records] == [
        (1, struct.pack("<q", value)) for value in (3, 4)
    ]
    assert drained.corrupt == 0 and 0 < drained.fill < 1
    assert data.drain().records == () and data.drain().fill == 0
    rows = data.aggregations()
    assert [words for _, words in rows[0]] == [(2,)] and rows[1] == [((9,), (7,))]
    assert data.load(0) == 4 and data.counted(0) == 2
    data.store(0, -1)
    assert data.load(0) == (1 << 64) - 1
    assert clock.pauses == 0, "memory that is live is read while the guest runs"


def test_a_guest_whose_memory_is_not_live_is_stopped_once_for_many_reads() -> None:
    guest, data, clock = made(live=False)
    guest.fire(rdi=1)
    assert len(data.drain().records) == 1 and clock.pauses == 1
    data.aggregations()
    assert clock.pauses == 2


def test_rings_can_be_left_as_they_are() -> None:
    guest, data, _ = made()
    guest.fire(rdi=1)
    assert data.drain(take=False).records == () and len(data.drain().records) == 1


def test_what_is_complete_is_told() -> None:
    """CPU 0 is idle, so everything until the reading before is complete; nothing more is while it is in a clause."""
    guest, data, _ = made()
    guest.fire(rdi=1)
    drained = data.drain()
    (first,) = [record.timestamp for _, record in drained.records]
    assert drained.complete_until == first, "the second look finds no more"
    inside = DATA + guest.plan.block(0) + 8 * HeaderWord.GUARD
    guest.write(inside, b"\1")
    guest.fire(rdi=1)
    drained = data.drain()
    assert len(drained.records) == 1 and drained.complete_until == first
    guest.write(inside, bytes(8))
    assert data.drain(take=False).complete_until == first
    newest = data.drain().complete_until
    assert newest is not None and newest > first
    data.freeze()
    assert data.drain().complete_until is None


def test_a_guest_that_stands_still_is_complete_unless_a_cpu_is_in_a_clause() -> None:
    guest, data, _ = made(live=False)
    guest.fire(rdi=1)
    drained = data.drain()
    assert drained.complete_until == drained.records[0][1].timestamp
    guest.write(DATA + guest.plan.block(0) + 8 * HeaderWord.GUARD, b"\1")
    guest.fire(rdi=1)
    assert data.drain().complete_until == drained.complete_until


def test_drops_are_told_by_cpu() -> None:
    guest, data, _ = made()
    guest.set_word(HeaderWord.PRINCIPAL_DROPS, 5)
    guest.set_word(HeaderWord.RECURSION_DROPS, 6)
    guest.set_word(HeaderWord.AGG_DROPS, 1)
    guest.set_word(HeaderWord.AGG_DROPS + 1, 2)
    guest.set_word(HeaderWord.FILLED, 1)
    drained = data.drain()
    assert drained.principal_drops == {0: 0, 1: 5} and drained.recursion_drops == {0: 0, 1: 6}
    assert drained.aggregation_drops == {0: 0, 1: 3} and drained.filled


@pytest.mark.parametrize("head", [1 << 40, 7])
def test_a_ring_that_makes_no_sense_is_emptied_and_counted(head: int) -> None:
    guest, data, _ = made()
    guest.set_word(HeaderWord.HEAD, head)
    drained = data.drain()
    assert drained.records == () and drained.corrupt == 1
    assert guest.word(HeaderWord.TAIL) == head and data.drain().corrupt == 0


def test_memory_that_is_not_ours_any_more_is_an_error() -> None:
    guest, data, _ = made()
    guest.set_word(HeaderWord.MAGIC, 0)
    with pytest.raises(GuestError, match="rebooted or died"):
        data.drain()


def test_probing_ends_with_a_copy_that_the_guest_cannot_change() -> None:
    guest, data, clock = made()
    guest.fire(rdi=3, rsi=1)
    data.freeze()
    guest.write(guest.block, bytes(8))
    assert data.frozen and len(data.drain().records) == 1 and data.aggregations()[1] == [((1,), (3,))]
    with data.no_clause_running():
        data.store(0, 8)
    assert data.load(0) == 8 and clock.pauses == 0


def test_a_copy_has_an_end() -> None:
    copy = DataSnapshot(0x1000, b"abcdef")
    assert copy.live and copy.read(0x1002, 3) == b"cde"
    copy.write(0x1000, b"xy")
    assert copy.read(0x1000, 6) == b"xycdef"
    for addr, size in ((0xFFF, 1), (0x1004, 3), (0x1000, -1)):
        with pytest.raises(MemoryAccessError):
            copy.read(addr, size)
    with pytest.raises(MemoryAccessError):
        copy.write(0x1005, b"12")


def test_the_host_waits_until_no_cpu_is_in_a_clause() -> None:
    guest, data, clock = made()
    guest.set_word(HeaderWord.GUARD, 1)
    assert data.cpus_in_clauses() == [1]
    clock.during = lambda pause: guest.set_word(HeaderWord.GUARD, 0) if pause == 3 else None
    with data.no_clause_running():
        assert clock.pauses == 3 and data.cpus_in_clauses() == []


def test_a_cpu_that_stays_in_a_clause_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    guest, data, clock = made()
    guest.set_word(HeaderWord.GUARD, 1)
    with pytest.raises(GuestError, match="stays inside a clause"), data.no_clause_running():
        pass
    assert clock.pauses == 2000


def test_silence_is_a_word_that_clauses_look_at() -> None:
    guest, data, _ = made()
    data.silence()
    assert guest.activity == 1
    guest.fire(rdi=1)
    assert data.drain().records == ()


def test_cost_words_of_a_program_that_is_measured() -> None:
    guest, data, _ = made(measured=True)
    guest.fire(rdi=1)
    assert [len(words) for words in data.cost_words()] == [guest.layout.costs.size] * 2  # type: ignore[union-attr]
    with pytest.raises(InternalError):
        made()[1].cost_words()
    with pytest.raises(InternalError):
        data.counted(1)


def test_what_is_left_of_a_guest_that_is_gone() -> None:
    guest, data, _ = made()
    guest.fire(rdi=3, rsi=9)
    data.keep_copy()
    guest.fire(rdi=4, rsi=9)
    assert data.salvage(intact=True) == 0
    assert [words for _, words in data.aggregations()[0]] == [(2,)] and len(data.drain().records) == 2


def test_of_a_guest_that_was_booted_anew_only_a_copy_that_was_proved_good_is_used() -> None:
    guest, data, _ = made()
    guest.fire(rdi=3, rsi=9)
    data.keep_copy()
    guest.write(DATA, bytes(guest.plan.size))  # the new kernel uses this memory; it ticks like the old one
    data.keep_copy()
    age = data.salvage(intact=False)
    assert age is not None and age > 0
    assert [words for _, words in data.aggregations()[0]] == [(1,)]


def test_memory_that_is_not_ours_any_more_is_not_read() -> None:
    guest, data, _ = made()
    guest.fire(rdi=3)
    guest.write(DATA, bytes(guest.plan.size))
    assert data.salvage(intact=True) is None
