"""Whether a guest that is found stopped is somebody's to keep so, or was stopped by a probekit that was killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from probekit.errors import Cancelled, TargetError, TargetLost
from probekit.session import opening
from probekit.session.lock import Hold
from probekit.session.opening import AttachOptions, open_target
from probekit.target import connect as connect_module
from probekit.target.api import NoteHold, ignore_hold
from tests.support.fake_target import FakeTarget


class _Lock:
    """``notes``: what each note says: the guest is stopped, not so, let go, or as it was left."""

    def __init__(self, left: Hold) -> None:
        self.left = left
        self.notes: list[bool | Hold | None] = []

    def note_hold(self, held: bool | None) -> None:
        self.notes.append(held)

    def note_unchanged(self) -> None:
        self.notes.append(self.left)

    def would_be_left(self) -> Hold:
        """Return what the next one is told, if we are killed now."""
        last = self.notes[-1] if self.notes else self.left
        return last if isinstance(last, Hold) else {True: Hold.STOPPED, False: Hold.RUNNING, None: Hold.NONE}[last]


class _Target(FakeTarget):
    state = "paused"
    ours = False
    note: NoteHold = ignore_hold

    def monitor(self, command: str) -> str:
        assert command == "info status"
        return f"VM status: paused{'' if self.state == 'paused' else f' ({self.state})'}\r\n"

    def own_pause(self) -> None:
        self.ours = True
        self.note(True)

    def detach(self) -> None:
        self.note(None)


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
        target.note = options["note_hold"]
        target.note(False)
        # Killed here, it is for the next one to decide.
        assert left is not Hold.STOPPED or lock.would_be_left() is Hold.STOPPED
        return target

    monkeypatch.setattr(opening, "connect", connect)
    opened = open_target("unix:/stub", AttachOptions(progress=said.append), lock)  # type: ignore[arg-type]
    assert opened.target is target and opened.qmp is None
    assert asked == [("unix:/stub", None, [True])], "connecting stops it, and that is on disk before"
    assert target.ours is ours
    assert ("was killed" if ours else "stays paused") in said[-1]
    assert lock.would_be_left() is (Hold.STOPPED if ours else Hold.RUNNING)
    target.note(False)
    assert lock.would_be_left() is Hold.RUNNING, "it runs"
    opened.close()
    assert lock.would_be_left() is Hold.NONE


@pytest.mark.parametrize("left", Hold)
def test_one_that_was_not_reached_is_as_it_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, left: Hold) -> None:
    lock = _Lock(left)
    with pytest.raises(TargetError, match="cannot connect"):
        open_target(f"unix:{tmp_path}/none", AttachOptions(), lock)  # type: ignore[arg-type]
    assert lock.notes[0] is True and lock.would_be_left() is left


@pytest.mark.parametrize("left", Hold)
def test_a_connection_that_is_lost_may_leave_it_stopped(monkeypatch: pytest.MonkeyPatch, left: Hold) -> None:
    lock = _Lock(left)

    def lose(*given: object, **options: object) -> None:
        raise TargetLost("gone")

    monkeypatch.setattr(connect_module, "_open_stream", lose)
    with pytest.raises(TargetLost):
        open_target("unix:/stub", AttachOptions(), lock)  # type: ignore[arg-type]
    assert lock.would_be_left() is Hold.STOPPED


@pytest.mark.parametrize("left", [Hold.RUNNING, Hold.STOPPED])
def test_interrupted_before_it_is_decided(monkeypatch: pytest.MonkeyPatch, left: Hold) -> None:
    """The guest was stopped by one that was killed. It stays stopped, and the next one lets it run."""
    target, lock = _Target(paused=True), _Lock(left)

    def connect(spec: str, **options: Any) -> _Target:
        target.note = options["note_hold"]
        target.note(False)
        return target

    def interrupt(command: str) -> str:
        raise Cancelled("interrupted")

    monkeypatch.setattr(opening, "connect", connect)
    monkeypatch.setattr(target, "monitor", interrupt)
    with pytest.raises(Cancelled):
        open_target("unix:/stub", AttachOptions(), lock)  # type: ignore[arg-type]
    assert lock.would_be_left() is left
