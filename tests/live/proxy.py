"""A unix socket in front of a gdb stub that can be cut, as a network would be."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType

__all__ = ("Proxy",)


class Proxy:
    """Listens at ``spec`` and passes everything on, until :meth:`cut`. ``limit``: cut by itself after so many bytes.

    ``passed``: bytes so far, both ways.
    """

    def __init__(self, path: Path, stub: str, limit: int | None = None) -> None:
        self.spec = f"unix:{path}"
        self._stub = stub.removeprefix("unix:")
        self._limit = limit
        self.passed = 0
        self._ends: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(1)
        threading.Thread(target=self._serve, daemon=True).start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Close both ends at once."""
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._ends.clear()

    def forget_limit(self) -> None:
        """From now on nothing is cut."""
        self._limit = None

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            stub = socket.socket(socket.AF_UNIX)
            stub.connect(self._stub)
            self._ends += [client, stub]
            for source, sink in ((client, stub), (stub, client)):
                threading.Thread(target=self._pass, args=(source, sink), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                if self._limit is not None and self.passed + len(data) > self._limit:
                    sink.sendall(data[: max(self._limit - self.passed, 0)])
                    break
                self.passed += len(data)
                sink.sendall(data)
        except OSError:
            pass
        self.cut()
