"""All writing of the process: complete, or put off, or failed and said so; never raised."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import pty
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from probekit.errors import ProbekitError
from probekit.output import streams
from probekit.output.streams import OutputStream, ProcessOutput, begin_output, process_output

BIG = "".join(f"{number:07}\n" for number in range(1 << 15))  # 256 KiB, more than a pipe holds
SIGTERM = 15


class _Sink:
    """Takes up to ``step`` bytes at a time. ``errors``: raised by the next writes, None for one that goes well."""

    def __init__(self, step: int = 3, *errors: Exception | None) -> None:
        self.step = step
        self.errors = list(errors)
        self.taken = b""
        self.waits = 0
        self.closed = False

    def write(self, data: bytes) -> int:
        if self.errors and (error := self.errors.pop(0)) is not None:
            raise error
        self.taken += data[: self.step]
        return min(len(data), self.step)

    def wait(self, seconds: float) -> None:
        self.waits += 1

    def truncate(self) -> None:
        raise OSError(errno.EIO, "gone")

    def isatty(self) -> bool:
        return False

    def close(self) -> None:
        self.closed = True


def _stream(sink: Any, *, wait: bool = True, **more: Any) -> OutputStream:
    return OutputStream("x", sink, may_wait=lambda _: wait, **more)


def test_short_writes_are_continued_until_all_is_written() -> None:
    sink = _Sink()
    stream = _stream(sink)
    stream.write("one two ")
    assert sink.taken == b""
    stream.write("three")
    stream.flush()
    assert sink.taken == b"one two three" and stream.error is None and not stream.unwritten


def test_much_text_is_written_without_a_flush() -> None:
    sink = _Sink(1 << 20)
    stream = _stream(sink)
    stream.write("x" * (1 << 17))
    assert len(sink.taken) == 1 << 17


@pytest.mark.parametrize("number", [errno.EIO, errno.EPIPE, errno.ENOSPC, errno.EBADF])
def test_the_first_error_is_kept_and_later_text_is_dropped(number: int) -> None:
    sink = _Sink(3, None, OSError(number, os.strerror(number)), OSError(errno.EINVAL, "second"))
    stream = _stream(sink)
    for text in ("abcdef", "more"):
        stream.write(text)
        stream.flush()
    stream.truncate()
    stream.close()
    assert sink.taken == b"abc" and stream.error is not None and stream.error.errno == number
    assert not stream.unwritten and sink.closed


def test_what_the_reader_does_not_take_is_put_off_in_order() -> None:
    sink = _Sink(0)
    stream = _stream(sink, wait=False)
    stream.write("a")
    stream.flush()
    stream.offer("b")
    assert stream.unwritten == 2 and not sink.waits
    sink.step = 9
    stream.wait(0.0)
    assert sink.taken == b"ab" and not stream.unwritten


def test_text_after_the_close_is_said_to_be_lost() -> None:
    stream = _stream(_Sink())
    stream.close()
    stream.write("late")
    stream.flush()
    assert stream.error is not None and stream.error.errno == errno.EBADF


@pytest.mark.parametrize(
    ("encoding", "errors", "text", "expected"),
    [
        ("utf-8", "surrogateescape", "a\udcffé", b"a\xff\xc3\xa9"),
        ("utf-8", "backslashreplace", "a\udcff", b"a\\udcff"),
        ("utf-8", "surrogateescape", "\ud800", b"\\ud800"),
        ("ascii", "surrogateescape", "é", b"\\xe9"),
    ],
)
def test_no_text_is_too_strange_to_be_written(encoding: str, errors: str, text: str, expected: bytes) -> None:
    sink = _Sink(99)
    stream = _stream(sink, encoding=encoding, errors=errors)
    stream.offer(text)
    assert sink.taken == expected


# -- a process's streams -----------------------------------------------------------------------------------------------


@pytest.fixture
def fds() -> Iterator[list[int]]:
    """Descriptors that are closed after the test, if they still are open."""
    opened: list[int] = []
    yield opened
    for fd in opened:
        try:
            os.close(fd)
        except OSError:
            continue


def _output(monkeypatch: pytest.MonkeyPatch, fd: int, messages: io.StringIO | None = None) -> ProcessOutput:
    monkeypatch.setattr(sys, "stdout", os.fdopen(fd, "w", closefd=False))
    monkeypatch.setattr(sys, "stderr", messages or io.StringIO())
    monkeypatch.setattr(streams, "_IDLE_S", 0.3)
    monkeypatch.setattr(streams, "_TOLD_S", 0.05)
    monkeypatch.setattr(streams, "_TURN_S", 0.01)
    return begin_output()


def _pipe(fds: list[int]) -> tuple[int, int]:
    read, write = os.pipe()
    fds += [read, write]
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    return read, write


def _read_big(fd: int, found: list[bytes]) -> threading.Thread:
    """Read as much as :data:`BIG` has, slowly. A terminal writes a carriage return before each line end."""

    def read() -> None:
        left = len(BIG)
        while left:
            found.append(os.read(fd, 999).replace(b"\r", b""))
            left -= len(found[-1])

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    return reader


@pytest.mark.parametrize("kind", ["pipe", "socket", "pty"])
def test_a_slow_reader_gets_every_byte_whenever_a_signal_arrives(
    kind: str, fds: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "pipe":
        read, write = _pipe(fds)
    elif kind == "pty":
        read, write = pty.openpty()
        fds += [read, write]
    else:
        one, two = socket.socketpair()
        read, write = one.detach(), two.detach()
        fds += [read, write]
    output = _output(monkeypatch, write)
    number = 0
    output.heed(lambda: number)
    found: list[bytes] = []
    reader = _read_big(read, found)
    for at in range(0, len(BIG), 8192):
        number = SIGTERM if at > len(BIG) // 2 else 0
        output.out.write(BIG[at : at + 8192])
        output.out.flush()
    assert output.finish(0) == 0
    reader.join(60)
    assert b"".join(found).decode() == BIG
    assert os.get_blocking(write)  # other processes have it too


def test_a_reader_that_never_reads_keeps_nobody_after_sigterm(fds: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    _, write = _pipe(fds)
    messages = io.StringIO()
    output = _output(monkeypatch, write, messages)
    timer = threading.Timer(0.1, lambda: None)
    timer.start()

    def pending() -> int:
        return 0 if timer.is_alive() else SIGTERM

    output.heed(pending)
    output.out.write(BIG)
    output.out.flush()
    assert output.out.unwritten == len(BIG) - 4096 and not output.failed
    assert output.finish(0) == 1
    assert f"{len(BIG) - 4096} bytes are lost" in messages.getvalue()
    assert "waiting for the reader of standard output" in messages.getvalue()


def test_the_user_may_stop_waiting(fds: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    _, write = _pipe(fds)
    messages = io.StringIO()
    output = _output(monkeypatch, write, messages)
    output.heed(lambda: 2)

    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    output.out.offer(BIG)
    monkeypatch.setattr(output.out, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        output.finish(0)
    output.abandon()
    assert "bytes are lost" in messages.getvalue()


def test_messages_do_not_wait_for_their_reader(fds: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    _, write = _pipe(fds)
    monkeypatch.setattr(sys, "stderr", os.fdopen(write, "w", closefd=False))
    output = begin_output()
    output.say(BIG)
    assert output.messages.unwritten == len(BIG) - 4096


def test_a_reader_that_goes_away_is_no_failure_and_a_full_disk_is(
    fds: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    read, write = _pipe(fds)
    messages = io.StringIO()
    output = _output(monkeypatch, write, messages)
    os.close(read)
    output.out.offer("x")
    assert output.failed and output.finish(3) == 3 and not messages.getvalue()
    full = os.open("/dev/full", os.O_WRONLY)
    fds.append(full)
    output = _output(monkeypatch, full, messages)
    output.out.write("x")
    assert output.finish(0) == 1
    assert messages.getvalue() == "probekit: cannot write standard output: No space left on device\n"


def test_a_file_is_appended_to_and_truncated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = begin_output()
    path = tmp_path / "a"
    path.write_text("before ")
    stream = output.open(str(path))
    stream.write("after")
    output.check()
    assert stream.closed and path.read_text() == "before after"
    again = output.open(str(path))
    again.truncate()
    again.write("new")
    output.close(again)
    assert again.closed and path.read_text() == "new"


def test_a_fifo_without_a_reader_is_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    output = begin_output()
    output.heed(lambda: SIGTERM)
    with pytest.raises(OSError, match="No such device"):
        output.open(str(path))
    output.heed(lambda: 0)
    found: list[str] = []
    reader = threading.Timer(0.2, lambda: found.append(path.read_text()))
    reader.start()
    output.open(str(path)).write("text")
    output.check()
    reader.join(10)
    assert found == ["text"]


def test_the_streams_follow_pythons(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    before = process_output()
    assert process_output() is before
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert process_output() is not before


_CLOSED = """
import os, sys
from probekit.output.streams import begin_output, fill_descriptors
from probekit.errors import ProbekitError
fill_descriptors()
assert os.open("/dev/null", os.O_RDONLY) > 2
output = begin_output()
output.messages.offer("message\\n")
try:
    output.check_standard_output()
except ProbekitError as error:
    output.out.write("text")
    sys.exit(output.finish(0) * 10 + 3)
"""


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_a_closed_descriptor_is_no_other_files(closed: str) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, _CLOSED],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (3, "message\n" if closed == ">&-" else "")


def test_where_the_file_cannot_be_opened_anew_it_still_does_not_block(
    fds: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    class _Os:
        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

        def open(self, *args: Any) -> int:
            raise PermissionError(errno.EACCES, "another user's")

    read, write = _pipe(fds)
    monkeypatch.setattr(streams, "os", _Os())
    output = _output(monkeypatch, write)
    output.out.offer(BIG)
    assert output.out.unwritten >= len(BIG) - 4096
    found: list[bytes] = []
    reader = _read_big(read, found)
    assert output.finish(0) == 0
    reader.join(60)
    assert b"".join(found).decode() == BIG


def test_lost_output_of_a_file_is_an_error_that_names_it(capsys: pytest.CaptureFixture[str]) -> None:
    output = begin_output()
    output.open("/dev/full").write("x")
    with pytest.raises(ProbekitError, match="cannot write /dev/full: No space left on device"):
        output.check()
    output.check()  # it is said once
