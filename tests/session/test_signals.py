"""Signals are noted while a guest is attached, and raise nothing there."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from probekit.errors import Cancelled
from probekit.interruption import check_interrupted
from probekit.session.signals import Interrupts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_noted_and_raises_nothing(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with Interrupts() as interrupts:
        os.kill(os.getpid(), number)
        assert interrupts.pending == number
    assert signal.getsignal(number) is before


def test_the_first_signal_counts() -> None:
    with Interrupts() as interrupts:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.pending == signal.SIGTERM


def test_the_handlers_stay_until_the_outermost_is_left() -> None:
    before = signal.getsignal(signal.SIGINT)
    interrupts = Interrupts()
    with interrupts:
        with interrupts:
            inside = signal.getsignal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) == inside != before
    assert signal.getsignal(signal.SIGINT) is before


def test_another_thread_changes_no_handlers_and_may_ask_for_the_end() -> None:
    interrupts = Interrupts()
    before = signal.getsignal(signal.SIGINT)
    seen: list[object] = []

    def work() -> None:
        with interrupts:
            seen.append(signal.getsignal(signal.SIGINT))
            interrupts.request()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before] and interrupts.pending == signal.SIGINT


def test_a_signal_is_answered_while_something_has_to_end_first() -> None:
    said: list[str] = []
    with Interrupts(said.append) as interrupts:
        os.kill(os.getpid(), signal.SIGINT)
        assert said == [] and interrupts.wanted()
        with interrupts.waiting("restoring 3 sites"):
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGHUP)
    assert said == ["restoring 3 sites; kill -9 would leave that to `probekit recover`"]


def test_interruptible_work_ends_where_it_looks() -> None:
    with Interrupts() as interrupts:
        with interrupts.interruptible():
            check_interrupted()
        with pytest.raises(Cancelled) as caught, interrupts.interruptible():
            os.kill(os.getpid(), signal.SIGHUP)
            check_interrupted()
        check_interrupted()
    assert caught.value.exit_code == 129


def test_the_exit_status_is_that_of_a_command_which_the_signal_ended() -> None:
    for number, status in ((signal.SIGHUP, 129), (signal.SIGINT, 130), (signal.SIGTERM, 143)):
        interrupts = Interrupts()
        interrupts.request(number)
        assert interrupts.exit_code == status


def test_left_in_another_thread_than_it_was_entered_in(request: pytest.FixtureRequest) -> None:
    """Only the main thread can put handlers back: the next signal does it, and has the effect that it had before."""
    before = signal.default_int_handler
    of_the_suite = signal.signal(signal.SIGINT, before)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, of_the_suite))
    interrupts = Interrupts()
    interrupts.__enter__()
    failed: list[BaseException] = []

    def leave() -> None:
        try:
            interrupts.__exit__(None, None, None)
        except BaseException as error:  # noqa: BLE001 - whatever it is
            failed.append(error)

    thread = threading.Thread(target=leave)
    thread.start()
    thread.join(10)
    assert failed == []
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    assert interrupts.pending == 0
    assert signal.getsignal(signal.SIGINT) is before
    with interrupts:
        os.kill(os.getpid(), signal.SIGINT)
    assert interrupts.pending == signal.SIGINT and signal.getsignal(signal.SIGINT) is before
