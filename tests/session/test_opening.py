"""Whether a guest that is found stopped is somebody's to keep so, or was stopped by a probekit that was killed."""

from __future__ import annotations

from typing import Any

import pytest

from probekit.errors import Cancelled, ProbekitError, TargetError, TargetLost, TargetTimeout
from probekit.session import opening
from probekit.session.lock import Hold
from probekit.session.opening import AttachOptions, open_target
from tests.support.fake_target import FakeTarget


class _Lock:
    def __init__(self, left: Hold) -> None:
        self.left = left
        self.notes: list[bool | Hold] = []

    def note_hold(self, held: bool) -> None:
        self.notes.append(held)

    def note_left(self) -> None:
        self.notes.append(self.left)


class _Qmp:
    """``state``: what QEMU says of the machine."""

    state = "paused"
    closed = False

    def __init__(self, path: str, *, timeout: float) -> None:
        pass

    def status(self) -> str:
        return self.state

    def close(self) -> None:
        type(self).closed = True


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
    assert lock.notes[1:] == ([] if ours else [False]), "the target itself notes that it owns the pause"
    assert ("was killed" if ours else "stays paused") in said[-1]


@pytest.mark.parametrize(
    ("left", "state", "note"),
    [
        (Hold.NONE, "running", True),
        (Hold.NONE, "paused", False),  # killed now, the next one must not let it run
        (Hold.RUNNING, "paused", False),
        (Hold.STOPPED, "paused", True),  # killed now, the next one must let it run
    ],
)
def test_what_is_noted_before_connecting(monkeypatch: pytest.MonkeyPatch, left: Hold, state: str, note: bool) -> None:
    lock, asked = _Lock(left), []

    def connect(spec: str, **options: Any) -> _Target:
        asked.append((options["was_running"], list(lock.notes)))
        return _Target(paused=not options["was_running"])

    monkeypatch.setattr(opening, "connect", connect)
    monkeypatch.setattr(_Qmp, "state", state)
    monkeypatch.setattr("probekit.target.qmp.Qmp", _Qmp)
    open_target("unix:/stub", AttachOptions(qmp="unix:/qmp"), lock)  # type: ignore[arg-type]
    assert asked == [(state == "running", [note])]


@pytest.mark.parametrize("left", Hold)
@pytest.mark.parametrize(
    ("error", "touched"),
    [
        (TargetError("connection refused"), False),
        (TargetTimeout("connected, but no gdb stub answers", seconds=1), False),
        (Cancelled("interrupted"), False),
        (TargetLost("closed in the middle of the handshake"), True),
    ],
)
def test_a_connection_that_comes_to_nothing_leaves_the_note_of_an_earlier_one(
    monkeypatch: pytest.MonkeyPatch, left: Hold, error: ProbekitError, touched: bool
) -> None:
    lock = _Lock(left)

    def connect(spec: str, **options: Any) -> _Target:
        raise error

    monkeypatch.setattr(opening, "connect", connect)
    monkeypatch.setattr("probekit.target.qmp.Qmp", _Qmp)
    monkeypatch.setattr(_Qmp, "state", "running")
    with pytest.raises(type(error)):
        open_target("unix:/stub", AttachOptions(qmp="unix:/qmp"), lock)  # type: ignore[arg-type]
    assert lock.notes == ([True] if touched else [True, left])
    assert _Qmp.closed
