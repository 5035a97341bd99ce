"""However probekit is ended, at whatever moment, the guest is as it was; what it had counted is printed."""

from __future__ import annotations

import os
import random
import resource
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.guest_fixtures import K61, only
from tests.live.tool import Probekit, Result
from vm.guest import Guest
from vm.kernel_code import KernelCode, differences

pytestmark = [pytest.mark.guest, only(K61)]

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
MANY = "fbt::*read*: ,fbt::sys_*:entry { @[probefunc] = count(); }"


@pytest.fixture(scope="module", autouse=True)
def load(guest: Guest) -> Iterator[None]:
    """Something to trace all the time."""
    running = guest.spawn("mixed 600 2")
    yield
    running.stop("KILL")


def _left_nothing(guest: Guest, probekit: Probekit, before: bytes, done: Result) -> None:
    assert "Traceback" not in done.stderr, done.stderr
    assert differences(before, KernelCode.locate(guest).read()) == []
    journals = Path(probekit.env["XDG_STATE_HOME"], "probekit", "journals")
    assert not list(journals.glob("*")), done.stderr
    assert guest.exec("true", timeout=30).status == 0


@pytest.fixture
def text(guest: Guest) -> bytes:
    return KernelCode.locate(guest).read()


@pytest.mark.parametrize("number", SIGNALS[:2], ids=lambda number: number.name)
def test_while_it_runs(guest: Guest, probekit: Probekit, text: bytes, number: int) -> None:
    running = probekit.live("fbt::vfs_*: { @[probefunc, probename] = count(); }", 'END { trace("end"); }')
    time.sleep(0.5)
    done = running.finish(number)
    _left_nothing(guest, probekit, text, done)
    assert done.status == 0
    assert sum(done.table().values()) > 0
    assert [event["data"] for event in done.fired("END")] == [["end"]]


BEGINNINGS = [
    ("connecting", signal.SIGINT),
    ("finding the sites", signal.SIGTERM),
    ("enabling", signal.SIGHUP),
    ("enabling", signal.SIGINT),
]


@pytest.mark.parametrize(("phase", "number"), BEGINNINGS, ids=[f"{phase}-{s.name}" for phase, s in BEGINNINGS])
def test_while_it_begins(guest: Guest, probekit: Probekit, text: bytes, phase: str, number: int) -> None:
    running = probekit.start("-v", "-n", MANY)
    running.wait_said(phase)
    time.sleep(random.uniform(0, 0.5))
    done = running.finish(number)
    _left_nothing(guest, probekit, text, done)
    # Interrupted before anything ran, or just after: both are orderly ends.
    assert done.status in (0, 128 + number), done.stderr


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
@pytest.mark.parametrize(
    ("phase", "arguments"),
    [
        ("connecting", ("-n", "fbt:::entry")),
        ("reading the symbol table", ("--no-cache", "-n", "fbt:::entry")),
        ("reading types", ("--no-cache", "-n", "fbt:::entry")),
        ("finding the kernel", ("-l",)),
        ("finding the sites", ("-n", "fbt:::entry")),
        ("finding the sites", ("-x", "kinstjump", "-n", "kinst::vfs_*:")),
        (
            "reading the kernel's unwind tables",
            ("-n", "fbt::vfs_read:entry { @[stack()] = count(); }", "--engine", "stop"),
        ),
    ],
    ids=["connecting", "symbols", "types", "listing", "sites", "side entries", "unwind tables"],
)
def test_before_tracing_began(
    guest: Guest, probekit: Probekit, text: bytes, phase: str, arguments: tuple[str, ...], number: int
) -> None:
    running = probekit.start("-v", *arguments)
    running.wait_said(phase)
    time.sleep(random.uniform(0, 0.3))
    done = running.finish(number)
    _left_nothing(guest, probekit, text, done)
    assert done.status in (0, 128 + number), done.stderr
    assert done.status == 0 or "probekit: interrupted" in done.stderr


def test_a_silent_port_is_given_up(guest: Guest, probekit: Probekit, tool: Callable[[str], Probekit]) -> None:
    with socket.socket(socket.AF_UNIX) as server, tempfile.TemporaryDirectory() as directory:
        server.bind(f"{directory}/silent")
        server.listen(1)
        running = tool(f"unix:{directory}/silent").start("--timeout", "600", "-v", "-n", "fbt::vfs_read:entry")
        running.wait_said("connecting")
        time.sleep(0.3)
        done = running.finish(signal.SIGTERM, limit=30)
    assert done.status == 128 + signal.SIGTERM and "interrupted" in done.paragraph().splitlines()[-1]


@pytest.mark.parametrize("turn", range(6))
def test_a_signal_in_the_middle_of_enabling_everything(
    guest: Guest, probekit: Probekit, text: bytes, turn: int
) -> None:
    running = probekit.start(
        *("-v", "-q", "-n", 'BEGIN { printf("begin\\n"); }', "-n", "fbt:::entry { @ = count(); }"),
        *("-n", 'END { printf("end\\n"); }'),
    )
    running.wait_said("enabling")
    time.sleep(random.uniform(0, 3))
    number = SIGNALS[turn % 3]
    done = running.finish(number)
    _left_nothing(guest, probekit, text, done)
    assert done.status in (0, 128 + number), done.stderr
    assert "begin\n" in done.stdout and "end\n" in done.stdout


def test_a_signal_while_it_restores_is_answered(guest: Guest, probekit: Probekit, text: bytes) -> None:
    running = probekit.start("-v", "-q", "-n", "fbt:::entry { @ = count(); }", "-n", "tick-1s { exit(0); }")
    running.wait_said("restoring")
    running.signal(signal.SIGINT)
    done = running.finish()
    _left_nothing(guest, probekit, text, done)
    assert done.status == 0
    (said,) = [line for line in done.stderr.splitlines() if "recover" in line]
    assert said.startswith("probekit: restoring ") and " sites; kill -9 " in said


def test_again_and_again_while_it_restores(guest: Guest, probekit: Probekit, text: bytes) -> None:
    running = probekit.start("-v", "-n", MANY, "-n", "tick-300ms { exit(6); }")
    running.wait_said("restoring")
    for number in SIGNALS * 3:
        if running.process.poll() is None:
            running.signal(number)
            time.sleep(0.02)
    done = running.finish()
    _left_nothing(guest, probekit, text, done)
    assert done.status == 6
    assert "__x64_sys_" in done.stdout


def test_stdout_that_is_closed(guest: Guest, probekit: Probekit, text: bytes) -> None:
    ours, its = os.pipe()
    running = probekit.start("-q", "-n", 'fbt::vfs_*:entry { printf("%s\\n", probefunc); }', stdout=its)
    os.close(its)
    assert os.read(ours, 4).startswith(b"vfs_")
    os.close(ours)
    done = running.finish()
    _left_nothing(guest, probekit, text, done)
    assert done.status == 0


@pytest.mark.parametrize("options", [["-o", "/dev/full"], ["--json"]], ids=["file", "stdout"])
def test_output_that_cannot_be_written(guest: Guest, probekit: Probekit, text: bytes, options: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        popen = {} if "-o" in options else {"stdout": full}
        running = probekit.start(*options, "-n", 'fbt::vfs_*:entry { printf("%s\\n", probefunc); }', **popen)
        done = running.finish()
    _left_nothing(guest, probekit, text, done)
    assert done.status == 1 and "No space left" in done.paragraph()


@pytest.mark.parametrize("limit", [100, 600, 4800, 66_000])
def test_a_full_disk_under_the_journal(guest: Guest, probekit: Probekit, text: bytes, limit: int) -> None:
    """Noticed before anything is done, however little is missing."""

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = probekit.start(
        "-n", "fbt::vfs_*:entry { @ = count(); }", "-n", "tick-1s { exit(0); }", preexec_fn=fill
    ).finish()
    assert done.status == 1 and "File too large" in done.paragraph()
    assert "probekit recover" not in done.stderr
    _left_nothing(guest, probekit, text, done)


def test_a_reader_of_stderr_that_goes_away_leaves_the_guest_whole(guest: Guest, probekit: Probekit) -> None:
    before = KernelCode.locate(guest).read()
    reading, writing = os.pipe()
    running = probekit.start(
        "-v", "-q", "-n", "fbt::vfs_read:entry { @ = count(); }", "-n", "tick-2s { exit(0); }", stderr=writing
    )
    os.close(writing)
    said = b""
    while b"enabling" not in said:
        piece = os.read(reading, 4096)
        assert piece, said
        said += piece
    os.close(reading)
    _left_nothing(guest, probekit, before, running.finish())
