"""What QEMU's monitor says about a machine, and what follows from it when we have just stopped it."""

from __future__ import annotations

import pytest

from probekit.target.machine_state import ran_before, state_in


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        ("VM status: running\r\n", "running"),
        ("VM status: running (single step mode)\n", "running"),
        ("VM status: paused\n", "paused"),
        ("VM status: paused (prelaunch)\n", "prelaunch"),
        ("VM status: paused (guest-panicked)\n", "guest-panicked"),
        ("unknown command: 'info status'\n", ""),
        ("", ""),
    ],
)
def test_states(answer: str, state: str) -> None:
    assert state_in(answer) == state


@pytest.mark.parametrize(
    ("stop_seen", "status", "version", "ran"),
    [
        (True, "paused", "7.2.22Debian 1:7.2", True),
        (False, "paused", "7.2.22Debian 1:7.2", False),
        (False, "paused", "8.0.4", False),
        (False, "paused", "8.1.0", True),  # it does not say: a machine runs more often than not
        (False, "paused", "11.1.3", True),
        (False, "paused (prelaunch)", "11.1.3", False),
        (False, "paused (postmigrate)", "7.2.22", False),
        (False, "paused (debug)", "11.1.3", False),
        (False, "paused", "who knows", True),
    ],
)
def test_whether_it_ran(stop_seen: bool, status: str, version: str, ran: bool) -> None:
    answers = {"info status": f"VM status: {status}\r\n", "info version": f"{version}\r\n"}
    assert ran_before(answers.__getitem__, stop_seen=stop_seen) is ran


def test_no_monitor() -> None:
    assert ran_before(lambda _: "", stop_seen=False)
