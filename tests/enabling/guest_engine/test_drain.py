"""A guest with little to say is left alone, one whose rings fill is read sooner, and there are bounds."""

from __future__ import annotations

import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from probekit.buffers.layout import RawRecord
from probekit.enabling.api import Drained, EngineOptions
from probekit.enabling.guest_engine.drain import Drain, DrainPace
from probekit.errors import GuestError
from probekit.target.api import StopReason


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def visit(pace: DrainPace, clock: Clock, fill: float, *, lost: bool = False) -> float:
    clock.now += pace.seconds_left
    begun = clock.now
    clock.now += 0.002
    pace.note_reading(begun, fill, lost=lost)
    return pace.seconds_left


def test_it_is_due_at_once_and_then_by_what_was_found() -> None:
    clock = Clock()
    pace = DrainPace(clock)
    assert pace.seconds_left == 0
    waits = [visit(pace, clock, 0.0) for _ in range(20)]
    assert waits == sorted(waits) and waits[0] > 0.1 and waits[-1] == waits[-2] <= 0.5
    busy = [visit(pace, clock, 0.7) for _ in range(10)]
    assert busy == sorted(busy, reverse=True) and abs(busy[-1] - 0.01) < 1e-6
    steady = [visit(pace, clock, 0.3) for _ in range(3)]
    assert max(steady) - min(steady) < 1e-6
    calm = visit(pace, clock, 0.0)
    assert steady[-1] < calm > visit(pace, clock, 0.0, lost=True)
    assert pace.stops == 35 and abs(pace.longest - 0.002) < 1e-6


class Data:
    """Our data memory; ``found``: what each reading finds, the last of them from then on."""

    def __init__(self, *found: Drained, live: bool = True, frozen: bool = False) -> None:
        self.memory = self
        self.live, self.frozen = live, frozen
        self.found = list(found) or [EMPTY]
        self.takes: list[bool] = []

    def drain(self, *, take: bool = True) -> Drained:
        self.takes.append(take)
        return self.found.pop(0) if len(self.found) > 1 else self.found[0]


class Heart:
    """A heartbeat; ``sent``: how many."""

    timeouts = 3

    def __init__(self) -> None:
        self.sent = 0

    def send(self) -> None:
        self.sent += 1


class Machine:
    """A target that runs, and never stops by itself."""

    running = True

    def __init__(self, *stops: StopReason) -> None:
        self.stops = list(stops)
        self.resumed = 0

    def wait(self, timeout: float) -> StopReason | None:
        time.sleep(min(timeout, 0.002))
        return self.stops.pop(0) if self.stops else None

    def monitor(self, command: str) -> str:
        return "VM status: paused (guest-panicked)" if self.resumed < 0 else "VM status: running"

    def resume(self) -> None:
        self.resumed += 1


def record(payload: bytes = b"") -> tuple[int, RawRecord]:
    return (0, RawRecord(0, 1, 0, 0, payload))


EMPTY = Drained((), {0: 0}, {0: 0}, {0: 0}, complete_until=0)
ONE = Drained((record(),), {0: 0}, {0: 0}, {0: 0}, complete_until=0)


def drain(data: Data | None, target: Machine | None = None, **options: Any) -> tuple[Drain, Heart]:
    heart = Heart()
    resources: Any = SimpleNamespace(program_data=data, heartbeat=heart)
    machine: Any = target or Machine()
    return Drain(machine, EngineOptions(**options), resources), heart


def test_nothing_is_read_before_there_is_anything() -> None:
    assert drain(None)[0].poll(10).records == ()


def test_live_memory_is_read_until_something_is_there() -> None:
    data = Data(EMPTY, EMPTY, ONE, EMPTY)
    reader, heart = drain(data)
    drained = reader.poll(10)
    assert drained.records == ONE.records and drained.watchdog_timeouts == 3
    assert data.takes == [True] * 3 and heart.sent == 3


def test_without_live_memory_readings_are_counted_and_kept_apart() -> None:
    data = Data(ONE, EMPTY, live=False)
    reader, _ = drain(data)
    assert reader.poll(0).records == ONE.records
    again = reader.poll(0)
    assert again.records == () and again.principal_drops == {0: 0} and len(data.takes) == 1
    assert reader.pace.stops == 1


def test_other_policies_than_switch_read_the_rings_when_all_is_over() -> None:
    data = Data(ONE)
    reader, _ = drain(data, bufpolicy="ring")
    reader.poll(0)
    data.frozen = True
    reader.poll(0)
    assert data.takes == [False, True]


def test_a_rate_holds_between_two_readings_of_the_rings() -> None:
    data = Data(EMPTY)
    reader, _ = drain(data, switchrate_s=60.0)
    reader.poll(0.03)
    assert data.takes[0] and not any(data.takes[1:]) and len(data.takes) > 1


def test_a_guest_that_somebody_else_paused_goes_on_and_a_dead_one_is_an_error() -> None:
    stop = StopReason("interrupt", 2, 1, "T02")
    target = Machine(stop)
    drain(Data(EMPTY, EMPTY, ONE), target)[0].poll(10)
    assert target.resumed == 1
    dead = Machine(stop)
    dead.resumed = -1
    with pytest.raises(GuestError, match="panicked"):
        drain(Data(EMPTY), dead)[0].poll(10)


def test_it_tells_at_once_that_what_was_read_before_is_complete() -> None:
    later = replace(EMPTY, complete_until=1)
    data = Data(ONE, EMPTY, later)
    reader, _ = drain(data)
    assert reader.poll(10).records == ONE.records
    assert reader.poll(10) == replace(later, watchdog_timeouts=3)
    assert reader.poll(0.01).complete_until == 1 and len(data.takes) > 3, "once"
