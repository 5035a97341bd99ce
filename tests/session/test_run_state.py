"""The state that the parts of a run share."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from probekit.session.run_state import RunState

SESSION = Path(__file__).resolve().parents[2] / "probekit" / "session"


def test_a_run_begins_with_nothing_decided() -> None:
    state = RunState()
    assert (state.over, state.status, state.exited_in_guest) == (False, 0, False)
    assert state.shows(0)


def test_exit_on_the_host_ends_the_run_before_its_status_is_read() -> None:
    state = RunState()
    state.call_exit()
    assert state.over and state.status == 0 and not state.exited_in_guest
    state.exited(3)
    assert state.status == 3 and not state.shows(0)
    assert state.shows(0, late=True), "it was read before exit() was called"


def test_exit_in_the_guest_hides_only_what_came_after_it() -> None:
    state = RunState()
    state.exited(4, at=1000)
    assert state.over and state.exited_in_guest and state.status == 4
    assert state.shows(999)
    assert not state.shows(1000) and not state.shows(1001)
    assert state.shows(999, late=True) and not state.shows(1000, late=True)


def test_a_full_ring_ends_the_run_and_shows_what_was_recorded() -> None:
    state = RunState()
    state.fill_ring()
    assert state.over and not state.exit_called and state.shows(5)


def test_a_failure_does_not_hide_the_status_that_exit_was_given() -> None:
    state = RunState()
    state.fail()
    assert state.status == 1
    state.exited(7)
    state.fail()
    assert state.status == 7


@pytest.mark.parametrize("name", ["exit_called", "exited_in_guest", "over", "status", "sink"])
def test_only_its_own_methods_change_it(name: str) -> None:
    with pytest.raises(AttributeError):
        setattr(RunState(), name, 1)


def test_who_renders_is_called_before_each_wait() -> None:
    state = RunState()
    state.idle()
    waits: list[str] = []
    state.set_output(idle=lambda: waits.append("wait"), sink=None)
    state.idle()
    assert waits == ["wait"] and state.sink is None


def test_no_part_of_a_session_asks_which_engine_it_has() -> None:
    """What the engines differ in is in their protocol; only the place that makes one names them."""
    for path in SESSION.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id != "hasattr", path.name
                assert node.func.id != "isinstance" or "Engine" not in ast.unparse(node), path.name
            if isinstance(node, ast.ImportFrom) and path.name != "engine_factory.py":
                named = {alias.name for alias in node.names}
                assert not named & {"GuestEngine", "StopEngine"}, path.name
