"""One trace of a guest at a time, one reader of a trace, one thread that talks to the guest; and a clean end of all."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from probekit.errors import DetachedError, InUseError
from probekit.ir.build import compile_program
from probekit.session import attach
from probekit.session.exclusive import ExclusiveSteps, ExclusiveUse, TraceTurns, detach_at_exit
from probekit.session.opening import AttachOptions
from probekit.session.options import Options
from probekit.session.run import Run
from tests.support.fake_guest import FakeGuest
from tests.support.small_attachment import small_guest
from tests.support.small_enabling import SmallEnabling, quick

__all__ = ("quick",)

PROBES = compile_program("fbt::: { @ = count(); }", allow_bare=True)


class Trace:
    """Something to close."""

    def __init__(self, use: ExclusiveUse) -> None:
        self.use = use
        self.closed = 0

    def close(self) -> None:
        self.closed += 1
        self.use.end(self)


def test_a_second_trace_is_refused_until_the_first_has_ended() -> None:
    use = ExclusiveUse()
    first, second = Trace(use), Trace(use)
    use.begin(first)
    use.begin(first)
    with pytest.raises(InUseError, match="one at a time"):
        use.begin(second)
    use.end(second)
    with pytest.raises(InUseError):
        use.begin(second)
    use.end(first)
    use.begin(second)


def test_detaching_closes_the_live_trace_first_and_happens_once() -> None:
    use, done = ExclusiveUse(), []
    trace = Trace(use)
    use.begin(trace)
    use.detach(lambda: done.append(trace.closed))
    use.detach(lambda: done.append(trace.closed))
    assert done == [1] and trace.closed == 1
    with pytest.raises(DetachedError):
        use.begin(trace)
    with pytest.raises(DetachedError), use.turn():
        pass


def test_it_lets_go_although_closing_fails() -> None:
    class Stuck(Trace):
        def close(self) -> None:
            raise InUseError("stuck")

    use, done = ExclusiveUse(), []
    use.begin(Stuck(use))
    with pytest.raises(InUseError, match="stuck"):
        use.detach(lambda: done.append(1))
    assert done == [1]
    use.detach(lambda: done.append(2))
    assert done == [1]


def test_other_threads_wait_for_their_turn() -> None:
    use, said = ExclusiveUse(), []

    def other() -> None:
        with use.turn():
            said.append("other")

    thread = threading.Thread(target=other)
    with use.turn(), use.turn():
        thread.start()
        thread.join(0.1)
        assert thread.is_alive() and said == []
    thread.join(10)
    assert said == ["other"]


def numbers(inside: threading.Event, go_on: threading.Event, ended: list[str]) -> Generator[int]:
    try:
        yield 1
        inside.set()
        go_on.wait(10)
        yield 2
    finally:
        ended.append("ended")


def test_a_second_reader_is_refused_and_harms_nothing() -> None:
    inside, go_on, ended, got = threading.Event(), threading.Event(), list[str](), list[int]()
    steps = ExclusiveSteps(numbers(inside, go_on, ended), lambda: None)
    assert next(steps) == 1
    thread = threading.Thread(target=lambda: got.append(next(steps)))
    thread.start()
    assert inside.wait(10)
    with pytest.raises(InUseError, match="being read already"):
        next(steps)
    steps.close()  # a step is being taken, so that it is left to whoever takes it
    assert ended == []
    go_on.set()
    thread.join(10)
    assert got == [2] and list(steps) == [] and ended == ["ended"]


def test_one_that_is_dropped_is_ended() -> None:
    ended: list[str] = []
    steps = ExclusiveSteps(numbers(threading.Event(), threading.Event(), ended), lambda: None)
    next(steps)
    del steps
    gc.collect()
    assert ended == ["ended"]


def test_a_step_that_reads_itself_is_refused() -> None:
    def careless() -> Generator[int]:
        yield next(steps)

    steps = ExclusiveSteps(careless(), lambda: None)
    with pytest.raises(InUseError):
        next(steps)


class Racing(ExclusiveUse):
    """Another thread does something just before one of the turns."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.left = at
        self.act: Callable[[], None] = lambda: None

    @contextmanager
    def turn(self) -> Iterator[None]:
        self.left -= 1
        if self.left == -1:
            self.act()
        with super().turn():
            yield


@pytest.mark.parametrize("how", ["close", "detach"])
def test_ended_by_another_thread_at_any_turn(tmp_path: Path, quick: None, how: str) -> None:
    """The guest is not used any more, and its reader comes to an end."""
    ended, at = False, 0
    while not ended:
        world, use = SmallEnabling(tmp_path, FakeGuest()), Racing(at)
        with world.process(), small_guest(world), attach.attach("unix:/fake", AttachOptions()) as attachment:
            attachment.use = use
            trace = Run(attachment, PROBES, Options())
            detach = partial(use.detach, lambda: None)
            use.act = trace.close if how == "close" else detach
            steps = trace.events(seconds=0.001)
            if how == "detach" and at < 3:  # before it has begun
                with pytest.raises(DetachedError):
                    list(steps)
            else:
                list(steps)
            trace.close()
        world.guest.check_clean()
        ended, at = use.left >= 0, at + 1
    assert at > 6


PROGRAM = """
from probekit.session.exclusive import detach_at_exit
class Attachment:
    def detach(self):
        print("detached")
attachment = Attachment()
detach_at_exit(attachment)
{}
"""


@pytest.mark.parametrize(
    ("end", "said"),
    [("", "detached\n"), ("raise SystemExit(3)", "detached\n"), ("1 / 0", "detached\n"), ("del attachment", "")],
)
def test_the_end_of_the_interpreter_detaches(end: str, said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(end)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == said, done.stderr


def test_it_is_not_kept_alive() -> None:
    class Attachment:
        def detach(self) -> None:
            raise AssertionError("it is gone")

    attachment = Attachment()
    detach_at_exit(attachment)
    del attachment
    gc.collect()


def test_the_turns_of_a_trace() -> None:
    use = ExclusiveUse()
    first, second = TraceTurns(use, Trace(use)), TraceTurns(use, Trace(use))
    first.begin()
    with pytest.raises(InUseError):
        second.begin()
    with first.turn() as is_open:
        assert is_open
    first.closed = True
    with first.turn() as is_open:
        assert not is_open
    first.end()
    second.begin()
    use.detach(lambda: None)
    second.check()  # it had begun: its reader ends without an error
    with second.turn() as is_open:
        assert is_open
    with pytest.raises(DetachedError), second.exclusive():
        pass
    with pytest.raises(DetachedError):
        TraceTurns(use, Trace(use)).check()


def test_a_trace_without_a_guest_waits_for_nobody() -> None:
    turns = TraceTurns(None, Trace(ExclusiveUse()))
    turns.check()
    turns.begin()
    with turns.exclusive(), turns.turn() as is_open:
        assert is_open
    turns.end()
