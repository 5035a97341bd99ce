"""The state of a connection to a stub: what is refused while the machine runs, and how a connection ends."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from scripted_stub import Connect, Faults, ScriptedStub

from probekit.errors import ProtocolError, TargetError, TargetLost
from probekit.target.rsp import RspTarget


def test_running(connect: Connect) -> None:
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


def test_the_stub_goes_away(connect: Connect) -> None:
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
