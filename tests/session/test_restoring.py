"""The end of a run: the guest is restored once, whatever else fails, and every failure is said."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest

from probekit.errors import GuestError, GuestGone
from probekit.session.restoring import Restoring
from probekit.session.run_state import RunState


class _Guest:
    """``fails``: what restoring raises."""

    def __init__(self, fails: Exception | None = None) -> None:
        self.fails = fails
        self.stats = {"disable_s": 0.5}
        self.silenced: bool | None = None

    def disable(self, keep: Any, *, silence: bool) -> tuple[Any, list[str]]:
        self.silenced = silence
        keep(0, 7)
        if self.fails is not None:
            raise self.fails
        return "drained", ["16 bytes are left"]

    def salvage(self, lost: Exception, keep: Any) -> tuple[Any, list[str]]:
        return None, [str(lost)]


def made(guest: _Guest | None) -> tuple[Restoring, RunState, dict[str, float | int], list[Any]]:
    state, happened = RunState(), []
    stats: dict[str, float | int] = {}
    part: Any = guest
    restoring = Restoring(
        part,
        state,
        stats,
        keep=lambda index, value: happened.append((index, value)),
        turn=nullcontext,
        over=lambda: happened.append("over"),
    )
    return restoring, state, stats, happened


def test_the_last_records_and_the_failures() -> None:
    restoring, _, stats, happened = made(_Guest())
    assert restoring.restore() == ("drained", ["16 bytes are left"])
    assert happened == [(0, 7), "over"] and stats == {"disable_s": 0.5}


def test_without_a_guest_there_is_nothing_to_do() -> None:
    restoring, _, _, happened = made(None)
    assert restoring.restore() == (None, []) and happened == []
    assert restoring.salvage(GuestGone("gone")) == (None, [])


def test_after_an_exit_clauses_do_nothing_more_and_what_they_recorded_before_is_shown() -> None:
    guest = _Guest()
    assert made(guest)[0].restore()[0] == "drained" and guest.silenced is False
    restoring, state, _, _ = made(guest)
    state.exited(3)
    assert restoring.restore()[0] == "drained" and guest.silenced is True


def test_failures_after_an_error_are_notes_on_it() -> None:
    error = ValueError("the reader's")
    made(_Guest())[0].restore_after(error)
    restoring, _, _, happened = made(_Guest(GuestError("not mapped")))
    restoring.restore_after(error)
    made(_Guest(KeyError("x")))[0].restore_after(error)
    assert error.__notes__ == [
        "16 bytes are left",
        "restoring the guest failed too: not mapped",
        "restoring the guest failed too: KeyError: 'x'",
    ]
    assert happened[-1] == "over", "another trace may begin"


def test_a_reader_that_stopped_early_hears_of_a_failure() -> None:
    with pytest.raises(GuestError, match="not mapped"):
        made(_Guest(GuestError("not mapped")))[0].restore_after(GeneratorExit())


def test_what_is_left_of_a_guest_that_is_gone() -> None:
    assert made(_Guest())[0].salvage(GuestGone("rebooted")) == (None, ["rebooted"])
