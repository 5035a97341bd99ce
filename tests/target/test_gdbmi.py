"""The target that drives gdb, with a gdb that answers from a table: what it asks for, and how it ends.

tests/target/test_contract.py runs it with gdb and a live guest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from scripted_gdb import ScriptedGdb

from probekit.errors import MemoryAccessError, TargetError, TargetLost, TargetTimeout, UnsupportedError
from probekit.target import gdb_running, gdbmi
from probekit.target.gdbmi import GdbTarget
from probekit.target.register_layout import CORE

Start = Callable[..., tuple[GdbTarget, ScriptedGdb]]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Start:
    def make(address: str = "localhost:1234", **answers: Any) -> tuple[GdbTarget, ScriptedGdb]:
        gdb = ScriptedGdb(
            {
                "-data-list-register-names": {"register-names": list(CORE)},
                "-thread-info": {"threads": [{"id": n, "target-id": f"Thread 1.{n}"} for n in "12"]},
                "-break-insert": {"bkpt": {"number": "1"}},
            }
            | {f"-{command.replace('_', '-')}": answer for command, answer in answers.items()}
        )
        gdb.stops = [{"reason": "signal-received", "signal-name": "0", "thread-id": "2"}]
        monkeypatch.setattr(gdbmi, "GdbProcess", lambda *, timeout: gdb)
        return GdbTarget(address, name=f"gdb:{address}", timeout=3), gdb

    return make


@pytest.mark.parametrize(
    ("address", "command"),
    [
        ("localhost:1234", "-target-select remote localhost:1234"),
        ("unix:/run/gdb", "-target-select remote /run/gdb"),
        ("extended-remote localhost:1234", "-target-select extended-remote localhost:1234"),
    ],
)
def test_an_address_is_given_to_gdb_in_its_own_form(start: Start, address: str, command: str) -> None:
    _, gdb = start(address)
    assert command in gdb.sent


def test_a_connection_that_fails_ends_gdb(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[ScriptedGdb] = []
    monkeypatch.setattr(ScriptedGdb, "close", lambda self, _: made.append(self))
    with pytest.raises(TargetError, match="refused"):
        start(target_select="Connection refused.")
    assert len(made) == 1


def test_memory_is_seen_through_the_vcpu_that_stopped_last_unless_another_is_chosen(start: Start) -> None:
    target, gdb = start(data_read_memory_bytes={"memory": [{"begin": "0x1000", "contents": "0102"}]})
    assert target.read(0x1000, 2) == b"\x01\x02"
    assert gdb.sent[-2] == "-thread-select 2"
    target.use_memory_of(1)
    target.read(0x1000, 2)
    assert gdb.sent[-2] == "-thread-select 1"
    gdb.answers["-data-read-memory-bytes"] = "Unable to read memory."
    with pytest.raises(MemoryAccessError) as caught:
        target.read(0x1000, 2)
    assert (caught.value.addr, caught.value.size) == (0x1000, 2)


def test_a_running_machine_is_not_touched(start: Start) -> None:
    target, gdb = start()
    target.resume()
    assert target.running and target.wait(0) is None
    sent = len(gdb.sent)
    for forbidden in (target.resume, target.vcpus, lambda: target.read(0, 1), lambda: target.monitor("x")):
        with pytest.raises(TargetError, match="running"):
            forbidden()
    assert len(gdb.sent) == sent
    _stops_when_asked(gdb)
    reason = target.stop()
    assert (reason.kind, reason.signal, reason.vcpu) == ("interrupt", 2, 1)
    assert not target.running and "-exec-interrupt --all" in gdb.sent


@pytest.mark.parametrize(
    ("stop", "kind", "signal"),
    [
        ({"reason": "breakpoint-hit"}, "breakpoint", 5),
        ({"reason": "end-stepping-range"}, "breakpoint", 5),
        ({"reason": "signal-received", "signal-name": "SIGTRAP"}, "breakpoint", 5),
        ({"reason": "signal-received", "signal-name": "SIGINT"}, "interrupt", 2),
        ({"reason": "signal-received", "signal-name": "SIGQUIT"}, "interrupt", 3),
        ({"reason": "signal-received", "signal-name": "something new"}, "interrupt", 0),
        ({}, "interrupt", 2),
        ({"reason": "watchpoint-trigger"}, "watch", 5),
    ],
)
def test_a_stop_of_gdb_becomes_a_reason(start: Start, stop: dict[str, str], kind: str, signal: int) -> None:
    target, gdb = start()
    target.resume()
    gdb.stops.append({**stop, "thread-id": "1"})
    reason = target.wait(1)
    assert reason is not None
    assert (reason.kind, reason.signal, reason.vcpu) == (kind, signal, 1)


def test_a_machine_that_ended_is_lost_and_gdb_is_ended(start: Start) -> None:
    target, gdb = start()
    target.resume()
    gdb.stops.append({"reason": "exited-normally"})
    reason = target.wait(1)
    assert reason is not None and reason.kind == "exited"
    assert gdb.closed and not target.running
    with pytest.raises(TargetLost):
        target.vcpus()


def test_other_vcpus_stand_still_during_a_step_and_go_on_after_it(start: Start) -> None:
    target, gdb = start()
    gdb.stops.append({"reason": "end-stepping-range", "thread-id": "1"})
    assert target.step(1).vcpu == 1
    at = gdb.sent.index("-exec-step-instruction --thread 1")
    assert "-gdb-set scheduler-locking on" in gdb.sent[:at]
    assert gdb.sent[-1] == "-gdb-set scheduler-locking off"


def test_a_step_that_does_not_end_is_stopped_and_refused(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gdb_running, "_STEP_SECONDS", 0.1)
    target, gdb = start()
    gdb.answers["-exec-interrupt"] = lambda _: gdb.stops.append({"thread-id": "1"}) or {}
    with pytest.raises(TargetTimeout, match="did not end"):
        target.step(1)
    assert not target.running and gdb.sent[-1] == "-gdb-set scheduler-locking off"


def test_a_resume_that_gdb_refuses_leaves_the_machine_stopped(start: Start) -> None:
    target, _ = start(exec_continue="Cannot execute this command")
    with pytest.raises(TargetError):
        target.resume()
    assert not target.running


def test_the_monitors_lines_end_as_ours_do(start: Start) -> None:
    target, gdb = start()
    gdb.answers["monitor info"] = {"text": "a\r\nb\r\n"}
    assert target.monitor("info") == "a\nb\n"
    gdb.answers["monitor info"] = "Target does not support this command: not supported by this target"
    with pytest.raises(UnsupportedError):
        target.monitor("info")


def test_detaching_clears_breakpoints_and_may_be_repeated(start: Start) -> None:
    target, gdb = start()
    target.set_breakpoint(0x1000)
    target.detach()
    assert _without_questions(gdb)[-2:] == ["-break-delete 1", "-target-detach"] and gdb.closed
    sent = len(gdb.sent)
    target.detach()
    assert len(gdb.sent) == sent
    with pytest.raises(TargetLost):
        target.read(0, 1)


def test_a_running_machine_is_stopped_before_it_is_left(start: Start) -> None:
    target, gdb = start()
    target.set_breakpoint(0x1000)
    target.resume()
    _stops_when_asked(gdb)
    target.detach()
    assert _without_questions(gdb)[-3:] == ["-exec-interrupt --all", "-break-delete 1", "-target-detach"]


def test_a_paused_machine_is_left_paused(start: Start) -> None:
    """What QEMU's monitor says of it decides, and gdb disconnects instead of detaching."""
    target, gdb = start(target_select={})
    gdb.answers["monitor info status"] = {"text": "VM status: paused\r\n"}
    gdb.answers["monitor info version"] = {"text": "7.2.22\r\n"}
    target.resume()
    gdb.stops.append({"reason": "signal-received", "signal-name": "SIGINT", "thread-id": "1"})
    assert target.wait(1) is None and target.paused and target.running
    resumed = gdb.sent.count("-exec-continue")
    target.stop()
    target.resume()
    target.detach()
    assert gdb.sent.count("-exec-continue") == resumed == 1
    assert _without_questions(gdb)[-1] == "-target-disconnect" and "-exec-interrupt --all" not in gdb.sent


def _stops_when_asked(gdb: ScriptedGdb) -> None:
    def answer(_: str) -> dict[str, Any]:
        gdb.stops.append({"reason": "signal-received", "signal-name": "SIGINT", "thread-id": "1"})
        return {}

    gdb.answers["-exec-interrupt"] = answer


def _without_questions(gdb: ScriptedGdb) -> list[str]:
    """What was sent, without what only asks whether somebody else has paused the machine."""
    return [command for command in gdb.sent if not command.startswith(("monitor info", "set debug"))]
