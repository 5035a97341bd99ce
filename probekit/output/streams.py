"""Owns everything that this process writes: standard output, standard error, files of ``-o`` and ``freopen()``.

A guest that we have changed must be restored, whatever becomes of the output. So no write raises, and no write waits
for ever:

- A write is complete, or it is put off, or its stream has failed. Short writes are continued.
- The first error of a stream is remembered. What is written later is dropped. :meth:`ProcessOutput.finish` reports it.
- When a reader does not read, output waits for it, as long as no signal has arrived. After a signal the rest is kept
  in memory, and is written when the guest is released. Standard error hardly ever waits.

Pipes and terminals are opened anew, without blocking: a write to a full pipe would go on after each signal.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from probekit.errors import ProbekitError

__all__ = ("OutputStream", "ProcessOutput", "TextStream", "begin_output", "fill_descriptors", "process_output")

_COLLECTED = 1 << 16  # characters that are collected for one write
_CHUNK = 1 << 16  # bytes of one write
_SMALL = 512  # bytes of one write to a pipe that blocks: POSIX's PIPE_BUF; it does not block after poll()
_BACKLOG = 4 << 20  # bytes of messages that are kept in memory, before we wait for their reader
_TURN_S = 0.1  # seconds between two looks at whether a signal has arrived
_IDLE_S = 2.0  # seconds in which a reader takes nothing, after SIGTERM or SIGHUP, until the rest is dropped
_TOLD_S = 1.0  # seconds of waiting at the end, until we say so


class TextStream(Protocol):
    """Takes text."""

    def write(self, text: str, /) -> object:
        """Write the text, now or at the next flush."""
        ...

    def flush(self) -> object:
        """Write what was collected."""
        ...


class _Sink(Protocol):
    """Takes bytes."""

    def write(self, data: bytes) -> int:
        """Write some of the bytes. Returns how many; 0 when none can be written now. Raises OSError, ValueError."""
        ...

    def wait(self, seconds: float) -> None:
        """Wait until some can be written, for so many seconds at most."""
        ...

    def truncate(self) -> None:
        """Cut the file to no bytes. Does nothing for what is no file."""
        ...

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        ...

    def close(self) -> None:
        """Close what was opened for it."""
        ...


class _Descriptor:
    """A file descriptor. Writing to it does not block."""

    def __init__(self, fd: int, *, ours: bool = False) -> None:
        """Prepare. ``ours``: the descriptor is closed in the end, and opening it has set O_NONBLOCK."""
        self._fd = fd
        self._ours = ours
        self._blocks = False
        if ours:
            return
        try:
            mode = os.fstat(fd).st_mode
            if not (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)):
                return
            self._blocks = stat.S_ISFIFO(mode) or os.isatty(fd)
            if self._blocks:
                # A new open file: to set O_NONBLOCK on the old one would change it for other processes too.
                flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
                self._fd, self._ours, self._blocks = os.open(f"/proc/self/fd/{fd}", flags), True, False
        except OSError:
            return  # a write will tell why; where the file is another user's, small writes after poll() have to do

    def write(self, data: bytes) -> int:
        if self._blocks:
            if not self._writable(0):
                return 0
            data = data[:_SMALL]
        try:
            return os.write(self._fd, data)
        except BlockingIOError:
            return 0

    def wait(self, seconds: float) -> None:
        self._writable(seconds)
        time.sleep(0.001)  # a limit on how often we look, whatever poll() says

    def _writable(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        return bool(poll.poll(int(seconds * 1000)))

    def truncate(self) -> None:
        try:
            os.lseek(self._fd, 0, os.SEEK_CUR)  # fails for what has no position
            os.ftruncate(self._fd, 0)
            os.lseek(self._fd, 0, os.SEEK_SET)
        except OSError as error:
            if error.errno not in (errno.ESPIPE, errno.EINVAL):
                raise

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def close(self) -> None:
        if self._ours:
            self._ours = False
            os.close(self._fd)


class _Socket(_Descriptor):
    """A socket, as systemd gives a service for its output."""

    def __init__(self, fd: int) -> None:
        import socket  # slow to import

        self._socket = socket.socket(fileno=os.dup(fd))
        self._flags = socket.MSG_DONTWAIT
        super().__init__(self._socket.fileno())

    def write(self, data: bytes) -> int:
        try:
            return self._socket.send(data, self._flags)
        except BlockingIOError:
            return 0

    def close(self) -> None:
        self._socket.close()


class _Text:
    """A text stream of Python that has no file descriptor."""

    def __init__(self, stream: TextStream) -> None:
        self._stream = stream

    def write(self, data: bytes) -> int:
        self._stream.write(data.decode("utf-8", "surrogateescape"))
        self._stream.flush()
        return len(data)

    def wait(self, seconds: float) -> None:
        time.sleep(min(seconds, 0.001))

    def truncate(self) -> None: ...

    def isatty(self) -> bool:
        return False

    def close(self) -> None: ...


class OutputStream:
    """Takes text, and writes all of it or remembers why not. No method raises."""

    def __init__(
        self,
        name: str,
        sink: _Sink,
        *,
        may_wait: Callable[[int], bool],
        encoding: str = "utf-8",
        errors: str = "surrogateescape",
    ) -> None:
        """Prepare.

        ``name``: how messages name it. ``may_wait``: gets the number of bytes that are left, and returns whether to
        wait for the reader. ``errors``: how bytes of the guest that are no text are written.
        """
        self.name = name
        self.error: OSError | None = None
        """Why a write has failed; None as long as none has."""
        self.closed = False
        """Whether it was closed."""
        self.reported = False
        """Whether the user knows of the error."""
        self._sink = sink
        self._may_wait = may_wait
        self._encoding, self._errors = encoding, errors
        self._texts: list[str] = []
        self._collected = 0
        self._data = bytearray()

    @property
    def unwritten(self) -> int:
        """The number of bytes that were put off."""
        return len(self._data)

    def write(self, text: str, /) -> None:
        """Write the text, now or at the next flush."""
        self._texts.append(text)
        self._collected += len(text)
        if self._collected >= _COLLECTED:
            self.flush()

    def flush(self) -> None:
        """Write what was collected, as far as the reader takes it."""
        self._push(self._may_wait)

    def offer(self, text: str) -> None:
        """Write the text now if its reader takes it at once, and put it off otherwise."""
        self._texts.append(text)
        self._push(lambda _: False)

    def truncate(self) -> None:
        """Cut the file to no bytes. Does nothing for what is no file."""
        self.flush()
        try:
            self._sink.truncate()
        except OSError as error:
            self._fail(error)

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return self._sink.isatty()

    def give_up(self) -> None:
        """Drop what was put off."""
        lost = len(self._data)
        self._fail(OSError(errno.ETIMEDOUT, f"its reader does not read; {lost} bytes are lost"))

    def wait(self, seconds: float) -> None:
        """Wait for the reader, and write what it takes."""
        self._sink.wait(seconds)
        self._push(lambda _: False)

    def close(self) -> None:
        """Write what can be written at once, and close the file."""
        if not self.closed:
            self._push(lambda _: False)
            self.closed = True
            try:
                self._sink.close()
            except OSError as error:
                self._fail(error)

    def _push(self, may_wait: Callable[[int], bool]) -> None:
        self._encode()
        while self._data:
            try:
                taken = self._sink.write(bytes(self._data[:_CHUNK]))
            except (OSError, ValueError) as error:  # ValueError: a stream of Python that was closed
                self._fail(error if isinstance(error, OSError) else OSError(errno.EBADF, str(error)))
                return
            if taken:
                del self._data[:taken]
            elif may_wait(len(self._data)):
                self._sink.wait(_TURN_S)
            else:
                return

    def _encode(self) -> None:
        text = "".join(self._texts)
        self._texts.clear()
        self._collected = 0
        if not text or self.error is not None:
            return
        if self.closed:
            self._fail(OSError(errno.EBADF, os.strerror(errno.EBADF)))
            return
        try:
            self._data += text.encode(self._encoding, self._errors)
        except UnicodeEncodeError:  # a character that this encoding lacks
            self._data += text.encode(self._encoding, "backslashreplace")

    def _fail(self, error: OSError) -> None:
        self.error = self.error or error
        self._data.clear()


class ProcessOutput:
    """The streams of one command."""

    def __init__(self) -> None:
        """Take Python's standard streams as they are now."""
        self._signal: Callable[[], int] = lambda: 0
        self._source = (sys.stdout, sys.stderr)
        self._files: list[OutputStream] = []
        self.out = _standard(1, sys.stdout, self._output_may_wait, "surrogateescape")
        """Standard output."""
        self.messages = _standard(2, sys.stderr, self._messages_may_wait, "backslashreplace")
        """Standard error. What is written is flushed by :meth:`say`."""

    @property
    def stale(self) -> bool:
        """Whether Python's standard streams are others by now."""
        return self._source != (sys.stdout, sys.stderr)

    @property
    def failed(self) -> bool:
        """Whether some output is lost, messages left out."""
        return any(stream.error is not None for stream in (self.out, *self._files))

    def heed(self, pending: Callable[[], int]) -> None:
        """Stop waiting for readers once a signal has arrived. ``pending``: returns its number, or 0."""
        self._signal = pending

    def say(self, text: str) -> None:
        """Write the text to standard error."""
        self.messages.write(text)
        self.messages.flush()

    def check_standard_output(self) -> None:
        """Raise :class:`ProbekitError` when standard output was closed from the start, or is only open for reading."""
        import fcntl

        try:
            fd = 1 if sys.stdout is None else sys.stdout.fileno()
            open_for = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE
        except (OSError, ValueError):
            return  # no descriptor
        if open_for == os.O_RDONLY:
            self.out.reported = True
            raise ProbekitError("standard output is closed", hint="name a file with -o")

    def open(self, path: str) -> OutputStream:
        """Open a file, to which output is appended. Waits for the reader of a FIFO. Raises OSError, ValueError."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        while True:
            try:
                fd = os.open(path, flags, 0o666)
                break
            except OSError as error:
                if error.errno != errno.ENXIO or self._signal() or not Path(path).is_fifo():
                    raise
                time.sleep(_TURN_S)
        stream = OutputStream(path, _Descriptor(fd, ours=True), may_wait=self._output_may_wait)
        self._files.append(stream)
        return stream

    def close(self, stream: OutputStream) -> None:
        """Close a file once everything is written: now, or in :meth:`finish`."""
        stream.flush()
        if not stream.unwritten:
            stream.close()

    def check(self) -> None:
        """Write everything that was put off, and close all files. The guest must be released.

        Raises :class:`ProbekitError` for output that is lost, BrokenPipeError when its reader has gone.
        """
        for stream in (*self._files, self.out):
            self._complete(stream)
        for stream in self._files:
            stream.close()
        for error in self._unreported():
            if isinstance(error, BrokenPipeError):
                raise error
            raise ProbekitError(str(error))

    def finish(self, status: int) -> int:
        """End the command: write everything that was put off, and report what is lost. Returns the exit status.

        Raises KeyboardInterrupt when the user does not want to wait for the reader. Call :meth:`abandon` then.
        """
        for stream in (*self._files, self.out):
            self._complete(stream)
        status = self._report(status)
        self._complete(self.messages)
        lost = self.messages.error
        # Whoever closes standard error wants no messages.
        if lost is not None and lost.errno not in (errno.EPIPE, errno.EBADF):
            status = status or 1
        return status

    def release(self) -> None:
        """Close what was opened anew to write without blocking. Python's own streams stay open."""
        for stream in (*self._files, self.out, self.messages):
            stream.close()

    def abandon(self) -> None:
        """Write what can be written at once, drop the rest, and report what is lost."""
        for stream in (*self._files, self.out):
            stream.offer("")
            if stream.unwritten:
                stream.give_up()
        self._report(0)

    def _report(self, status: int) -> int:
        """Write a line for each stream that has failed. Returns the exit status."""
        for error in self._unreported():
            if not isinstance(error, BrokenPipeError):  # whoever closes a pipe wants no more of it
                self.messages.offer(f"probekit: {error}\n")
                status = status or 1
        return status

    def _unreported(self) -> Iterator[Exception]:
        """Yield an error for each stream that has failed, once."""
        for stream in (*self._files, self.out):
            if stream.error is not None and not stream.reported:
                stream.reported = True
                if isinstance(stream.error, BrokenPipeError):
                    yield stream.error
                else:
                    yield ProbekitError(f"cannot write {stream.name}: {stream.error.strerror}")

    def _complete(self, stream: OutputStream) -> None:
        """Write what was put off. After SIGTERM and SIGHUP, a reader that takes nothing for 2 s is not waited for."""
        stream.flush()
        left, since, told = stream.unwritten, time.monotonic(), False
        try:
            while stream.unwritten:
                stream.wait(_TURN_S)
                now = time.monotonic()
                if stream.unwritten < left:
                    left, since = stream.unwritten, now
                elif now - since > _IDLE_S and self._signal() in (signal.SIGTERM, signal.SIGHUP):
                    stream.give_up()
                elif now - since > _TOLD_S and not told and stream is not self.messages:
                    self.messages.offer(f"probekit: waiting for the reader of {stream.name} ({left} bytes)\n")
                    told = True
        except KeyboardInterrupt:
            stream.give_up()
            raise

    def _output_may_wait(self, left: int) -> bool:
        return not self._signal()

    def _messages_may_wait(self, left: int) -> bool:
        return left > _BACKLOG and not self._signal()


def _standard(fd: int, stream: TextStream | None, may_wait: Callable[[int], bool], errors: str) -> OutputStream:
    """Return the stream for a standard stream of Python. None, when it was closed: then writes to ``fd`` fail."""
    name = {1: "standard output", 2: "standard error"}[fd]
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        if stream is not None:
            stream.flush()
            fd = stream.fileno()  # type: ignore[attr-defined]
        sink: _Sink = _Socket(fd) if stat.S_ISSOCK(os.fstat(fd).st_mode) else _Descriptor(fd)
    except (OSError, ValueError, AttributeError):
        if stream is not None:
            return OutputStream(name, _Text(stream), may_wait=may_wait, errors=errors)
        sink = _Descriptor(fd)
    return OutputStream(name, sink, may_wait=may_wait, encoding=encoding, errors=errors)


_current: ProcessOutput | None = None


def begin_output() -> ProcessOutput:
    """Begin the output of one command, with Python's standard streams as they are now."""
    global _current
    if _current is not None:
        _current.release()
    _current = ProcessOutput()
    return _current


def process_output() -> ProcessOutput:
    """Return the output of the command that runs."""
    return begin_output() if _current is None or _current.stale else _current


def fill_descriptors() -> None:
    """Open those of the descriptors 0 to 2 that are closed, so that no other file gets their number.

    The connection to a guest would otherwise be the standard output of a command that ``system()`` runs. They are
    opened the wrong way round, so that reading and writing fail as on a closed one.
    """
    for fd, flags in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_RDONLY)):
        try:
            os.fstat(fd)
        except OSError:
            if os.open(os.devnull, flags) == fd:
                os.set_inheritable(fd, True)
