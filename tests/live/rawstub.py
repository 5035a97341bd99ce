"""The plainest reader of a gdb stub: packets and their replies. Shares no code with what it checks."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from types import TracebackType

__all__ = ("RawStub", "let_run")

_CHUNK = 0x7C0
_FLIGHT = 100


class RawStub:
    """A connection; the guest is stopped inside the ``with`` block and runs behind it."""

    def __init__(self, spec: str, timeout: float = 20.0) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout)
        self._socket.connect(spec.removeprefix("unix:"))
        self._pending = b""
        self._at = 0

    def __enter__(self) -> RawStub:
        self.ask("?")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        # QEMU remembers that an earlier client asked for multiprocess, and then wants to be told the process.
        if self.ask("D") != "OK" and self.ask("D;1") != "OK":
            raise ConnectionError("the stub does not let the guest go")
        self._socket.close()

    def ask(self, *packets: str) -> str:
        """Send packets and return the reply to the last one; stop packets that come unasked are dropped."""
        return self._ask(packets)[-1]

    def _ask(self, packets: Sequence[str]) -> list[str]:
        self._socket.sendall(b"".join(b"$%b#%02x" % (p.encode(), sum(p.encode()) & 255) for p in packets))
        replies: list[str] = []
        while len(replies) < len(packets):
            reply = self._packet()
            if packets[0] == "?" or not reply.startswith("T"):
                replies.append(reply)
        return replies

    def _packet(self) -> str:
        while True:
            start = self._pending.find(b"$", self._at)
            end = self._pending.find(b"#", start) if start >= 0 else -1
            if end >= 0 and len(self._pending) >= end + 3:
                self._at = end + 3
                self._socket.sendall(b"+")
                return self._pending[start + 1 : end].decode("latin-1")
            more = self._socket.recv(65536)
            if not more:
                raise ConnectionError("the stub closed the connection")
            self._pending, self._at = self._pending[self._at :] + more, 0

    def read(self, addr: int, size: int) -> bytes:
        """Guest memory, or LookupError."""
        pieces = [(at, min(_CHUNK, addr + size - at)) for at in range(addr, addr + size, _CHUNK)]
        parts: list[bytes] = []
        for first in range(0, len(pieces), _FLIGHT):
            some = pieces[first : first + _FLIGHT]
            for (at, length), reply in zip(some, self._ask([f"m{at:x},{n:x}" for at, n in some]), strict=True):
                if len(reply) != 2 * length:
                    raise LookupError(f"{at:#x}: {reply[:20]}")
                parts.append(bytes.fromhex(reply))
        return b"".join(parts)


def let_run(spec: str) -> None:
    """The guest runs again when a client was killed just while it held the guest: QEMU leaves it stopped."""
    with RawStub(spec):
        pass
