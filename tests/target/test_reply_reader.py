"""One request's acknowledgement and reply: what comes before them, what is damaged, and what never comes."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator

import pytest

from probekit.errors import ProtocolError, TargetTimeout
from probekit.target.packet_stream import PacketStream
from probekit.target.packets import frame
from probekit.target.reply_reader import ReplyReader
from probekit.target.transport import Stream

Reader = Callable[[bytes], tuple[ReplyReader, socket.socket]]
STOP = b"T02thread:p01.01;"


@pytest.fixture
def reading() -> Iterator[Reader]:
    """A reader of a stub that has sent some bytes, and the stub's end."""
    made: list[tuple[Stream, socket.socket]] = []

    def make(sent: bytes) -> tuple[ReplyReader, socket.socket]:
        ours, theirs = socket.socketpair()
        made.append((Stream(ours, "stub"), theirs))
        theirs.sendall(sent)
        return ReplyReader(PacketStream(made[-1][0], timeout=1)), theirs

    yield make
    for stream, other in made:
        stream.close()
        other.close()


def soon() -> float:
    return time.monotonic() + 0.3


def test_packets_before_the_acknowledgement_are_stale_and_stops_among_them_are_kept(reading: Reader) -> None:
    reader, _ = reading(frame(b"E01") + frame(STOP) + b"+" + frame(b"OK"))
    assert reader.acknowledgement(soon(), b"m") and reader.reply(soon(), b"m") == b"OK"
    assert (reader.stale, reader.stops, reader.lost) == (2, [STOP], False)


def test_a_refused_request_is_not_acknowledged(reading: Reader) -> None:
    reader, _ = reading(b"-")
    assert not reader.acknowledgement(soon(), b"m") and not reader.lost


def test_a_stop_and_then_silence_mean_that_the_request_was_lost(
    reading: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("probekit.target.reply_reader.LOST_SECONDS", 0.05)
    reader, _ = reading(frame(STOP))
    assert not reader.acknowledgement(time.monotonic() + 5, b"m")
    assert reader.lost and reader.stops == [STOP]


def test_silence_alone_is_an_error_that_names_the_request(reading: Reader) -> None:
    reader, _ = reading(b"")
    with pytest.raises(TargetTimeout, match="'qSupported'"):
        reader.acknowledgement(soon(), b"qSupported")
    with pytest.raises(TargetTimeout, match="'qSupported'"):
        reader.reply(soon(), b"qSupported")


def test_a_damaged_reply_is_asked_for_again_where_packets_are_acknowledged(reading: Reader) -> None:
    damaged = b"$OK#00"
    reader, stub = reading(damaged + frame(b"OK"))
    assert reader.reply(soon(), b"m") == b"OK" and stub.recv(9) == b"-+"
    reader, _ = reading(damaged)
    reader._packets.acks = False
    with pytest.raises(ProtocolError, match="no way to ask for it again"):
        reader.reply(soon(), b"m")


@pytest.mark.parametrize(("sent", "words"), [(frame(b"E01"), "acknowledges none"), (b"+", "no whole reply")])
def test_one_that_sends_anything_but_what_is_waited_for_is_given_up(reading: Reader, sent: bytes, words: str) -> None:
    reader, _ = reading(sent * 1001)
    with pytest.raises(ProtocolError, match=words):
        (reader.reply if sent == b"+" else reader.acknowledgement)(time.monotonic() + 5, b"m")
