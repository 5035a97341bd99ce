"""A guest that is let run in slices: its pauses are counted, and now and then it is looked at."""

from __future__ import annotations

from typing import Any

import pytest

from probekit.errors import GuestGone, TargetError
from probekit.guest import watched_run
from probekit.guest.memory import PauseClock
from probekit.guest.watched_run import WatchedRun
from probekit.target.api import StopReason

TRAP = StopReason("breakpoint", 5, 1, "T05")
ASKED = StopReason("interrupt", 2, 1, "T02")


class _Guest:
    """``stops``: what each wait sees."""

    def __init__(self, *stops: StopReason | None) -> None:
        self.stops = list(stops)
        self.running = False
        self.resumed = 0
        self.status = "shutdown"

    def monitor(self, command: str) -> str:
        return f"VM status: paused ({self.status})"

    def resume(self) -> None:
        self.running, self.resumed = True, self.resumed + 1

    def wait(self, seconds: float) -> StopReason | None:
        stop = self.stops.pop(0)
        self.running = stop is None
        return stop

    def stop(self) -> StopReason:
        self.running = False
        return ASKED


def made(*stops: StopReason | None, **options: Any) -> tuple[Any, WatchedRun, PauseClock]:
    guest: Any = _Guest(*stops)
    clock = PauseClock(guest)
    return guest, WatchedRun(guest, clock, options.get("alive", lambda stopped: None)), clock


def test_one_that_still_runs_is_not_resumed_again_and_pauses_are_counted() -> None:
    guest, run, clock = made(None, TRAP, TRAP)
    assert run.run(1) is None and guest.running
    assert run.run(1) == TRAP and guest.resumed == 1
    assert clock.count == 0
    assert run.run(1) == TRAP and guest.resumed == 2
    run.end_pause()
    assert clock.count == 2


def test_it_is_stopped_for_a_look_only_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    guest, run, clock = made(None, alive=seen.append)
    run.begin()
    run.run(1)
    assert run.look() is None and seen == [False] and guest.running
    monkeypatch.setattr(watched_run, "_LOOK", 0.0)
    run.begin()
    assert run.look() == ASKED and seen == [False, False, True] and not guest.running
    run.end_pause()
    assert clock.count == 1


def test_a_stop_by_which_the_guest_has_ended_is_an_error() -> None:
    guest, run, _ = made()
    run.check(TRAP)
    run.check(ASKED)
    with pytest.raises(TargetError, match="ended"):
        run.check(StopReason("exited", 0, 0, "W00"))
    strange = StopReason("interrupt", 6, 1, "T06")
    with pytest.raises(GuestGone, match="shut down"):
        run.check(strange)
    guest.status = "watchdog"
    run.check(strange)
