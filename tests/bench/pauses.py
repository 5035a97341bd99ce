"""How long the guest stood still, from QEMU's STOP and RESUME events on its second QMP socket.

No word of the tracer is taken for it.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from dataclasses import dataclass
from types import TracebackType

__all__ = ("PauseWatch", "Pauses")


@dataclass(frozen=True, slots=True)
class Pauses:
    """The pauses that began in a span of time, in seconds."""

    count: int
    longest: float
    total: float


class PauseWatch:
    """Records every pause while it is open."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(address.removeprefix("unix:"))
        self._socket.sendall(b'{"execute":"qmp_capabilities"}\n')
        self._pauses: list[tuple[float, float]] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        stopped: float | None = None
        with self._socket.makefile("rb") as lines:
            for line in lines:
                message = json.loads(line)
                event = message.get("event")
                if event not in ("STOP", "RESUME"):
                    continue
                at = message["timestamp"]["seconds"] + message["timestamp"]["microseconds"] / 1e6
                if event == "STOP":
                    stopped = at
                elif stopped is not None:
                    self._pauses.append((stopped, at - stopped))
                    stopped = None

    def between(self, first: float, last: float) -> Pauses:
        """The pauses that began between two moments of ``time.time()``."""
        time.sleep(0.05)  # the last event may be on its way
        found = [length for at, length in list(self._pauses) if first <= at <= last]
        return Pauses(len(found), max(found, default=0.0), sum(found))

    def __enter__(self) -> PauseWatch:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._socket.close()
