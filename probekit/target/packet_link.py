"""Exchange requests and replies with a stub: acknowledgements, retransmission, many requests in flight.

An *acknowledgement* is the stub's ``+`` or ``-`` for a packet of ours. The stub
acknowledges and answers packets in order, so any packet that arrives before the acknowledgement
of our request is *stale* (an unsolicited stop on connect, a late reply) and is
dropped. A stop packet among them says that the machine ran until then: it is kept until :meth:`PacketLink.take_stops`.

QEMU takes the first byte that it gets while the machine runs as a request to stop, and drops it.
With ``guarded``, each exchange therefore begins with the byte 0x03. A stopped machine's stub ignores it. A running
machine stops by it, says so by a stop packet (since QEMU 8.1 it does that for no other byte), and then
answers the request, of which nothing is lost.

Up to ``window`` requests are sent before their replies are read
(:mod:`probekit.target.pipeline`). Stubs that may not take it (gdbsx) are asked one request at a time.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Final

from probekit.errors import ProtocolError, TargetLost, TargetTimeout
from probekit.interruption import check_interrupted
from probekit.target.packet_stream import PacketStream
from probekit.target.packets import BREAK, LinkEvent, expand_rle, frame
from probekit.target.pipeline import LOST_SECONDS, Pipeline
from probekit.target.reply_reader import ReplyReader
from probekit.target.transport import Stream

__all__ = ("PacketLink",)

_RETRIES: Final = 3
_MAX_RESENT: Final = 20
_UNREPORTED: Final = b"T02"  # a stop that the stub does not report
_QUIET_SECONDS: Final = 0.2


class PacketLink:
    """Requests and replies with one stub. Not thread-safe."""

    def __init__(self, stream: Stream, *, timeout: float) -> None:
        """Use ``stream``, which this object then owns; ``timeout``: the longest wait for one reply, in seconds."""
        self._packets = PacketStream(stream, timeout=timeout)
        self._replies = ReplyReader(self._packets)
        self.window = 1
        """The most requests in flight."""
        self.guarded = False
        """Whether each exchange begins with 0x03: for QEMU's stub, which understands it."""
        # Set while an exchange is under way: an exception (a signal's too) that leaves it set means that
        # replies that nothing waits for may still arrive.
        self._unfinished = False

    @property
    def name(self) -> str:
        """The stream's name, for messages."""
        return self._packets.name

    @property
    def acks(self) -> bool:
        """Whether packets are acknowledged."""
        return self._packets.acks

    @acks.setter
    def acks(self, on: bool) -> None:
        self._packets.acks = on

    @property
    def timeout(self) -> float:
        """The longest wait for one reply, in seconds."""
        return self._packets.timeout

    @timeout.setter
    def timeout(self, seconds: float) -> None:
        self._packets.timeout = seconds

    @property
    def stale(self) -> int:
        """Packets that were dropped as answers to nothing."""
        return self._replies.stale

    def close(self) -> None:
        """Close the stream. Safe to call twice."""
        self._packets.stream.close()

    def abandon(self) -> None:
        """Ask the stub to detach, and close without waiting for anything.

        A stub that is busy with another client reads what we sent once that one has left, and connecting stops the
        machine: this lets it run again.
        """
        with contextlib.suppress(TargetLost):
            self._packets.stream.send(bytes(self._packets.outgoing) + frame(b"D;1"))
        self.close()

    def request(self, payload: bytes, *, timeout: float | None = None) -> bytes:
        """Send one request and return its reply, run lengths expanded.

        Raises :class:`TargetTimeout`, :class:`TargetLost`, :class:`ProtocolError`.
        """
        check_interrupted()
        return self.request_first(payload, timeout=timeout)

    def request_first(self, payload: bytes, *, timeout: float | None = None) -> bytes:
        """Do the same, but give up only a stub that is silent. Raises as :meth:`request`."""
        deadline = self._deadline(timeout)
        self._begin()
        self._send_acknowledged(payload, deadline)
        reply = self._replies.reply(deadline, payload)
        self._unfinished = self._replies.lost  # what was taken for lost may only have been late
        return reply

    def request_once(self, payload: bytes) -> bytes | None:
        """Send one request that must not be done if the machine runs, and return its reply; None when it was not done.

        It is not guarded: a running machine's stub drops its first byte, and with that all of it. Raises as
        :meth:`request`.
        """
        if not self.guarded:
            return self.request(payload)
        self._begin()
        self._packets.queue(frame(payload))
        self._packets.flush(self._deadline(None))
        before = len(self._replies.stops)
        try:
            if self._replies.acknowledgement(time.monotonic() + 2 * LOST_SECONDS, payload):
                reply = self._replies.reply(self._deadline(None), payload)
                self._unfinished = False
                return reply
        except TargetTimeout:
            if len(self._replies.stops) == before:
                # Since QEMU 8.1 the byte that is dropped stops the machine without a word. Requests are answered in
                # order: if a later one is, this one was lost.
                if not self.request(b"qC").startswith(b"QC"):
                    raise
                self._replies.stops.append(_UNREPORTED)
        return None

    def request_more(self, payload: bytes, *, timeout: float | None = None) -> bytes:
        """Return the next packet of an answer that has several (``O`` output). ``payload``: the request, for messages.

        Raises as :meth:`request`.
        """
        self._unfinished = True
        reply = self._replies.reply(self._deadline(timeout), payload)
        self._unfinished = False
        return reply

    def command(self, payload: bytes) -> None:
        """Send a request that has no reply (a resume), and wait for its acknowledgement. Raises as :meth:`request`."""
        deadline = self._deadline(None)
        self._begin()
        self._send_acknowledged(payload, deadline)
        self._unfinished = self._replies.lost

    def next_packet(self, seconds: float) -> bytes | None:
        """Return the next packet that comes unasked (a stop), or None after ``seconds``."""
        deadline = time.monotonic() + seconds
        while True:
            event = self._packets.next_event(deadline)
            if event is None:
                return None
            if isinstance(event, bytes):
                self._packets.acknowledge(b"+")
                return expand_rle(event)
            if event is LinkEvent.BAD_CHECKSUM:
                self._packets.acknowledge(b"-")

    def take_stops(self) -> list[bytes]:
        """Return the stop packets that came instead of an answer since the last call."""
        taken, self._replies.stops = self._replies.stops, []
        return taken

    def send_break(self) -> None:
        """Send the byte 0x03, which asks the stub to stop the machine."""
        self._packets.queue(BREAK)
        self._packets.flush(self._deadline(None))

    def exchange(self, payloads: Sequence[bytes]) -> list[bytes]:
        """Return the replies to many requests, in order.

        Requests must be repeatable: a damaged one is sent again with all that follow it. Raises as :meth:`request`.
        """
        if self.window == 1:
            return [self.request(payload) for payload in payloads]
        check_interrupted()
        self._begin()
        done: list[bytes] = []
        damaged = 0
        for _ in range(_MAX_RESENT):
            stops = len(self._replies.stops)
            replies = self._run_pipeline(payloads[len(done) :])
            if replies is None:  # one request was lost: no answer can be told from that to its neighbour
                self._begin()
                done.clear()
                continue
            good = replies.index(None) if None in replies else len(replies)
            done += [reply for reply in replies[:good] if reply is not None]
            if len(done) == len(payloads):
                self._unfinished = False
                return done
            # A packet loses a byte if the machine is set running in its middle.
            damaged += len(self._replies.stops) == stops
            if damaged == _RETRIES:
                break
        raise ProtocolError(f"{self.name}: the stub refused a packet {_RETRIES} times as damaged")

    def _run_pipeline(self, payloads: Sequence[bytes]) -> list[bytes | None] | None:
        """Return the replies; None when the machine was set running meanwhile, which cost a request."""
        # In a row the stub waits for the acknowledgement of its last reply: before that it drops any byte but "$".
        guard = b"+" + BREAK if self.guarded else b""
        pipeline = Pipeline(self._packets, payloads, self.window, self._replies.silent, guard)
        try:
            return pipeline.run()
        finally:
            self._replies.stale += pipeline.stale
            self._replies.stops += pipeline.stops

    def _begin(self) -> None:
        """Wait until nothing arrives any more, and drop late answers to a request that was given up."""
        packets = self._packets
        if self._unfinished:
            deadline = self._deadline(None)
            packets.flush(deadline)
            while time.monotonic() < deadline and packets.stream.poll(_QUIET_SECONDS)[0]:
                packets.stream.receive()
                self._replies.stale += 1
            packets.incoming.clear()
        self._unfinished = True
        self._replies.lost = False

    def _send_acknowledged(self, payload: bytes, deadline: float) -> None:
        """Send ``payload`` until the stub acknowledges it as good."""
        packet = frame(payload)
        guard = BREAK if self.guarded else b""
        damaged = 0
        for _ in range(_MAX_RESENT):
            stops = len(self._replies.stops)
            self._packets.queue(guard + packet)
            self._packets.flush(deadline)
            if not self.acks or self._replies.acknowledgement(deadline, payload):
                return
            if len(self._replies.stops) > stops:
                guard = b"+" + BREAK  # it waits for the acknowledgement of its stop packet
            else:
                damaged += 1
            if damaged == _RETRIES:
                break
        raise ProtocolError(f"{self.name}: the stub refused a packet {_RETRIES} times as damaged", reply=payload)

    def _deadline(self, timeout: float | None) -> float:
        return time.monotonic() + (self.timeout if timeout is None else timeout)
