"""Whole packets over a byte stream: what is received in pieces, queued, acknowledged, or never ends."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scripted_stub import Connect

from probekit.errors import ProtocolError, TargetLost, TargetTimeout
from probekit.target.packet_stream import PacketStream
from probekit.target.packets import LinkEvent, frame
from probekit.target.transport import Stream

Pair = tuple[PacketStream, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    stream = Stream(ours, "fake")
    yield PacketStream(stream, timeout=0.2), theirs
    stream.close()
    theirs.close()


def _soon() -> float:
    return time.monotonic() + 5


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=20).filter(lambda data: not set(data) & set(b"#$}*")), max_size=5), st.data())
def test_packets_are_whole_however_they_arrive(pair: Pair, payloads: list[bytes], data: st.DataObject) -> None:
    packets, theirs = pair
    raw = b"".join(b"+" + frame(payload) for payload in payloads)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=3)))
    found: list[LinkEvent | bytes | None] = []
    for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True):
        theirs.sendall(raw[start:end])
        while (event := packets.next_event(0)) is not None:
            found.append(event)
    assert found == [event for payload in payloads for event in (LinkEvent.ACK, payload)]


def test_nothing_that_arrives_is_none_at_the_deadline(pair: Pair) -> None:
    packets, _ = pair
    begin = time.monotonic()
    assert packets.next_event(begin + 0.05) is None
    assert 0.04 < time.monotonic() - begin < 2


def test_a_damaged_packet_is_told_from_a_good_one(pair: Pair) -> None:
    packets, theirs = pair
    theirs.sendall(b"$OK#00-$OK#9a")
    events = [packets.next_event(_soon()) for _ in range(3)]
    assert events == [LinkEvent.BAD_CHECKSUM, LinkEvent.NAK, b"OK"]


def test_bytes_without_the_end_of_a_packet_are_bounded(pair: Pair) -> None:
    packets, _ = pair
    packets.incoming += b"$" + b"0" * (1 << 20)
    packets.stream.receive = lambda: b"0"  # type: ignore[method-assign]
    with pytest.raises(ProtocolError, match="no end of a packet"):
        packets.receive()


def test_acknowledgements_are_sent_only_where_they_are_used(pair: Pair) -> None:
    packets, theirs = pair
    packets.acknowledge(b"+")
    packets.acks = False
    packets.acknowledge(b"-")
    packets.queue(b"end")
    packets.flush(_soon())
    assert theirs.recv(100) == b"+end"


def test_two_sides_that_both_write_first_do_not_block_each_other(pair: Pair) -> None:
    packets, theirs = pair
    data, noise = bytes(range(256)) * (1 << 13), b"#" * (2 << 20)  # 2 MiB: more than a socket holds
    received = bytearray()

    def other() -> None:
        theirs.sendall(noise)
        while len(received) < len(data):
            received.extend(theirs.recv(1 << 16))

    thread = threading.Thread(target=other, daemon=True)
    thread.start()
    packets.queue(data[:1000])
    packets.queue(data[1000:])
    packets.flush(_soon())
    thread.join(5)
    while packets.stream.poll(0)[0]:
        packets.receive()
    assert bytes(received) == data
    assert bytes(packets.incoming) == noise


def test_a_stub_that_takes_nothing_is_given_up(pair: Pair) -> None:
    packets, _ = pair
    packets.queue(bytes(16 << 20))
    with pytest.raises(TargetTimeout, match="takes no more") as caught:
        packets.flush(time.monotonic() + 0.1)
    assert caught.value.seconds == 0.2


def test_the_other_ends_closing_is_a_lost_target(pair: Pair) -> None:
    packets, theirs = pair
    theirs.close()
    with pytest.raises(TargetLost):
        packets.next_event(_soon())


def test_a_packet_without_end_ends_a_request(connect: Connect) -> None:
    target, stub = connect(timeout=5)
    stub.faults.answers[b"g"] = b"0" * (3 << 20)
    with pytest.raises(ProtocolError):
        target.regs(1)
