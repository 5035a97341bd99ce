"""A guest with little to say is left alone, one whose rings fill is read sooner, and there are bounds."""

from __future__ import annotations

from probekit.enabling.guest_engine.drain import DrainPace


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
