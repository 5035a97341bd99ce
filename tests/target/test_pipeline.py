"""Many requests in flight: each has its own reply, whatever is refused, damaged or stale in between."""

from __future__ import annotations

import contextlib
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_packet_stream import Pair, pair

from probekit.errors import ProtocolError, TargetTimeout
from probekit.target.packets import expand_rle, frame
from probekit.target.pipeline import Pipeline

__all__ = ("pair",)

WINDOW = 200


def _silent(payload: bytes) -> TargetTimeout:
    return TargetTimeout(f"no answer to {payload!r}", seconds=0.2)


def _run(pair: Pair, answers: list[bytes], *, acks: bool = True) -> tuple[Pipeline, list[bytes | None]]:
    """Run as many requests as there are answers; the other end reads everything and sends these bytes."""
    packets, theirs = pair
    packets.acks = acks
    pipeline = Pipeline(packets, [b"m%x,1" % number for number in range(len(answers))], WINDOW, _silent)

    def serve() -> None:
        seen, sent = 0, 0
        while sent < len(answers):
            seen += theirs.recv(1 << 16).count(b"$")
            theirs.sendall(b"".join(answers[sent:seen]))
            sent = seen

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        return pipeline, pipeline.run()
    finally:
        thread.join(5)
        while packets.stream.poll(0)[0]:
            packets.receive()
        packets.incoming.clear()
        theirs.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            theirs.recv(1 << 20)
        theirs.setblocking(True)


_replies = st.one_of(
    st.just(b"OK"), st.just(b"E14"), st.binary(max_size=12).filter(lambda data: not set(data) & set(b"#$}*"))
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(_replies, st.sampled_from(("good", "good", "refused", "damaged"))), max_size=450), st.booleans()
)
def test_each_request_has_its_own_reply(pair: Pair, sent: list[tuple[bytes, str]], acks: bool) -> None:
    answers, expected = [], []
    for payload, how in sent:
        if how == "refused" and acks:
            answers.append(b"-")
            expected.append(None)
        elif how == "damaged":
            answers.append(b"+" * acks + frame(payload)[:-2] + b"zz")
            expected.append(None)
        else:
            answers.append(b"+" * acks + frame(payload))
            expected.append(expand_rle(payload))
    _, replies = _run(pair, answers, acks=acks)
    assert replies == expected


def test_a_packet_before_any_acknowledgement_answers_nothing(pair: Pair) -> None:
    pipeline, replies = _run(pair, [frame(b"T05") + b"+" + frame(b"12"), b"+" + frame(b"34")])
    assert (replies, pipeline.stale) == ([b"12", b"34"], 1)


def test_more_replies_than_requests_are_a_protocol_error(pair: Pair) -> None:
    with pytest.raises(ProtocolError, match="more replies"):
        _run(pair, [frame(b"OK") * 3], acks=False)


def test_a_request_that_is_not_answered_is_named(pair: Pair) -> None:
    with pytest.raises(TargetTimeout, match="m1,1"):
        _run(pair, [b"+" + frame(b"OK"), b"+"])
