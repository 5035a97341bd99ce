"""Our data memory: through the RAM file without a stop, through the stub with short ones, and how long they were."""

from __future__ import annotations

from typing import Any

import pytest

from probekit.errors import MemoryAccessError
from probekit.guest.memory import PauseClock, RamData, StubData
from probekit.target.api import StopReason
from tests.support.fake_target import FakeTarget

OURS = 0xFFFFC90000010000
STOP = StopReason("interrupt", 2, 1, "T02")


class Ram:
    """Physical memory; ``pieces``: of each access."""

    def __init__(self) -> None:
        self.data = bytearray(0x10000)
        self.pieces: list[tuple[int, int]] = []

    def read(self, phys: int, size: int) -> bytes:
        self.pieces.append((phys, size))
        return bytes(self.data[phys : phys + size])

    def write(self, phys: int, data: bytes) -> None:
        self.pieces.append((phys, len(data)))
        self.data[phys : phys + len(data)] = data


class Target(FakeTarget):
    """A fake one that can be stopped."""

    def stop(self) -> StopReason:
        self.running = False
        return STOP


def test_neighbouring_pages_are_one_piece_and_others_are_not() -> None:
    ram = Ram()
    data = RamData(ram, {OURS: 0x3000, OURS + 0x1000: 0x4000, OURS + 0x2000: 0x1000})
    text = bytes(range(256)) * 32
    data.write(OURS + 0x800, text)
    assert ram.pieces == [(0x3800, 0x1800), (0x1000, 0x800)]
    assert data.read(OURS + 0x800, len(text)) == text and data.live
    assert data.read(OURS, 0) == b""


@pytest.mark.parametrize(("addr", "size"), [(OURS + 0x1000, 1), (OURS - 1, 2), (OURS + 0xFFF, 2)])
def test_what_is_not_ours_is_never_touched(addr: int, size: int) -> None:
    ram = Ram()
    data = RamData(ram, {OURS: 0x3000})
    with pytest.raises(MemoryAccessError, match="not memory of probekit"):
        data.write(addr, bytes(size))
    with pytest.raises(MemoryAccessError):
        data.read(addr, size)
    assert ram.pieces == []


def clock(target: Target, *times: float) -> PauseClock:
    ticking = iter(times)
    shown: Any = target
    return PauseClock(shown, lambda: next(ticking))


def test_an_access_through_the_stub_is_a_short_stop() -> None:
    target = Target({OURS: bytearray(0x1000)}, running=True)
    pauses = clock(target, 1.0, 1.5, 2.0, 4.0)
    shown: Any = target
    data = StubData(shown, pauses)
    data.write(OURS + 8, b"abc")
    assert data.read(OURS + 8, 3) == b"abc" and target.running and not data.live
    assert (pauses.count, pauses.longest, pauses.total) == (2, 2.0, 2.5)


def test_many_accesses_in_a_pause_are_one_stop() -> None:
    target = Target({OURS: bytearray(0x1000)}, running=True)
    pauses = clock(target, 1.0, 2.0)
    shown: Any = target
    data = StubData(shown, pauses)
    with pauses.paused():
        data.write(OURS, b"x")
        assert data.read(OURS, 1) == b"x" and not target.running
    assert pauses.count == 1 and target.running


def test_memory_that_cannot_be_read_is_an_error_and_the_guest_goes_on() -> None:
    target = Target({OURS: bytearray(16)}, running=True)
    shown: Any = target
    with pytest.raises(MemoryAccessError, match="cannot be read"):
        StubData(shown, clock(target, 0.0, 1.0)).read(OURS + 8, 16)
    assert target.running


def test_a_guest_that_stood_still_before_stays_so() -> None:
    target = Target({}, running=False)
    pauses = clock(target)
    with pauses.paused():
        pass
    assert not target.running and pauses.count == 0


def test_whoever_has_probes_that_stop_the_guest_sees_every_stop() -> None:
    target = Target({}, running=True)
    pauses = clock(target, 0.0, 1.0)
    stops: list[StopReason] = []
    pauses.on_stop = stops.append
    with pauses.paused():
        assert stops == [STOP]
    pauses.note(9.0)
    assert (pauses.count, pauses.longest, pauses.total) == (2, 9.0, 10.0)
