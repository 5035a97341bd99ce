"""Send many requests before reading their replies.

This is for stubs known to take it: QEMU counts the ``$`` of the next packet as the
acknowledgement of the reply before it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from typing import Final

from probekit.errors import ProtocolError, TargetTimeout
from probekit.target.packet_stream import PacketStream
from probekit.target.packets import OK_REPLY, LinkEvent, expand_rle, frame_many, unframe
from probekit.target.stop_packets import is_stop

__all__ = ("LOST_SECONDS", "Pipeline")

LOST_SECONDS: Final = 1.0
"""After a stop packet that nothing asked for: seconds of silence after which a request counts as lost."""

_BLOCK: Final = 100  # requests that are framed together
# With many replies to come it pays not to wait for each: waking us costs QEMU more than its reply does
# (90,000 writes: 0.75 s when woken, 0.45 s with naps).
_MANY_REPLIES: Final = 60
_NAP_SECONDS: Final = 0.0002
_OKS: Final = {
    acks: (re.compile(b"(?:%b)+" % re.escape(text)), len(text))
    for acks, text in ((True, b"+" + OK_REPLY), (False, OK_REPLY))
}


class Pipeline:
    """One run of requests over a stream, and the replies so far."""

    def __init__(
        self,
        packets: PacketStream,
        payloads: Sequence[bytes],
        window: int,
        silent: Callable[[bytes], TargetTimeout],
        guard: bytes = b"",
    ) -> None:
        """Prepare, but send nothing yet.

        ``window``: the most requests in flight. ``silent``: makes the error for a request that is not answered in time.
        ``guard``: bytes before each request.
        """
        self._packets = packets
        self._payloads = payloads
        self._window = window
        self._silent = silent
        self._guard = guard
        self._replies: list[bytes | None] = []
        # In ack mode: the acknowledgements beyond the replies read so far, oldest first.
        self._acks: list[bool] = []
        self.stale = 0
        """Packets that answered none of these requests."""
        self.stops: list[bytes] = []
        """Stop packets among them."""

    def run(self) -> list[bytes | None] | None:
        """Return the replies in order; None for a request that was refused or whose reply was damaged.

        None instead of the list: a request got lost, since the machine was set running meanwhile. Since QEMU 8.1 no
        stop packet says so: then only one reply of many is missing at the end.

        Raises :class:`TargetTimeout`, :class:`TargetLost`, :class:`ProtocolError`.
        """
        packets, payloads, replies = self._packets, self._payloads, self._replies
        total, sent = len(payloads), 0
        deadline = time.monotonic() + packets.timeout
        while len(replies) < total:
            if not packets.outgoing and sent < total and sent - len(replies) <= self._window - _BLOCK:
                block = frame_many(payloads[sent : sent + _BLOCK], self._guard)
                packets.outgoing = memoryview(self._guard + block)
                sent = min(total, sent + _BLOCK)
            if sent - len(replies) >= _MANY_REPLIES and not packets.outgoing:
                time.sleep(_NAP_SECONDS)
            lost = bool(self.stops) and not packets.outgoing and sent == total
            limit = LOST_SECONDS if lost else deadline - time.monotonic()
            readable, writable = packets.stream.poll(limit, write=bool(packets.outgoing))
            if writable:
                packets.send_some()
            if readable:
                packets.receive()
                before = len(replies)
                self._collect()
                if len(replies) > sent:
                    raise ProtocolError(f"{packets.name}: more replies than requests")
                if len(replies) > before:
                    deadline = time.monotonic() + packets.timeout
            elif lost:
                return None
            elif time.monotonic() >= deadline:
                if self._guard and 1 == total - len(replies) < total:
                    return None
                raise self._silent(payloads[len(replies)])
        packets.acknowledge(b"+")
        return replies

    def _collect(self) -> None:
        """Move whole replies from the stream's buffer to the list."""
        buffer, replies, acks = self._packets.incoming, self._replies, self._acks
        acks_on = self._packets.acks
        position = 0
        oks, unit = _OKS[acks_on]
        while True:
            # Almost every reply to a mass write is the same few bytes: take a run of them as one.
            if not acks and (run := oks.match(buffer, position)) is not None:
                replies += [b"OK"] * ((run.end() - position) // unit)
                position = run.end()
            event, position = unframe(buffer, position)
            if event is None:
                break
            if event is LinkEvent.ACK or event is LinkEvent.NAK:
                if acks_on:
                    acks.append(event is LinkEvent.ACK)
            elif not acks_on:
                replies.append(expand_rle(event) if isinstance(event, bytes) else None)
            elif acks:
                acks.pop(0)
                replies.append(expand_rle(event) if isinstance(event, bytes) else None)
            else:
                self.stale += 1
                if isinstance(event, bytes) and is_stop(packet := expand_rle(event)):
                    self.stops.append(packet)
            while acks and not acks[0]:
                acks.pop(0)
                replies.append(None)
        del buffer[:position]
