"""Speculation buffers."""

from __future__ import annotations

from probekit.buffers.layout import RawRecord
from probekit.enabling.speculation import Speculations


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
    buffers.hold(1, 0, record())  # nobody has acquired it
    assert buffers.acquire() == 1
    assert buffers.commit(1) == []
    buffers.acquire()
    buffers.hold(1, 0, record(b"x"))
    buffers.hold(0, 0, record(b"y"))
    assert [held.payload for _, held in buffers.commit(1)] == [b"x"]
    assert buffers.commit(1) == []


def test_what_does_not_fit_is_counted() -> None:
    buffers = Speculations(1, 64)
    buffers.acquire()
    buffers.hold(1, 0, record(bytes(32)))
    buffers.hold(1, 0, record(bytes(32)))
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

    def end(self, number: int) -> bool:
        raise AssertionError(number)

    def release(self, number: int) -> None:
        self.words[number - 1] = "free"


def test_the_numbers_that_are_active_are_those_that_the_guest_has_as_active() -> None:
    buffers = Speculations(4, 1000)
    assert [buffers.acquire() for _ in range(3)] == [1, 2, 3]
    buffers.discard(1)
    buffers.discard(2)
    shared = Shared(4)
    buffers.share(shared)
    assert shared.words == ["free", "free", "active", "free"]


def test_without_an_active_one_all_are_free_in_the_guest() -> None:
    shared = Shared(2)
    Speculations(2, 1000).share(shared)
    assert shared.words == ["free", "free"]
