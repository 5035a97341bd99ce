"""Work is given up only inside ``interruptible``, and only once."""

from __future__ import annotations

import threading

import pytest

from probekit.errors import Cancelled
from probekit.interruption import check_interrupted, interruptible, uninterrupted, until_interrupted


def test_nothing_is_given_up_outside() -> None:
    check_interrupted()
    assert list(until_interrupted(range(3))) == [0, 1, 2]


def test_a_loop_ends_at_the_item_where_the_user_wants_to_stop() -> None:
    seen: list[int] = []
    with pytest.raises(Cancelled), interruptible(lambda: len(seen) == 2):
        for item in until_interrupted(range(9)):
            seen.append(item)
    assert seen == [0, 1]
    check_interrupted()


def test_what_tidies_up_is_not_interrupted_again() -> None:
    tidied = False
    with pytest.raises(Cancelled), interruptible(lambda: True):
        pytest.fail("the user wanted to stop before it began")
    wanted = False
    with pytest.raises(Cancelled), interruptible(lambda: wanted):
        try:
            wanted = True
            check_interrupted()
        finally:
            check_interrupted()
            tidied = True
    assert tidied


def test_what_must_not_be_cut_in_two_is_done_to_its_end() -> None:
    wanted = done = False
    with pytest.raises(Cancelled), interruptible(lambda: wanted):
        with uninterrupted():
            wanted = True
            check_interrupted()
            done = True
        check_interrupted()
    assert done


def test_another_thread_goes_on() -> None:
    ended: list[bool] = []

    def work() -> None:
        check_interrupted()
        ended.append(True)

    with pytest.raises(Cancelled), interruptible(lambda: bool(ended)):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        check_interrupted()
    assert ended == [True]
