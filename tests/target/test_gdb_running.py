"""Stopping and resuming through gdb: what is noted of it, and when."""

from __future__ import annotations

from typing import Any

import pytest
from scripted_gdb import ScriptedGdb

from probekit.errors import TargetError, TargetLost, TargetTimeout
from probekit.target.gdb_breakpoints import GdbBreakpoints
from probekit.target.gdb_running import GdbRunning
from probekit.target.gdb_threads import GdbThreads
from probekit.target.register_layout import CORE

PAUSE = {"reason": "signal-received", "signal-name": "SIGINT", "thread-id": "1"}


class _Bench:
    """``events``: commands to gdb, and notes of who holds the machine, in order."""

    def __init__(self, *, status: str = "paused", was_running: bool | None = True) -> None:
        self.events: list[str | bool | None] = []
        self.gdb = ScriptedGdb(
            {
                "-data-list-register-names": {"register-names": list(CORE)},
                "-thread-info": {"threads": [{"id": n, "target-id": f"Thread 1.{n}"} for n in "12"]},
                "monitor info status": {"text": f"VM status: {status}\r\n"},
                "monitor info version": {"text": "7.2.22\r\n"},
            }
        )
        for command in ("-exec-continue", "-exec-interrupt", "-target-d"):
            self.gdb.answers[command] = self._noted
        gdb: Any = self.gdb
        threads = GdbThreads(gdb, "gdb:stub")
        threads.load()
        self.running = GdbRunning(gdb, threads, GdbBreakpoints(gdb), name="gdb:stub", note_hold=self.events.append)
        self.running.note_connected(None, stop_seen=False, was_running=was_running)

    def _noted(self, command: str) -> dict[str, Any]:
        self.events.append(command.split()[0])
        if command.startswith("-exec-interrupt"):
            self.gdb.stops.append(PAUSE)
        return {}


def test_a_stop_is_noted_before_it_is_asked_for_and_a_resume_after() -> None:
    bench = _Bench()
    bench.running.resume()
    assert bench.running.stop(1).signal == 2
    bench.running.let_go()
    assert bench.events == [True, "-exec-continue", False, True, "-exec-interrupt", True, "-target-detach", None]


def test_one_that_is_found_paused_is_noted_once_it_is_ours() -> None:
    bench = _Bench(was_running=None)
    assert bench.running.pauses.paused and bench.events == []
    bench.running.own_pause()
    assert not bench.running.pauses.paused and bench.events == [True]


def test_somebody_elses_pause_is_not_our_hold() -> None:
    bench = _Bench()
    bench.running.resume()
    bench.gdb.stops.append(PAUSE)
    assert bench.running.wait(1) is None and bench.running.pauses.paused
    bench.running.stop(1)
    bench.running.let_go()
    assert bench.events == [True, "-exec-continue", False, False, False, "-target-disconnect", None]


def test_a_machine_that_does_not_stop_counts_as_running() -> None:
    bench = _Bench()
    bench.running.resume()
    bench.gdb.answers["-exec-interrupt"] = {}
    with pytest.raises(TargetTimeout):
        bench.running.stop(0)
    assert bench.running.running and bench.events[-1] is True
    with pytest.raises(TargetError, match="is running"):
        bench.running.need_stopped()


def test_after_its_end_it_is_lost() -> None:
    bench = _Bench()
    bench.running.close()
    with pytest.raises(TargetLost, match="has ended"):
        bench.running.stop(1)
    assert bench.gdb.closed
