"""Read the acknowledgement and the reply of one request, among whatever else a stub sends.

Any packet that arrives before the acknowledgement is *stale*. A stop packet among them says that the machine ran until
then: it is kept in ``stops``.
"""

from __future__ import annotations

import time
from typing import Final

from probekit.errors import ProtocolError, TargetTimeout
from probekit.target.packet_stream import PacketStream
from probekit.target.packets import LinkEvent, expand_rle
from probekit.target.pipeline import LOST_SECONDS
from probekit.target.stop_packets import is_stop

__all__ = ("ReplyReader",)

_MAX_UNRELATED: Final = 1000  # events before the one that is waited for


class ReplyReader:
    """Reads from one packet stream. Not thread-safe."""

    def __init__(self, packets: PacketStream) -> None:
        self._packets = packets
        self.stale = 0
        """Packets that were dropped as answers to nothing."""
        self.stops: list[bytes] = []
        """Stop packets among them, oldest first."""
        self.lost = False
        """Whether the request under way seemed to be lost, so that it was to be sent again. The link clears it."""

    def acknowledgement(self, deadline: float, payload: bytes) -> bool:
        """Wait for the acknowledgement of what was just sent. True for ``+``; packets before it are stale.

        A stop packet and then silence mean that the request was lost: it is to be sent again.
        """
        until = deadline
        for _ in range(_MAX_UNRELATED):
            event = self._packets.next_event(until)
            if event is None:
                if until < deadline:
                    self.lost = True
                    return False
                raise self.silent(payload)
            if event is LinkEvent.ACK:
                return True
            if event is LinkEvent.NAK:
                return False
            self.stale += 1
            if isinstance(event, bytes) and is_stop(expand_rle(event)):
                self.stops.append(expand_rle(event))
                until = min(deadline, time.monotonic() + LOST_SECONDS)
        raise ProtocolError(f"{self._packets.name}: the stub sends packets but acknowledges none")

    def reply(self, deadline: float, payload: bytes) -> bytes:
        """Read and acknowledge the reply to ``payload``. Returns it with run lengths expanded."""
        for _ in range(_MAX_UNRELATED):
            event = self._packets.next_event(deadline)
            if event is None:
                raise self.silent(payload)
            if isinstance(event, bytes):
                self._packets.acknowledge(b"+")
                return expand_rle(event)
            if event is LinkEvent.BAD_CHECKSUM:
                if not self._packets.acks:
                    raise ProtocolError(f"{self._packets.name}: a damaged reply, and no way to ask for it again")
                self._packets.acknowledge(b"-")
        raise ProtocolError(f"{self._packets.name}: no whole reply among what the stub sends")

    def silent(self, payload: bytes) -> TargetTimeout:
        """Make the error for a request that is not answered in time."""
        packets, what = self._packets, payload[:24].decode("ascii", "replace")
        return TargetTimeout(
            f"{packets.name}: the stub did not answer {what!r} within {packets.timeout:g} s",
            seconds=packets.timeout,
            hint="a gdb stub serves one client: is another debugger attached, or the virtual machine suspended?",
        )
