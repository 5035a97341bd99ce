"""Speculation buffers: on the host alone, and with a guest that shares the numbers."""

from __future__ import annotations

from probekit.buffers.layout import RawRecord
from probekit.enabling.speculation import Ending, Speculations


def record(payload: bytes = b"") -> RawRecord:
    return RawRecord(clause=0, timestamp=0, site=0, fault=0, payload=payload)


def test_numbers_are_given_and_come_back() -> None:
    buffers = Speculations(2, 1000)
    assert [buffers.acquire() for _ in range(3)] == [1, 2, 0]
    assert buffers.unavailable == 1
    buffers.discard(1)
    assert buffers.acquire() == 1
    assert buffers.commit(2) == []
    assert buffers.acquire() == 2


def test_records_wait_for_commit() -> None:
    buffers = Speculations(1, 1000)
    buffers.speculate(1, 0, record())  # nobody has acquired it
    assert buffers.acquire() == 1
    assert buffers.commit(1) == []
    buffers.acquire()
    buffers.speculate(1, 0, record(b"x"))
    buffers.speculate(0, 0, record(b"y"))
    assert [held.payload for _, held in buffers.commit(1)] == [b"x"]
    assert buffers.commit(1) == []


def test_what_does_not_fit_is_counted() -> None:
    buffers = Speculations(1, 64)
    buffers.acquire()
    buffers.speculate(1, 0, record(bytes(32)))
    buffers.speculate(1, 0, record(bytes(32)))
    assert buffers.drops == 1
    assert len(buffers.commit(1)) == 1


class Shared:
    """The words of a guest: the lowest free number is taken first."""

    def __init__(self, count: int) -> None:
        self.words = ["free"] * count

    def acquire(self) -> int | None:
        number = self.words.index("free") + 1
        self.words[number - 1] = "active"
        return number

    def speculate(self, number: int) -> bool:
        word = self.words[number - 1]
        if word in ("active", "cpu 0"):
            self.words[number - 1] = "host" if word == "active" else "many"
        return word not in ("free", "ended")

    def end(self, number: int) -> Ending:
        word = self.words[number - 1]
        if word in ("free", "ended"):
            return Ending.NOTHING
        self.words[number - 1] = "free" if word in ("active", "host") else "ended"
        return Ending.AT_ONCE if word in ("active", "host") else Ending.LATER

    def release(self, number: int) -> None:
        self.words[number - 1] = "free"


def shared(count: int, size: int = 1000) -> tuple[Speculations, Shared]:
    buffers, words = Speculations(count, size), Shared(count)
    buffers.share(words)
    return buffers, words


def test_the_numbers_that_are_active_are_those_that_the_guest_has_as_active() -> None:
    buffers = Speculations(5, 1000)
    assert [buffers.acquire() for _ in range(4)] == [1, 2, 3, 4]
    buffers.discard(1)
    buffers.discard(2)
    buffers.speculate(4, 0, record(b"begin"))
    words = Shared(5)
    buffers.share(words)
    assert words.words == ["free", "free", "active", "host", "free"]
    assert buffers.commit(4) == [(0, record(b"begin"))] and words.words[3] == "free"


def test_without_an_active_one_all_are_free_in_the_guest() -> None:
    assert shared(2)[1].words == ["free", "free"]


def test_the_host_alone_frees_what_it_ends() -> None:
    buffers, words = shared(1)
    for number in range(3):
        assert buffers.acquire() == 1
        buffers.speculate(1, 0, record(bytes([number])))
        assert buffers.commit(1) == [(0, record(bytes([number])))]
        assert words.words == ["free"]
    buffers.speculate(1, 0, record(b"lost: it is not active"))
    assert buffers.acquire() == 1 and buffers.commit(1) == []


def test_what_a_cpu_has_speculated_waits_for_one_more_reading() -> None:
    buffers, words = shared(1)
    buffers.acquire()
    words.words = ["cpu 0"]
    buffers.hold(1, 0, record(b"a"))
    buffers.speculate(1, 0, record(b"b"))
    assert words.words == ["many"]
    assert buffers.commit(1) == [] == buffers.settle() and words.words == ["ended"]
    buffers.hold(1, 0, record(b"c"))  # read late, from another CPU's ring
    assert {held.payload for _, held in buffers.settle()} == {b"a", b"b", b"c"}
    assert words.words == ["free"]


def test_one_use_is_ended_at_once_while_records_of_the_next_are_read_already() -> None:
    """CPU 1's ring was read after CPU 0 had freed the number, and CPU 0's before it."""
    buffers, _ = shared(1)
    buffers.hold(1, 0, record(b"first"))
    buffers.hold(1, 1, record(b"second"))
    assert buffers.ended_at_once(1, 0, keep=True) == [(0, record(b"first"))]
    assert buffers.ended_at_once(1, 1, keep=False) == []
    assert buffers.ended_at_once(1, 1, keep=True) == []


def test_each_cpu_has_room_of_its_own() -> None:
    buffers, _ = shared(1, size=64)
    for cpu in (0, 1, 0, 1):
        buffers.hold(1, cpu, record(bytes(32)))
    assert buffers.drops == 2


def test_a_number_that_a_guest_has_made_up_keeps_nothing() -> None:
    buffers, _ = shared(2)
    for number in (-1, 0, 3, 1 << 40):
        buffers.hold(number, 0, record())
        assert buffers.ended_at_once(number, 0, keep=True) == []
    assert buffers.drops == 4
