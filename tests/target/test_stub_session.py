"""The state of a connection to a stub: what is refused while the machine runs, and how a connection ends."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from scripted_stub import Connect, Faults, ScriptedStub

from probekit.errors import ProtocolError, TargetError, TargetLost, UnsupportedError
from probekit.target.rsp import RspTarget
from probekit.target.stub_session import StubSession


def test_nothing_is_sent_to_a_running_machine_but_the_stop(connect: Connect) -> None:
    target, stub = connect()
    target.resume()
    assert target.running and target.wait(0.05) is None
    for forbidden in (
        lambda: target.read(0x1000, 1),
        lambda: target.regs(1),
        target.resume,
        lambda: target.monitor("x"),
    ):
        with pytest.raises(TargetError, match="running"):
            forbidden()
    assert stub.running, "nothing may be sent to a running machine"
    reason = target.stop()
    assert (reason.kind, reason.signal, reason.vcpu) == ("interrupt", 2, 1)
    assert target.stop() == reason


def test_a_stub_that_goes_away_is_lost_and_can_still_be_detached_from(connect: Connect) -> None:
    target, stub = connect()
    stub.faults.close_on = b"m"
    with pytest.raises(TargetLost):
        target.read(0x1000, 8)
    with pytest.raises(TargetLost):
        target.regs(1)
    target.detach()


def test_a_connection_given_up_lets_the_machine_run(stubs: Callable[..., ScriptedStub]) -> None:
    stub = stubs(faults=Faults(answers={b"?": b"nonsense"}))
    with pytest.raises(ProtocolError):
        RspTarget(stub.stream, name="stub", timeout=1)
    deadline = time.monotonic() + 2
    while stub.packets[-1] != b"D;1" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert stub.packets[-1] == b"D;1"


def test_a_machine_that_has_ended_is_not_a_target(stubs: Callable[..., ScriptedStub]) -> None:
    stub = stubs(faults=Faults(answers={b"?": b"W00"}))
    with pytest.raises(TargetError, match="has ended"):
        StubSession(stub.stream, name="stub", timeout=1)


def test_a_vcpu_is_selected_only_when_another_may_be(connect: Connect) -> None:
    target, stub = connect()
    session = target._session
    session.note_stop()
    del stub.packets[:]
    session.select(2)
    session.select(2)
    assert stub.packets == [b"Hgp01.02"]
    session.note_stop()
    session.select(2)
    assert stub.packets == [b"Hgp01.02"] * 2


def test_a_vcpu_that_does_not_exist_is_looked_for_once_more_and_refused(connect: Connect) -> None:
    target, stub = connect()
    del stub.packets[:]
    with pytest.raises(TargetError, match=r"no vCPU 7; there are \[1, 2\]"):
        target._session.select(7)
    assert stub.packets.count(b"qfThreadInfo") == 1


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [(b"", UnsupportedError, "cannot do this: a test"), (b"E01", TargetError, "E01"), (b"maybe", TargetError, "maybe")],
)
def test_any_answer_but_ok_is_an_error(connect: Connect, answer: bytes, error: type[TargetError], words: str) -> None:
    target, stub = connect()
    stub.faults.answers[b"Qtest"] = answer
    with pytest.raises(error, match=words):
        target._session.expect_ok(b"Qtest", "a test")
    stub.faults.answers[b"Qtest"] = b"OK"
    target._session.expect_ok(b"Qtest", "a test")


def test_a_resume_that_is_interrupted_leaves_the_machine_known_to_run(connect: Connect) -> None:
    target, stub = connect()
    stub.faults.close_on = b"vCont;c"
    with pytest.raises(TargetLost):
        target._session.send_resume(b"vCont;c")
    assert target._session.running
