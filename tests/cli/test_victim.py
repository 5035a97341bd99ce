"""``-c`` and ``-p``: a process of the host whose end ends tracing."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from probekit.cli.victim import Victim
from probekit.errors import ProbekitError


def _soon(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_a_command_waits_until_tracing_has_started(tmp_path: Path) -> None:
    with Victim(f"touch {tmp_path / 'done'}", None) as victim:
        time.sleep(0.2)
        assert not (tmp_path / "done").exists() and not victim.has_ended()
        victim.let_run()
        assert _soon(victim.has_ended)
        assert (tmp_path / "done").exists()


def test_its_number_is_the_commands_own() -> None:
    with Victim("sleep 60", None) as victim:
        victim.let_run()
        assert _soon(lambda: Path(f"/proc/{victim.pid}/comm").read_text() == "sleep\n")
        os.kill(victim.pid, 9)
        assert _soon(victim.has_ended)


def test_a_command_that_tracing_outlives_goes_on(tmp_path: Path) -> None:
    with Victim(f"touch {tmp_path / 'done'}", None) as victim:
        pass
    assert _soon(lambda: (tmp_path / "done").exists()) and _soon(victim.has_ended)


def test_an_error_kills_a_command_that_never_started(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), Victim(f"touch {tmp_path / 'done'}", None) as victim:
        raise RuntimeError
    assert _soon(victim.has_ended) and not (tmp_path / "done").exists()


def test_another_process_is_watched() -> None:
    child = subprocess.Popen(["sleep", "60"])
    with Victim(None, str(child.pid)) as victim:
        assert victim.pid == child.pid and not victim.has_ended()
        victim.let_run()  # it is not ours to start
        child.kill()
        child.wait()
        assert victim.has_ended()


@pytest.mark.parametrize(
    ("command", "pid", "message"),
    [
        ("", None, "no command"),
        ("no-such-program-anywhere x", None, "there is no such program"),
        (None, "x", "invalid pid: x"),
        (None, "4194305", "failed to grab pid 4194305"),
        (None, "9" * 30, "failed to grab pid"),
    ],
)
def test_what_is_no_process_is_refused(command: str | None, pid: str | None, message: str) -> None:
    with pytest.raises(ProbekitError, match=message):
        Victim(command, pid)
