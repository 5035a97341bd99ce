"""The direct transport against a scripted stub: stops, detaching, the monitor, and answers that make no sense."""

from __future__ import annotations

import pytest
from scripted_stub import Connect

from probekit.errors import TargetError, TargetLost


@pytest.mark.parametrize(
    ("request_start", "answer"),
    [(b"g", b"E14"), (b"g", b"zz"), (b"g", b"00"), (b"m", b"0"), (b"m", b"00" * 999), (b"Hg", b"E22"), (b"g", b"")],
)
def test_bad_answers_are_target_errors(connect: Connect, request_start: bytes, answer: bytes) -> None:
    target, stub = connect()
    stub.faults.answers[request_start] = answer
    with pytest.raises(TargetError):
        target.regs(2)
        target.read(0x1000, 4)


def test_a_watchpoints_stop_names_its_address_and_an_end_is_lost(connect: Connect) -> None:
    target, stub = connect()
    target.set_breakpoint(0x1008, "watch_write", 8)
    assert stub.breaks == {b"2,1008,8"}
    target.resume()
    stub.push(b"T05thread:p01.02;watch:ffffffff81000008;")
    reason = target.wait(2)
    assert reason is not None
    assert (reason.kind, reason.vcpu, reason.watch_addr) == ("watch", 2, 0xFFFFFFFF81000008)
    target.resume()
    stub.push(b"W00")
    ended = target.wait(2)
    assert ended is not None and ended.kind == "exited"
    with pytest.raises(TargetLost):
        target.regs(1)


def test_detaching_clears_breakpoints_and_may_be_repeated(connect: Connect) -> None:
    target, stub = connect()
    target.set_breakpoint(0x1000)
    target.set_breakpoint(0x1000)
    assert stub.packets.count(b"Z0,1000,1") == 1
    target.resume()
    target.detach()
    target.detach()
    assert stub.breaks == set()
    assert stub.packets[-1] == b"D;1"
    with pytest.raises(TargetLost):
        target.read(0x1000, 1)


def test_the_monitor_answers_or_refuses(connect: Connect) -> None:
    target, stub = connect()
    stub.faults.answers[b"qRcmd,"] = b"OK"
    stub.faults.prefix_once = b""
    assert target.monitor("anything") == ""
    stub.faults.answers[b"qRcmd,"] = b"E01"
    with pytest.raises(TargetError, match="refused"):
        target.monitor("anything")
