"""Every write of a run fails in turn, and the guest is restored each time.

The guest is a fake that notices what would kill it (:mod:`tests.support.fake_guest`). A write that fails is the
beginning: its stream is dead from then on, as a terminal is that was closed. A reader that does not read blocks every
stream, and then SIGTERM arrives.
"""

from __future__ import annotations

import errno
import os
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from probekit.cli.main import main
from probekit.output import streams
from tests.support.small_attachment import small_guest
from tests.support.small_enabling import SmallEnabling, quick

__all__ = ("quick",)
pytestmark = pytest.mark.usefixtures("quick")

BLOCKED = 0
HOW = {"EIO": errno.EIO, "EPIPE": errno.EPIPE, "ENOSPC": errno.ENOSPC, "EBADF": errno.EBADF, "blocked": BLOCKED}
PROGRAM = (
    "fbt::: { @ = count(); }",
    'BEGIN { x = 1; printf("begin\\n"); system("true"); }',
    'tick-1ms { n++; printf("tick\\n"); trace(1 / (x - x)); }',
    "tick-1ms /n == 3/ { exit(3); }",
    'END { printf("end\\n"); printa(@); }',
)


@dataclass
class _Writes:
    """Stands in for ``os`` in :mod:`probekit.output.streams`. ``at``: the number of the first write that fails."""

    at: int | None = None
    how: int = BLOCKED
    count: int = 0
    dead: set[int] = field(default_factory=set)
    signalled: bool = False
    held: list[bool] = field(default_factory=list)
    world: SmallEnabling | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def write(self, fd: int, data: bytes) -> int:
        now, self.count = self.count, self.count + 1
        self.held.append(self.world is not None and bool(self.world.guest.changed()))
        if now == self.at:
            self.dead.add(fd)
        if self.at is None or now < self.at:
            return os.write(fd, data)
        if self.how == BLOCKED:
            if not self.signalled and signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
                self.signalled = True
                os.kill(os.getpid(), signal.SIGTERM)
            raise BlockingIOError(errno.EAGAIN, "full")
        if fd in self.dead:
            raise OSError(self.how, os.strerror(self.how))
        return os.write(fd, data)


def _run(folder: Path, writes: _Writes, *more: str) -> tuple[int, SmallEnabling]:
    """Trace the fake guest. Returns the exit status, and the guest at the end."""
    world = SmallEnabling(folder)
    writes.world = world
    clean: list[bool] = []

    def detached() -> None:
        world.guest.check_clean()
        clean.append(world.guest.running)

    with pytest.MonkeyPatch.context() as patched, world.process():
        patched.setattr(streams, "os", writes)
        patched.setattr(streams, "_IDLE_S", 0.01)
        with small_guest(world, detached):
            status = main(["-r", "fake:1", *more, *(word for clause in PROGRAM for word in ("-n", clause))])
    assert clean == [True]
    return status, world


FORMS = {
    "text": ("-v", "-S", "-w"),
    "json": ("--json", "-w"),
    "document": ("-x", "oformat=json", "-w"),
    "file": ("-q", "-w", "-o"),
}


@pytest.mark.parametrize(
    ("form", "how"), [(form, how) for form in FORMS for how in HOW if form == "text" or how in ("EIO", "blocked")]
)
def test_each_write_fails_in_turn_and_the_guest_is_restored(
    how: str, form: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    more = (*FORMS[form], str(tmp_path / "out")) if form == "file" else FORMS[form]
    whole = _Writes()
    status, world = _run(tmp_path / "whole", whole, *more)
    assert status == 3, capfd.readouterr().err
    assert world.journal() is None
    assert any(whole.held) and not all(whole.held)  # output is written while the guest is changed
    reached = 0
    for at in range(whole.count):
        writes = _Writes(at, HOW[how])
        try:
            status, world = _run(tmp_path / str(at), writes, *more)
            world.guest.check_clean()
            assert world.journal() is None
            assert status != 0 or how in ("EPIPE", "EBADF")
        except BaseException as error:
            error.add_note(f"write {at} of {whole.count}: {how}")
            raise
        said = capfd.readouterr().err
        assert "internal error" not in said and "Traceback" not in said
        reached += bool(writes.dead)
    assert reached >= whole.count - 2  # ticks come when they come: a run may have one write less


@pytest.mark.parametrize("error", [RuntimeError("broken"), OSError(errno.EIO, "gone"), KeyError("x")], ids=repr)
def test_a_progress_function_that_fails_does_not_keep_the_guest(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def progress(self: object, text: str) -> None:
        if text.startswith("restoring"):
            raise error

    monkeypatch.setattr("probekit.cli.progress.Progress.__call__", progress)
    status, world = _run(tmp_path, _Writes(), "-w")
    assert status == 3 and world.journal() is None
    assert "the progress function failed" in capfd.readouterr().err


@pytest.mark.parametrize("method", ["event", "flush", "aggregations", "close"])
def test_a_renderer_that_fails_does_not_keep_the_guest(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(f"probekit.output.text.TextRenderer.{method}", fail)
    world = SmallEnabling(tmp_path)
    with world.process(), small_guest(world, world.guest.check_clean), pytest.raises(RuntimeError, match="broken"):
        main(["-r", "fake:1", "-w", *(word for clause in PROGRAM for word in ("-n", clause))])
    world.guest.check_clean()
    assert world.journal() is None


def test_a_signal_is_answered_as_soon_as_it_is_said_that_the_guest_is_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def progress(self: object, text: str) -> None:
        if text.startswith("restoring"):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("probekit.cli.progress.Progress.__call__", progress)
    status, world = _run(tmp_path, _Writes(), "-w")
    assert status == 3 and world.journal() is None
    assert "kill -9 would leave that to `probekit recover`" in capfd.readouterr().err
