"""Exchange requests and replies with a stub: acknowledgements, retransmission, many requests in flight.

An *acknowledgement* is the stub's ``+`` or ``-`` for a packet of ours. The stub
acknowledges and answers packets in order, so any packet that arrives before the acknowledgement
of our request is *stale* (an unsolicited stop on connect, a late reply) and is
dropped.

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
from probekit.target.packets import LinkEvent, expand_rle, frame
from probekit.target.pipeline import Pipeline
from probekit.target.transport import Stream

__all__ = ("PacketLink",)

_RETRIES: Final = 3
_QUIET_SECONDS: Final = 0.2
_MAX_UNRELATED: Final = 1000  # events before the one that is waited for


class PacketLink:
    """Requests and replies with one stub. Not thread-safe."""

    def __init__(self, stream: Stream, *, timeout: float) -> None:
        """Use ``stream``, which this object then owns; ``timeout``: the longest wait for one reply, in seconds."""
        self._packets = PacketStream(stream, timeout=timeout)
        self.window = 1
        """The most requests in flight."""
        self.stale = 0
        """Packets that were dropped as answers to nothing."""
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
        deadline = self._deadline(timeout)
        self._begin()
        self._send_acknowledged(payload, deadline)
        reply = self._read_reply(deadline, payload)
        self._unfinished = False
        return reply

    def request_more(self, payload: bytes, *, timeout: float | None = None) -> bytes:
        """Return the next packet of an answer that has several (``O`` output). ``payload``: the request, for messages.

        Raises as :meth:`request`.
        """
        self._unfinished = True
        reply = self._read_reply(self._deadline(timeout), payload)
        self._unfinished = False
        return reply

    def command(self, payload: bytes) -> None:
        """Send a request that has no reply (a resume), and wait for its acknowledgement. Raises as :meth:`request`."""
        deadline = self._deadline(None)
        self._begin()
        self._send_acknowledged(payload, deadline)
        self._unfinished = False

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

    def send_break(self) -> None:
        """Send the byte 0x03, which asks the stub to stop the machine."""
        self._packets.queue(b"\x03")
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
        for _ in range(_RETRIES):
            replies = self._run_pipeline(payloads[len(done) :])
            good = replies.index(None) if None in replies else len(replies)
            done += [reply for reply in replies[:good] if reply is not None]
            if len(done) == len(payloads):
                self._unfinished = False
                return done
        raise ProtocolError(f"{self.name}: the stub refused a packet {_RETRIES} times as damaged")

    def _run_pipeline(self, payloads: Sequence[bytes]) -> list[bytes | None]:
        pipeline = Pipeline(self._packets, payloads, self.window, self._silent)
        try:
            return pipeline.run()
        finally:
            self.stale += pipeline.stale

    def _begin(self) -> None:
        """Wait until nothing arrives any more, and drop late answers to a request that was given up."""
        packets = self._packets
        if self._unfinished:
            deadline = self._deadline(None)
            packets.flush(deadline)
            while time.monotonic() < deadline and packets.stream.poll(_QUIET_SECONDS)[0]:
                packets.stream.receive()
                self.stale += 1
            packets.incoming.clear()
        self._unfinished = True

    def _send_acknowledged(self, payload: bytes, deadline: float) -> None:
        """Send ``payload`` until the stub acknowledges it as good."""
        packet = frame(payload)
        for _ in range(_RETRIES):
            self._packets.queue(packet)
            self._packets.flush(deadline)
            if not self.acks or self._read_acknowledgement(deadline, payload):
                return
        raise ProtocolError(f"{self.name}: the stub refused a packet {_RETRIES} times as damaged", reply=payload)

    def _read_acknowledgement(self, deadline: float, payload: bytes) -> bool:
        """Wait for the acknowledgement of what was just sent. True for ``+``; packets before it are stale."""
        for _ in range(_MAX_UNRELATED):
            event = self._packets.next_event(deadline)
            if event is None:
                raise self._silent(payload)
            if event is LinkEvent.ACK:
                return True
            if event is LinkEvent.NAK:
                return False
            self.stale += 1
        raise ProtocolError(f"{self.name}: the stub sends packets but acknowledges none")

    def _read_reply(self, deadline: float, payload: bytes) -> bytes:
        """Read and acknowledge the reply to ``payload``."""
        for _ in range(_MAX_UNRELATED):
            event = self._packets.next_event(deadline)
            if event is None:
                raise self._silent(payload)
            if isinstance(event, bytes):
                self._packets.acknowledge(b"+")
                return expand_rle(event)
            if event is LinkEvent.BAD_CHECKSUM:
                if not self.acks:
                    raise ProtocolError(f"{self.name}: a damaged reply, and no way to ask for it again")
                self._packets.acknowledge(b"-")
        raise ProtocolError(f"{self.name}: no whole reply among what the stub sends")

    def _deadline(self, timeout: float | None) -> float:
        return time.monotonic() + (self.timeout if timeout is None else timeout)

    def _silent(self, payload: bytes) -> TargetTimeout:
        what = payload[:24].decode("ascii", "replace")
        return TargetTimeout(
            f"{self.name}: the stub did not answer {what!r} within {self.timeout:g} s",
            seconds=self.timeout,
            hint="a gdb stub serves one client: is another debugger attached, or the virtual machine suspended?",
        )
