"""Requests and replies: what is damaged, late, stale or without end."""

from __future__ import annotations

import pytest
from scripted_stub import Connect, Faults

from probekit.errors import ProtocolError, TargetTimeout


def test_a_stop_packet_on_connect_is_not_an_answer(connect: Connect) -> None:
    target, _ = connect(faults=Faults(greeting=b"$T02thread:01;#04"))
    assert target.features.qemu
    assert target._session.link.stale == 1


def test_damaged_requests_are_sent_again(connect: Connect) -> None:
    target, stub = connect()
    stub.faults.nak_first = 2
    assert target.read(0x1000, 4) == bytes(4)
    stub.faults.nak_first = 1
    target.write_many([(0x1000 + 8 * i, bytes([i])) for i in range(200)])
    assert [stub.memory[0x1000][8 * i] for i in range(200)] == list(range(200))


def test_a_stub_that_refuses_for_ever_is_given_up(connect: Connect) -> None:
    target, stub = connect()
    stub.faults.nak_first = 10**9
    with pytest.raises(ProtocolError, match="damaged"):
        target.regs(1)


def test_damaged_replies_are_asked_for_again(connect: Connect) -> None:
    target, stub = connect()
    stub.faults.corrupt_first = 1
    assert len(target.regs(1).raw) == 608


def test_a_late_reply_is_not_taken_for_the_next_one(connect: Connect) -> None:
    target, stub = connect(timeout=0.3)
    stub.memory[0x1000][:4] = b"late"
    stub.memory[0x2000][:4] = b"next"
    stub.faults.delay_once, stub.faults.delay_on = 0.4, b"m1000"
    with pytest.raises(TargetTimeout) as caught:
        target.read(0x1000, 4)
    assert caught.value.seconds == 0.3
    assert target.read(0x2000, 4) == b"next"


def test_stale_packets_before_the_acknowledgement_are_dropped(connect: Connect) -> None:
    target, stub = connect()
    target._session.select(1)
    stub.faults.prefix_once = b"$T05thread:01;#07"
    assert target.regs(1).values["rip"] == 0
