"""What ends a run, and how long it may wait until then."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from probekit.session.options import Options
from probekit.session.run_limits import RunLimits
from probekit.session.run_state import RunState
from probekit.session.signals import Interrupts


class _Run:
    """``due``: seconds to the next timed probe; ``costly``: what the guest's part says; ``ended``: the process."""

    def __init__(self, *, due: float | None = None, guest: bool = False, process: bool = False) -> None:
        self.due, self.costly, self.ended = due, False, False
        self.state, self.interrupts = RunState(), Interrupts()
        host: Any = SimpleNamespace(timed=due is not None, due_in=lambda: self.due)
        part: Any = SimpleNamespace(too_costly=lambda: self.costly) if guest else None
        self.limits = RunLimits(
            self.state, self.interrupts, Options(), host, part, (lambda: self.ended) if process else None
        )


def test_each_limit_ends_it() -> None:
    run = _Run(guest=True, process=True)
    run.limits.begin(None)
    assert not run.limits.over()
    run.costly = True
    assert run.limits.over()
    run = _Run(process=True)
    run.ended = True
    assert run.limits.over()
    run = _Run()
    run.interrupts.request()
    assert run.limits.over()
    run = _Run()
    run.state.exited(0)
    assert run.limits.over()
    run = _Run()
    run.limits.begin(0)
    assert run.limits.over()


def test_whether_anything_ends_it_by_itself() -> None:
    assert not _Run().limits.any
    assert _Run(due=1).limits.any and _Run(process=True).limits.any
    run = _Run()
    run.limits.begin(60)
    assert run.limits.any and not run.limits.over()


@pytest.mark.parametrize(("due", "seconds", "longest"), [(None, None, 0.2), (0.05, None, 0.05), (5, 0.01, 0.01)])
def test_it_waits_until_the_first_of_them_at_most(due: float | None, seconds: float | None, longest: float) -> None:
    run = _Run(due=due)
    run.limits.begin(seconds)
    assert 0 <= run.limits.seconds_to_wait() <= longest


def test_what_is_overdue_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _Run(due=-3).limits.seconds_to_wait() == 0
    run = _Run()
    run.limits.begin(1)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 2)
    assert run.limits.seconds_to_wait() == 0 and run.limits.over()
