"""Whether a guest that is found stopped is somebody's to keep so, or was stopped by a probekit that was killed."""

from __future__ import annotations

from typing import Any

import pytest

from probekit.session import opening
from probekit.session.lock import Hold
from probekit.session.opening import AttachOptions, open_target
from tests.support.fake_target import FakeTarget


class _Lock:
    def __init__(self, left: Hold) -> None:
        self.left = left
        self.notes: list[bool] = []

    def note_hold(self, held: bool) -> None:
        self.notes.append(held)


class _Target(FakeTarget):
    state = "paused"
    ours = False

    def monitor(self, command: str) -> str:
        assert command == "info status"
        return f"VM status: paused{'' if self.state == 'paused' else f' ({self.state})'}\r\n"

    def own_pause(self) -> None:
        self.ours = True


@pytest.mark.parametrize(
    ("left", "state", "ours"),
    [
        (Hold.NONE, "paused", False),
        (Hold.NONE, "debug", False),
        (Hold.RUNNING, "paused", False),
        (Hold.RUNNING, "debug", True),  # a breakpoint that it had set
        (Hold.STOPPED, "paused", True),
        (Hold.STOPPED, "debug", True),
        (Hold.STOPPED, "postmigrate", False),
        (Hold.STOPPED, "prelaunch", False),
    ],
)
def test_who_stopped_it(monkeypatch: pytest.MonkeyPatch, left: Hold, state: str, ours: bool) -> None:
    target, lock, said = _Target(paused=True), _Lock(left), []
    target.state = state
    asked: list[Any] = []

    def connect(spec: str, **options: Any) -> _Target:
        asked.append((spec, options["was_running"], list(lock.notes)))
        return target

    monkeypatch.setattr(opening, "connect", connect)
    opened = open_target("unix:/stub", AttachOptions(progress=said.append), lock)  # type: ignore[arg-type]
    assert opened.target is target and opened.qmp is None
    assert asked == [("unix:/stub", None, [True])], "connecting stops it, and that is on disk before"
    assert target.ours is ours
    assert ("was killed" if ours else "stays paused") in said[-1]
