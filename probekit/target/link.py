"""Packets over a stream: acknowledgements, retransmission, and many requests in flight.

Terms: a *mark* is the stub's ``+`` or ``-`` for a packet of ours. The stub
marks and answers packets in order, so whatever packet arrives before the mark
of our request is *stale* (an unsolicited stop on connect, a late reply) and is
dropped.

Pipelining sends up to ``window`` requests before reading their replies. It is
for stubs known to take it: QEMU counts the ``$`` of the next packet as the
acknowledgement of the reply before it. Others (gdbsx) are asked one at a time.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Sequence
from typing import Final

from probekit.errors import ProtocolError, TargetLost, TargetTimeout
from probekit.target.packets import OK_REPLY, Mark, expand_rle, frame, frame_many, unframe
from probekit.target.transport import Stream

__all__ = ("PacketLink",)

_RETRIES: Final = 3
_BLOCK: Final = 100
_MIN_BUFFER: Final = 1 << 20
_QUIET_SECONDS: Final = 0.2
_TOO_MANY: Final = 1000
# With many replies to come it pays not to wait for each: waking us costs QEMU more than its reply does
# (90,000 writes: 0.75 s when woken, 0.45 s with naps).
_MANY: Final = 60
_NAP_SECONDS: Final = 0.0002
_OKS: Final = {
    acks: (re.compile(b"(?:%b)+" % re.escape(text)), len(text))
    for acks, text in ((True, b"+" + OK_REPLY), (False, OK_REPLY))
}


class PacketLink:
    """Requests and replies with one stub. Not thread-safe.

    ``acks``: acknowledgements are on. ``window``: requests in flight.
    ``timeout``: the longest wait for one reply, in seconds.
    """

    def __init__(self, stream: Stream, *, timeout: float) -> None:
        self.stream = stream
        self.timeout = timeout
        self.acks = True
        self.window = 1
        self.stale = 0
        self._in = bytearray()
        self._out = memoryview(b"")
        # Set while an exchange is under way: an exception (a signal's too) that leaves it set means that
        # replies nobody waits for may still arrive.
        self._dirty = False

    @property
    def name(self) -> str:
        """The stream's name, for messages."""
        return self.stream.name

    def close(self) -> None:
        """Close the stream. Safe to call twice."""
        self.stream.close()

    def abandon(self) -> None:
        """Close, leaving a request to detach behind, without waiting for anything.

        A stub that is busy with another client reads what we sent once that one has left, and connecting stops the
        machine: this lets it run again.
        """
        with contextlib.suppress(TargetLost):
            self.stream.send(bytes(self._out) + frame(b"D;1"))
        self.stream.close()

    def request(self, payload: bytes, *, timeout: float | None = None) -> bytes:
        """One request, one reply (run lengths expanded).

        Raises :class:`TargetTimeout`, :class:`TargetLost`, :class:`ProtocolError`.
        """
        deadline = self._deadline(timeout)
        self._begin()
        self._send_marked(payload, deadline)
        reply = self._packet(deadline, payload)
        self._dirty = False
        return reply

    def request_more(self, payload: bytes, *, timeout: float | None = None) -> bytes:
        """The next packet of an answer that has several (``O`` output). ``payload``: the request, for messages."""
        self._dirty = True
        reply = self._packet(self._deadline(timeout), payload)
        self._dirty = False
        return reply

    def command(self, payload: bytes) -> None:
        """Send a request that has no reply of its own (a resume): only the mark is waited for."""
        deadline = self._deadline(None)
        self._begin()
        self._send_marked(payload, deadline)
        self._dirty = False

    def next_packet(self, seconds: float) -> bytes | None:
        """The next packet that comes unasked (a stop), or None after ``seconds``."""
        deadline = time.monotonic() + seconds
        while True:
            event = self._event(deadline)
            if event is None:
                return None
            if isinstance(event, bytes):
                self._ack(b"+")
                return expand_rle(event)
            if event is Mark.BAD:
                self._ack(b"-")

    def send_break(self) -> None:
        """The byte 0x03: stop, please."""
        self._queue(b"\x03")
        self._flush(self._deadline(None))

    def exchange(self, payloads: Sequence[bytes]) -> list[bytes]:
        """The replies to many requests, in order. Requests must be repeatable: a damaged one is sent again
        with all that follow it. Raises as :meth:`request`."""
        if self.window == 1:
            return [self.request(payload) for payload in payloads]
        self._begin()
        done: list[bytes] = []
        for _ in range(_RETRIES):
            replies = self._pipeline(payloads[len(done) :])
            good = replies.index(None) if None in replies else len(replies)
            done += [reply for reply in replies[:good] if reply is not None]
            if len(done) == len(payloads):
                self._dirty = False
                return done
        raise ProtocolError(f"{self.name}: the stub refused a packet {_RETRIES} times as damaged")

    # One request at a time

    def _begin(self) -> None:
        """Start from a quiet line: late answers to something that was given up are waited out and dropped."""
        if self._dirty:
            deadline = self._deadline(None)
            self._flush(deadline)
            while time.monotonic() < deadline and self.stream.poll(_QUIET_SECONDS)[0]:
                self.stream.receive()
                self.stale += 1
            self._in.clear()
        self._dirty = True

    def _send_marked(self, payload: bytes, deadline: float) -> None:
        """Send ``payload`` until the stub marks it as good."""
        packet = frame(payload)
        for _ in range(_RETRIES):
            self._queue(packet)
            self._flush(deadline)
            if not self.acks or self._marked(deadline, payload):
                return
        raise ProtocolError(f"{self.name}: the stub refused a packet {_RETRIES} times as damaged", reply=payload)

    def _marked(self, deadline: float, payload: bytes) -> bool:
        """Wait for the mark of what was just sent. True for ``+``; packets before it are stale."""
        for _ in range(_TOO_MANY):
            event = self._event(deadline)
            if event is None:
                raise self._silent(payload)
            if event is Mark.ACK:
                return True
            if event is Mark.NAK:
                return False
            self.stale += 1
        raise ProtocolError(f"{self.name}: the stub sends packets but acknowledges none")

    def _packet(self, deadline: float, payload: bytes) -> bytes:
        """The reply to ``payload``, acknowledged."""
        for _ in range(_TOO_MANY):
            event = self._event(deadline)
            if event is None:
                raise self._silent(payload)
            if isinstance(event, bytes):
                self._ack(b"+")
                return expand_rle(event)
            if event is Mark.BAD:
                if not self.acks:
                    raise ProtocolError(f"{self.name}: a damaged reply, and no way to ask for it again")
                self._ack(b"-")
        raise ProtocolError(f"{self.name}: no whole reply among what the stub sends")

    def _event(self, deadline: float) -> Mark | bytes | None:
        """The next mark or packet, or None at ``deadline``."""
        while True:
            event, position = unframe(self._in, 0)
            del self._in[:position]
            if event is not None:
                return event
            remaining = deadline - time.monotonic()
            readable, _ = self.stream.poll(remaining)
            if readable:
                self._take()
            elif remaining <= 0:
                return None

    def _take(self) -> None:
        self._in += self.stream.receive()
        if len(self._in) > _MIN_BUFFER and b"#" not in self._in:
            raise ProtocolError(
                f"{self.name}: {len(self._in)} bytes and no end of a packet", reply=bytes(self._in[:64])
            )

    def _ack(self, mark: bytes) -> None:
        if self.acks:
            self._queue(mark)
            self._flush(self._deadline(None))

    # Many requests in flight

    def _pipeline(self, payloads: Sequence[bytes]) -> list[bytes | None]:
        """Replies in order; None for a request that was refused or whose reply was damaged."""
        total = len(payloads)
        replies: list[bytes | None] = []
        marks: list[bool] = []  # in ack mode: the marks beyond the replies read so far, oldest first
        sent = 0
        deadline = self._deadline(None)
        while len(replies) < total:
            if not self._out and sent < total and sent - len(replies) <= self.window - _BLOCK:
                self._out = memoryview(frame_many(payloads[sent : sent + _BLOCK]))
                sent = min(total, sent + _BLOCK)
            if sent - len(replies) >= _MANY and not self._out:
                time.sleep(_NAP_SECONDS)
            readable, writable = self.stream.poll(deadline - time.monotonic(), write=bool(self._out))
            if writable:
                self._out = self._out[self.stream.send(self._out) :]
            if readable:
                self._take()
                before = len(replies)
                self._collect(replies, marks)
                if len(replies) > sent:
                    raise ProtocolError(f"{self.name}: more replies than requests")
                if len(replies) > before:
                    deadline = self._deadline(None)
            elif time.monotonic() >= deadline:
                raise self._silent(payloads[len(replies)])
        self._ack(b"+")
        return replies

    def _collect(self, replies: list[bytes | None], marks: list[bool]) -> None:
        """Move whole replies from the buffer to ``replies``."""
        buffer = self._in
        position = 0
        oks, unit = _OKS[self.acks]
        while True:
            # Almost every reply to a mass write is the same few bytes: take a run of them as one.
            if not marks and (run := oks.match(buffer, position)) is not None:
                replies += [b"OK"] * ((run.end() - position) // unit)
                position = run.end()
            event, position = unframe(buffer, position)
            if event is None:
                break
            if event is Mark.ACK or event is Mark.NAK:
                if self.acks:
                    marks.append(event is Mark.ACK)
            elif not self.acks:
                replies.append(expand_rle(event) if isinstance(event, bytes) else None)
            elif marks:
                marks.pop(0)
                replies.append(expand_rle(event) if isinstance(event, bytes) else None)
            else:
                self.stale += 1
            while marks and not marks[0]:
                marks.pop(0)
                replies.append(None)
        del buffer[:position]

    # Sending

    def _queue(self, data: bytes) -> None:
        self._out = memoryview(bytes(self._out) + data) if self._out else memoryview(data)

    def _flush(self, deadline: float) -> None:
        """Send all that is queued. What arrives meanwhile is kept, so that neither side can block the other."""
        while self._out:
            self._out = self._out[self.stream.send(self._out) :]
            if not self._out:
                return
            remaining = deadline - time.monotonic()
            readable, writable = self.stream.poll(remaining, write=True)
            if readable:
                self._take()
            elif not writable and remaining <= 0:
                raise TargetTimeout(f"{self.name}: the stub takes no more bytes", seconds=self.timeout)

    def _deadline(self, timeout: float | None) -> float:
        return time.monotonic() + (self.timeout if timeout is None else timeout)

    def _silent(self, payload: bytes) -> TargetTimeout:
        what = payload[:24].decode("ascii", "replace")
        return TargetTimeout(
            f"{self.name}: the stub did not answer {what!r} within {self.timeout:g} s",
            seconds=self.timeout,
            hint="a gdb stub serves one client: is another debugger attached, or the virtual machine suspended?",
        )
