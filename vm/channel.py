"""Run a shell script in a guest through its exec agent (vm/rootfs/agent.c has the protocol).

A guest has a few channels; a file lock on each gives it to one host process at a
time, so commands of different processes run in parallel, and wait when all
channels are taken. Scripts travel as base64 lines, so nothing needs quoting.
"""

from __future__ import annotations

import base64
import fcntl
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from vm.errors import ChannelError, ExecTimeoutError
from vm.qemu import EXEC_CHANNELS

__all__ = ("Completed", "Reply", "parse_reply", "run_script", "script_lines")

_LINE_BYTES = 2400
# An agent that does not answer for so long counts as dead. A guest under a heavy tracer may be slow.
_AGENT_SECONDS = 30.0
_MAX_OUTPUT = 64 << 20


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that has ended."""

    status: int
    """The status of the shell: the exit code, or 128 + signal."""
    output: str
    """Standard output and error together."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One line from the agent."""

    kind: str
    """The letter of the message, as in vm/rootfs/agent.c."""
    id: str
    """The token of the conversation."""
    payload: str


def parse_reply(line: bytes) -> Reply | None:
    """Parse a line from the agent; None for the rest of a line that was cut."""
    words = line.decode("ascii", "replace").split(" ")
    if len(words) not in (2, 3) or words[0] not in ("Y", "K", "O", "E"):
        return None
    return Reply(words[0], words[1], words[2] if len(words) == 3 else "")


def script_lines(token: str, script: str) -> tuple[bytes, ...]:
    """Return the lines that carry ``script`` to the agent."""
    data = script.encode()
    chunks = (data[at : at + _LINE_BYTES] for at in range(0, len(data), _LINE_BYTES))
    return tuple(b"D %s %s\n" % (token.encode(), base64.b64encode(chunk)) for chunk in chunks)


class _Channel:
    """Connects to one agent, for one conversation."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.token = secrets.token_hex(8)
        self._pending = b""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise ChannelError(f"cannot reach the guest's exec agent: {error}", socket=path) from error

    def __enter__(self) -> _Channel:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise ChannelError(f"lost the guest's exec agent: {error}", socket=self.path) from error

    def receive(self, deadline: float) -> Reply:
        """Return the next reply in our conversation. Raises :class:`TimeoutError` at ``deadline``."""
        while True:
            line, newline, rest = self._pending.partition(b"\n")
            if newline:
                self._pending = rest
                reply = parse_reply(line)
                if reply is not None and reply.id == self.token:
                    return reply
                continue
            self._fill(deadline)

    def _fill(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)
        try:
            data = self._socket.recv(65536)
        except TimeoutError:
            raise
        except OSError as error:
            raise ChannelError(f"lost the guest's exec agent: {error}", socket=self.path) from error
        if not data:
            raise ChannelError("QEMU closed the exec channel", socket=self.path)
        self._pending += data

    def expect(self, kind: str) -> None:
        """Wait for a reply of this kind. Raises :class:`ChannelError` when none comes."""
        try:
            while self.receive(time.monotonic() + _AGENT_SECONDS).kind != kind:
                pass
        except TimeoutError:
            message = f"the guest's exec agent did not answer in {_AGENT_SECONDS:g} s"
            raise ChannelError(message, socket=self.path) from None


@contextmanager
def _free_channel(directory: Path, deadline: float) -> Iterator[Path]:
    """Lock a free channel, waiting for one if needed, and yield its socket."""
    pause = 0.005
    while True:
        for number in range(1, EXEC_CHANNELS + 1):
            with (directory / f"exec{number}.lock").open("w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                yield directory / f"exec{number}.sock"
                return
        if time.monotonic() > deadline:
            raise ChannelError(f"all {EXEC_CHANNELS} exec channels are busy", socket=directory / "exec1.sock")
        time.sleep(pause)
        pause = min(pause * 2, 0.2)


def run_script(directory: Path, script: str, *, timeout: float) -> Completed:
    """Run ``script`` with ``sh -c`` in the guest and wait for its end.

    After ``timeout`` seconds its process group is killed. :class:`ExecTimeoutError` then has
    the output so far. Raises :class:`ChannelError` when the agent does not answer.
    """
    with _free_channel(directory, time.monotonic() + timeout) as path, _Channel(path) as channel:
        token = channel.token.encode()
        # The newline ends the line that a client was sending when it died.
        hello, start = b"\nS %s\n" % token, b"R %s\n" % token
        lines = script_lines(channel.token, script)
        if len(lines) <= 1:
            # The usual case needs no waiting in between: it fits the guest's tty buffer.
            channel.send(b"".join((hello, *lines, start)))
            channel.expect("Y")
        else:
            channel.send(hello)
            channel.expect("Y")
            for line in lines:
                channel.send(line)
                channel.expect("K")
            channel.send(start)
        return _collect(channel, script, timeout)


def _collect(channel: _Channel, script: str, timeout: float) -> Completed:
    output = bytearray()
    deadline = time.monotonic() + timeout
    expired = False
    while True:
        try:
            reply = channel.receive(deadline)
        except TimeoutError:
            text = output.decode(errors="replace")
            if expired:
                raise ExecTimeoutError(script, seconds=timeout, output=text) from None
            expired = True
            channel.send(b"X %s\n" % channel.token.encode())
            deadline = time.monotonic() + 5
            continue
        if reply.kind == "O":
            output += base64.b64decode(reply.payload)
            if len(output) > _MAX_OUTPUT:
                raise ChannelError(f"a command wrote more than {_MAX_OUTPUT} bytes", socket=channel.path)
        elif reply.kind == "E":
            text = output.decode(errors="replace")
            if expired:
                raise ExecTimeoutError(script, seconds=timeout, output=text)
            return Completed(int(reply.payload), text)
