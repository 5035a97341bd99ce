"""Framing, checksums, run lengths, escapes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probekit.errors import ProtocolError
from probekit.target.packets import (
    LinkEvent,
    checksum,
    expand_rle,
    frame,
    frame_many,
    from_hex,
    hex_field,
    unescape,
    unframe,
)


def test_a_packet_is_framed_with_its_checksum() -> None:
    assert frame(b"OK") == b"$OK#9a"
    assert frame_many([b"OK", b""]) == b"$OK#9a$#00"


@given(st.binary(max_size=3000))
def test_the_checksum_is_the_sum_of_the_bytes(data: bytes) -> None:
    assert checksum(data) == sum(data) % 256


@given(st.lists(st.binary(max_size=300).map(lambda b: b.hex().encode())), st.integers(0, 400))
def test_what_is_framed_is_unframed_however_it_is_cut(payloads: list[bytes], cut: int) -> None:
    whole = frame_many(payloads)
    seen, buffer = [], bytearray()
    for part in (whole[:cut], whole[cut:]):
        buffer += part
        position = 0
        while True:
            event, position = unframe(buffer, position)
            if event is None:
                break
            seen.append(event)
        del buffer[:position]
    assert seen == payloads and not buffer


@pytest.mark.parametrize(
    ("raw", "event", "end"),
    [
        (b"+$OK#9a", LinkEvent.ACK, 1),
        (b"-", LinkEvent.NAK, 1),
        (b"noise$OK#9a", b"OK", 11),
        (b"%Stop:T05#00$OK#9a", b"OK", 18),
        (b"$OK#9b", LinkEvent.BAD_CHECKSUM, 6),
        (b"$OK#zz", LinkEvent.BAD_CHECKSUM, 6),
        (b"$OK#+9", LinkEvent.BAD_CHECKSUM, 6),
        (b"noise$OK#9", None, 5),
        (b"noise", None, 5),
        (b"", None, 0),
    ],
)
def test_each_form_of_event_is_taken_from_the_stream(raw: bytes, event: object, end: int) -> None:
    assert unframe(raw, 0) == (event, end)


def test_run_lengths_are_expanded() -> None:
    assert expand_rle(b"0* ") == b"0000"
    assert expand_rle(b'ab*"c') == b"abbbbbbc"
    assert expand_rle(b"plain") == b"plain"


@pytest.mark.parametrize("bad", [b"*!", b"0*", b"0**", b"0*\x01"])
def test_a_bad_run_length_is_a_protocol_error(bad: bytes) -> None:
    with pytest.raises(ProtocolError):
        expand_rle(bad)


def test_a_reply_cannot_grow_without_end() -> None:
    with pytest.raises(ProtocolError, match="more than 1000"):
        expand_rle(b"0" + b"*~" * 100, limit=1000)


def test_escaped_bytes_are_themselves_again() -> None:
    assert unescape(b"a}\x03b}]") == b"a#b}"
    with pytest.raises(ProtocolError):
        unescape(b"a}")


def test_what_is_not_hexadecimal_is_a_protocol_error() -> None:
    for bad in (b"0g", b"123", b"+1"):
        with pytest.raises(ProtocolError):
            from_hex(bad)
    for bad in (b"", b"-1", b"1_0", b"1" * 17):
        with pytest.raises(ProtocolError):
            hex_field(bad)
