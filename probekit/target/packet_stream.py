"""Send and receive whole packets and acknowledgements over a byte stream, each wait with a limit."""

from __future__ import annotations

import time
from typing import Final

from probekit.errors import ProtocolError, TargetTimeout
from probekit.interruption import check_interrupted
from probekit.target.packets import LinkEvent, unframe
from probekit.target.transport import Stream

__all__ = ("PacketStream",)

_MAX_UNFINISHED: Final = 1 << 20  # bytes without the end of a packet
_SILENCE: Final = 0.5  # seconds; a stub that is silent for so long may be given up when the user wants to stop


class PacketStream:
    """Keeps the bytes of a connection that are not yet sent and not yet read. Not thread-safe."""

    def __init__(self, stream: Stream, *, timeout: float) -> None:
        """Send and receive through ``stream``. ``timeout``: seconds that sending may take."""
        self.stream = stream
        self.timeout = timeout
        self.acks = True
        """Whether packets are acknowledged."""
        self.incoming = bytearray()
        """Bytes that were received and not read."""
        self.outgoing = memoryview(b"")
        """Bytes that are queued and not sent."""

    @property
    def name(self) -> str:
        """The stream's name, for messages."""
        return self.stream.name

    def next_event(self, deadline: float) -> LinkEvent | bytes | None:
        """Return the next acknowledgement or packet (as on the wire), or None at ``deadline``.

        Raises :class:`TargetLost`, and :class:`ProtocolError` for bytes that never end a packet.
        """
        while True:
            event, position = unframe(self.incoming, 0)
            del self.incoming[:position]
            if event is not None:
                return event
            remaining = deadline - time.monotonic()
            readable, _ = self.stream.poll(min(remaining, _SILENCE))
            if readable:
                self.receive()
            elif remaining <= 0:
                return None
            else:
                check_interrupted()

    def receive(self) -> None:
        """Take in what has arrived. Raises :class:`TargetLost`, :class:`ProtocolError`."""
        self.incoming += self.stream.receive()
        if len(self.incoming) > _MAX_UNFINISHED and b"#" not in self.incoming:
            raise ProtocolError(
                f"{self.name}: {len(self.incoming)} bytes and no end of a packet", reply=bytes(self.incoming[:64])
            )

    def acknowledge(self, sign: bytes) -> None:
        """Send ``+`` (a good packet) or ``-`` (a damaged one), where packets are acknowledged."""
        if self.acks:
            self.queue(sign)
            self.flush(time.monotonic() + self.timeout)

    def queue(self, data: bytes) -> None:
        """Add bytes to what will be sent."""
        self.outgoing = memoryview(bytes(self.outgoing) + data) if self.outgoing else memoryview(data)

    def send_some(self) -> None:
        """Hand over as much of what is queued as the stream takes now."""
        self.outgoing = self.outgoing[self.stream.send(self.outgoing) :]

    def flush(self, deadline: float) -> None:
        """Send all that is queued. What arrives meanwhile is kept, so that neither side can block the other.

        Raises :class:`TargetTimeout` at ``deadline``, :class:`TargetLost`.
        """
        while self.outgoing:
            self.send_some()
            if not self.outgoing:
                return
            remaining = deadline - time.monotonic()
            readable, writable = self.stream.poll(remaining, write=True)
            if readable:
                self.receive()
            elif not writable and remaining <= 0:
                raise TargetTimeout(f"{self.name}: the stub takes no more bytes", seconds=self.timeout)
