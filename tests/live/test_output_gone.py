"""Whatever becomes of probekit's output while it traces, the guest is as it was."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.guest_fixtures import K612, only
from tests.live.tool import Probekit, Running
from vm.guest import Guest
from vm.kernel_code import KernelCode, differences

pytestmark = [pytest.mark.guest, only(K612)]

PROGRAM = (
    *("-n", "fbt::vfs_*:entry { @[probefunc] = count(); }"),
    *("-n", 'tick-20ms { printf("a tick, and some more of a line %d\\n", timestamp); }'),
)
LIMIT = 60.0


@pytest.fixture
def text(guest: Guest) -> bytes:
    return KernelCode.locate(guest).read()


@pytest.fixture
def fds() -> Iterator[list[int]]:
    """Descriptors to close after the test."""
    opened: list[int] = []
    yield opened
    for fd in opened:
        os.close(fd)


def _changed(guest: Guest, text: bytes) -> bool:
    return bool(differences(text, KernelCode.locate(guest).read()))


def _trace(guest: Guest, probekit: Probekit, text: bytes, *args: str, **streams: Any) -> Running:
    """Trace until the guest is changed and some ticks have fired."""
    running = probekit.start(*args, *PROGRAM, **streams)
    deadline = time.monotonic() + LIMIT
    while not _changed(guest, text):
        assert running.process.poll() is None and time.monotonic() < deadline, "".join(running.errors)
        time.sleep(0.05)
    time.sleep(0.3)
    return running


def _left_nothing(guest: Guest, probekit: Probekit, text: bytes) -> None:
    assert not _changed(guest, text)
    journals = Path(probekit.env["XDG_STATE_HOME"], "probekit", "journals")
    assert not list(journals.glob("*"))
    assert guest.exec("true", timeout=30).status == 0


@pytest.mark.parametrize("verbose", [(), ("-v",)], ids=["", "verbose"])
@pytest.mark.parametrize("which", ["stderr", "stdout", "both"])
def test_a_terminal_that_is_closed(
    guest: Guest, probekit: Probekit, text: bytes, which: str, verbose: tuple[str, ...]
) -> None:
    ours, its = pty.openpty()
    names = ("stdout", "stderr") if which == "both" else (which,)
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | dict.fromkeys(names, its)
    running = _trace(guest, probekit, text, *verbose, **streams)
    os.close(its)
    os.close(ours)
    if which == "stderr":  # without standard output it ends by itself
        time.sleep(1)
        running.signal(signal.SIGINT)
    done = running.finish()
    _left_nothing(guest, probekit, text)
    assert done.status == (1 if which != "stderr" or verbose else done.status)


def test_a_full_disk(guest: Guest, probekit: Probekit, text: bytes) -> None:
    running = probekit.start("-o", "/dev/full", *PROGRAM)
    done = running.finish()
    _left_nothing(guest, probekit, text)
    assert (done.status, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == "probekit: cannot write /dev/full: No space left on device"


def test_a_file_that_may_not_grow(guest: Guest, probekit: Probekit, text: bytes, tmp_path: Path) -> None:
    import resource

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    out = tmp_path / "out"
    out.write_bytes(bytes((1 << 20) - 500))
    running = probekit.start("-o", str(out), *PROGRAM, preexec_fn=limit)
    done = running.finish()
    _left_nothing(guest, probekit, text)
    assert done.status == 1 and out.stat().st_size == 1 << 20
    assert f"cannot write {out}: File too large" in done.stderr


def test_a_reader_that_goes_away(guest: Guest, probekit: Probekit, text: bytes, fds: list[int]) -> None:
    read, write = os.pipe()
    running = _trace(guest, probekit, text, stdout=write)
    os.close(write)
    os.close(read)
    done = running.finish()
    _left_nothing(guest, probekit, text)
    assert done.status == 0


def _never_reads(fds: list[int]) -> int:
    read, write = os.pipe()
    fds += [read, write]
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    return write


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["", "unbuffered"])
def test_a_reader_that_never_reads(
    guest: Guest, probekit: Probekit, text: bytes, unbuffered: str, fds: list[int]
) -> None:
    streams = {"stdout": _never_reads(fds), "env": {"PYTHONUNBUFFERED": unbuffered}}
    running = _trace(guest, probekit, text, **streams)
    time.sleep(5)  # the pipe is full
    done = running.finish(signal.SIGTERM)
    _left_nothing(guest, probekit, text)
    assert done.status == 1 and "standard output: its reader does not read" in done.stderr


def test_messages_that_nobody_reads(guest: Guest, probekit: Probekit, text: bytes, fds: list[int]) -> None:
    write = _never_reads(fds)
    os.set_blocking(write, False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(write, b"full")
    os.set_blocking(write, True)
    running = _trace(guest, probekit, text, "-v", stderr=write)
    done = running.finish(signal.SIGTERM)
    _left_nothing(guest, probekit, text)
    assert done.status == 1 and done.stdout.rstrip().splitlines()[-1].split()[-1].isdecimal()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_slow_reader_gets_whole_lines(guest: Guest, probekit: Probekit, text: bytes, number: int) -> None:
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    running = _trace(guest, probekit, text, "-q", stdout=write, env={"PYTHONUNBUFFERED": "1"})
    os.close(write)
    time.sleep(3)
    running.signal(number)
    time.sleep(1)
    found = b""
    while data := os.read(read, 512):
        found += data
        time.sleep(0.01)
    os.close(read)
    done = running.finish()
    _left_nothing(guest, probekit, text)
    ticks, _, counts = found.decode().partition("\n\n")
    assert done.status == 0, done.stderr
    assert all(line.startswith("a tick, and some more of a line ") for line in ticks.splitlines())
    assert "vfs_" in counts and found.endswith(b"\n")


def test_a_command_of_the_script_that_does_not_end(guest: Guest, probekit: Probekit, text: bytes) -> None:
    running = _trace(guest, probekit, text, "-w", "-n", 'tick-100ms /!n++/ { system("sleep 20"); }')
    begin = time.monotonic()
    running.signal(signal.SIGTERM)
    while _changed(guest, text):
        assert time.monotonic() - begin < 15, "the guest waits for a command of the script"
        time.sleep(0.05)
    assert running.finish().status == 0
    _left_nothing(guest, probekit, text)


# -- no place for the journal ------------------------------------------------------------------------------------------


@pytest.fixture(params=["a file", "nowhere", "full"])
def unusable(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A state directory in which nothing can be kept."""
    if request.param == "a file":
        path = tmp_path / "file"
        path.write_text("")
        yield path
        return
    if request.param == "nowhere":
        yield Path("/proc/nowhere")
        return
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], check=False)
    if mounted.returncode:
        pytest.skip("cannot mount a small file system")
    try:
        (tmp_path / "filler").write_bytes(bytes(1 << 15))
        try:
            with (tmp_path / "rest").open("wb", buffering=0) as rest:
                while True:
                    rest.write(bytes(4096))
        except OSError:
            yield tmp_path
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_listing_needs_no_state_directory_and_tracing_names_it(
    guest: Guest, probekit: Probekit, text: bytes, unusable: Path
) -> None:
    env = {"XDG_STATE_HOME": str(unusable)}
    listed = probekit.run("-l", "-v", "-n", "fbt::vfs_read:entry", env=env)
    assert listed.status == 0 and "vfs_read entry" in listed.stdout
    assert probekit.run("-e", "-n", "fbt::vfs_read:entry", env=env).status == 0
    done = probekit.run("-q", "-n", "fbt::vfs_read:entry", env=env)
    assert done.status == 1 and str(unusable) in done.stderr and "XDG_STATE_HOME" in done.paragraph()
    assert not _changed(guest, text)
