"""The Python API misused: refused with errors of its own before anything is allocated, and the guest is clean after."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

import probekit as api
from probekit.errors import BusyError, DetachedError, InUseError
from probekit.session.recover import recover
from tests.guest_fixtures import K61, only
from tests.live.work import our_memory
from vm.guest import Guest
from vm.kernel_code import KernelCode, differences

pytestmark = [pytest.mark.guest, only(K61)]  # nothing of it depends on the kernel

SCRIPT = "fbt::vfs_read:entry, fbt::vfs_read:return { @[probename] = count(); } tick-20ms { trace(1); }"


@pytest.fixture(autouse=True)
def clean(guest: Guest, homes: dict[str, str]) -> Iterator[None]:
    """Behind each test the guest is as before, and there is nothing to recover."""
    text = KernelCode.locate(guest)
    before, memory = text.read(), our_memory(guest)
    yield
    gc.collect()
    assert differences(before, text.read()) == [] and our_memory(guest) == memory
    assert recover(guest.gdb).clean


def live(run: api.Run) -> Iterator[object]:
    """Its events, from the first tick on: probes are live then."""
    events = iter(run.events(seconds=60))
    next(events)
    next(events)
    return events


def test_two_traces_of_one_guest(guest: Guest, homes: dict[str, str]) -> None:
    with api.attach(guest.gdb) as attached, attached.trace(SCRIPT) as first, attached.trace(SCRIPT) as second:
        events = live(first)
        memory = our_memory(guest)
        with pytest.raises(InUseError, match="one at a time"):
            next(iter(second.events()))
        assert our_memory(guest) == memory, "nothing was allocated for the second"
        assert next(events)
        first.close()
        assert list(events) == []
        assert next(live(second))


def test_two_threads(guest: Guest, homes: dict[str, str]) -> None:
    """Two readers of one trace are refused; other calls wait for their turn."""
    refused: list[InUseError] = []
    with api.attach(guest.gdb) as attached, attached.trace(SCRIPT) as run:
        events = live(run)
        over = threading.Event()

        def read() -> None:
            while not over.is_set():
                try:
                    next(events)
                except InUseError as error:
                    refused.append(error)

        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        memory = our_memory(guest)
        for _ in range(5):
            assert len(list(attached.probes("fbt::vfs_re*:entry"))) >= 2
            assert run.aggregations() is not None
            with pytest.raises(InUseError):
                next(iter(attached.trace(SCRIPT).events()))
        assert our_memory(guest) == memory != []
        over.set()
        for thread in threads:
            thread.join(60)
    assert refused


def test_use_after_detach(guest: Guest, homes: dict[str, str]) -> None:
    attached = api.attach(guest.gdb)
    run = attached.trace(SCRIPT)
    attached.detach()
    attached.detach()
    for use in (lambda: attached.probes("fbt:::"), lambda: attached.trace(SCRIPT), lambda: next(iter(run.events()))):
        with pytest.raises(DetachedError, match="detached"):
            use()


def test_detached_while_it_traces(guest: Guest, homes: dict[str, str]) -> None:
    with api.attach(guest.gdb) as attached:
        run = attached.trace(SCRIPT)
        events = live(run)
        attached.detach()
        assert list(events) == [], "the trace has ended"
        assert run.aggregations()


@pytest.mark.parametrize("how", ["detach", "close"])
def test_ended_by_another_thread(guest: Guest, homes: dict[str, str], how: str) -> None:
    with api.attach(guest.gdb) as attached:
        run = attached.trace(SCRIPT)
        events, ended = live(run), list[int]()
        thread = threading.Thread(target=lambda: ended.append(sum(1 for _ in events)))
        thread.start()
        attached.detach() if how == "detach" else run.close()
        thread.join(60)
        assert len(ended) == 1, "its reader comes to an end, without an error"
        assert our_memory(guest) == []


def test_two_attachments(guest: Guest, homes: dict[str, str]) -> None:
    with api.attach(guest.gdb) as attached:
        with pytest.raises(BusyError) as caught:
            api.attach(guest.gdb)
        assert caught.value.pid == os.getpid()
        assert our_memory(guest) == []
        assert next(live(attached.trace(SCRIPT)))


class Fault(Exception):
    """The user's own."""


def _raise_in_loop(run: api.Run) -> None:
    for _ in run.events(seconds=60):
        raise Fault


def _break(run: api.Run) -> None:
    for _ in live(run):
        break


def _drop(run: api.Run) -> None:
    live(run)


def _throw(run: api.Run) -> None:
    for _ in live(run):
        raise KeyboardInterrupt


ENDS: dict[str, Callable[[api.Run], None]] = {
    "an exception in the loop": _raise_in_loop,
    "the loop is left": _break,
    "never exhausted": _drop,
    "KeyboardInterrupt": _throw,
}


@pytest.mark.parametrize("how", ENDS)
def test_an_end_without_close(guest: Guest, homes: dict[str, str], how: str) -> None:
    """The trace is not closed; the guest is clean once its events are dropped, while it is still attached."""
    with api.attach(guest.gdb) as attached:
        with suppress(Fault, KeyboardInterrupt):
            ENDS[how](attached.trace(SCRIPT))
        gc.collect()
        assert our_memory(guest) == []
        assert list(attached.trace("BEGIN { exit(0); }").events())


PROGRAM = """
import probekit, sys, os, threading
guest = probekit.attach(sys.argv[1])
run = guest.trace({script!r})
events = iter(run.events(seconds=60))
next(events); next(events)
print("live", flush=True)
{end}
"""
EXITS = ("", "sys.exit(3)", "1 / 0", "raise KeyboardInterrupt", "keep = globals(); events.self = events")


def test_the_interpreter_ends_without_close(guest: Guest, homes: dict[str, str]) -> None:
    for turn in range(len(EXITS)):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM.format(script=SCRIPT, end=EXITS[turn]), guest.gdb],
            env={**os.environ, **homes},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.stdout == "live\n", done.stderr
        assert our_memory(guest) == [], EXITS[turn]
