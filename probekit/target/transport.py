"""Connect byte streams to a stub: TCP and unix sockets, every wait with a limit.

The socket is non-blocking; :meth:`Stream.poll` is the only place that waits.
"""

from __future__ import annotations

import errno
import os
import pwd
import select
import socket
import time
from pathlib import Path
from typing import Final

from probekit.errors import TargetError, TargetLost, TargetTimeout
from probekit.interruption import check_interrupted

__all__ = ("START_HINT", "Stream", "open_tcp", "open_unix")

START_HINT: Final = (
    "start QEMU with -s (TCP port 1234), -gdb tcp:127.0.0.1:PORT, or "
    "-chardev socket,id=gdb0,path=PATH,server=on,wait=off -gdb chardev:gdb0"
)
_CHUNK: Final = 1 << 18


class Stream:
    """One connected socket. Not thread-safe."""

    def __init__(self, sock: socket.socket, name: str) -> None:
        """Take over ``sock``, which is connected. ``name``: for messages."""
        sock.setblocking(False)
        self.name = name
        self._sock = sock
        self._poll = select.poll()
        self._poll.register(sock.fileno(), select.POLLIN)
        self._wants_write = False

    def poll(self, seconds: float, *, write: bool = False) -> tuple[bool, bool]:
        """Wait at most ``seconds``; return (readable, writable). Writable is waited for only when ``write``."""
        if self._sock.fileno() < 0:
            raise TargetLost(f"{self.name}: the connection is closed")
        if write != self._wants_write:
            self._poll.modify(self._sock.fileno(), select.POLLIN | (select.POLLOUT if write else 0))
            self._wants_write = write
        events = self._poll.poll(max(0.0, seconds) * 1000)
        if not events:
            return False, False
        mask = events[0][1]
        # The read that follows reports a hang-up or an error.
        return bool(mask & ~select.POLLOUT), bool(mask & select.POLLOUT)

    def send(self, data: bytes | memoryview) -> int:
        """Hand over as much as the kernel takes now, and return how many bytes. Raises :class:`TargetLost`."""
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0
        except OSError as problem:
            raise self._lost(problem) from problem

    def receive(self) -> bytes:
        """Return what has arrived; empty when nothing has. Raises :class:`TargetLost` at the end of the stream."""
        try:
            data = self._sock.recv(_CHUNK)
        except BlockingIOError:
            return b""
        except OSError as problem:
            raise self._lost(problem) from problem
        if not data:
            raise TargetLost(f"{self.name}: the stub closed the connection", hint="did the virtual machine end?")
        return data

    def close(self) -> None:
        """Close the socket. Safe to call twice."""
        if self._sock.fileno() >= 0:
            self._poll.unregister(self._sock.fileno())
            self._sock.close()

    def _lost(self, problem: OSError) -> TargetLost:
        return TargetLost(f"{self.name}: the connection broke: {problem.strerror or problem}")


def open_unix(path: str, *, timeout: float) -> Stream:
    """Connect to the unix socket ``path``. Raises :class:`TargetError` or :class:`TargetTimeout`."""
    name = f"unix:{path}"
    deadline = time.monotonic() + timeout
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.settimeout(timeout)
        # A full backlog answers EAGAIN at once on a unix socket with a timeout: another client is being served.
        while True:
            try:
                sock.connect(path)
                return Stream(sock, name)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise TimeoutError from None
                check_interrupted()
                time.sleep(0.02)
    except OSError as problem:
        sock.close()
        raise _cannot_connect(name, problem, timeout) from problem


def open_tcp(host: str, port: int, *, timeout: float) -> Stream:
    """Connect to ``host``:``port``. Raises :class:`TargetError` or :class:`TargetTimeout`."""
    name = f"tcp:{host}:{port}"
    try:
        sock = _connected(host, port, time.monotonic() + timeout)
    except OSError as problem:
        raise _cannot_connect(name, problem, timeout) from problem
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return Stream(sock, name)


def _connected(host: str, port: int, deadline: float) -> socket.socket:
    """Return a TCP socket that is connected to the first address of ``host`` that answers.

    Raises :class:`OSError`, which is :class:`TimeoutError` at ``deadline``.
    """
    problem: OSError | None = None
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol)
        try:
            _connect(sock, address, deadline)
            return sock
        except OSError as error:
            sock.close()
            problem = error
        except BaseException:
            sock.close()
            raise
    raise problem or OSError(errno.EADDRNOTAVAIL, "the host has no address")


def _connect(sock: socket.socket, address: object, deadline: float) -> None:
    """Connect without blocking, so that the wait can be given up. Raises :class:`OSError`."""
    sock.setblocking(False)
    begun = sock.connect_ex(address)  # type: ignore[arg-type]
    if begun not in (0, errno.EINPROGRESS):
        raise OSError(begun, os.strerror(begun))
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLOUT)
    while not poll.poll(100):
        check_interrupted()
        if time.monotonic() >= deadline:
            raise TimeoutError
    ended = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if ended:
        raise OSError(ended, os.strerror(ended))


def _cannot_connect(name: str, problem: OSError, timeout: float) -> TargetError:
    if isinstance(problem, TimeoutError):
        return TargetTimeout(
            f"{name}: no connection within {timeout:g} s",
            seconds=timeout,
            hint="a gdb stub serves one client: is another debugger attached?",
        )
    hint = START_HINT
    if problem.errno in (errno.EACCES, errno.EPERM):
        hint = f"{_owner(name.removeprefix('unix:'))}: run as that user, or as root"
    return TargetError(f"{name}: cannot connect: {problem.strerror or problem}", hint=hint)


def _owner(path: str) -> str:
    """Say who owns the socket; where it cannot be seen, who owns the folder that keeps us from seeing it."""
    for place in (Path(path), *Path(path).absolute().parents):
        try:
            uid = place.stat().st_uid
        except OSError:
            continue
        try:
            return f"{place} belongs to the user {pwd.getpwuid(uid).pw_name}"
        except KeyError:
            return f"{place} belongs to the user {uid}"
    return "the socket belongs to another user"
