"""Targets that are no guest, and guests that end while they are traced."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.guest_fixtures import K61
from tests.live.refusal import PROBE, refused
from tests.live.tool import Probekit
from vm.guest import Guest

pytestmark = pytest.mark.guest
Make = Callable[[str], Probekit]


# -- stubs ------------------------------------------------------------------------------------------------------------


@contextmanager
def _listener(path: Path, answer: bytes | None) -> Iterator[str]:
    """A socket that accepts and says nothing, or always the same."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(4)
        kept: list[socket.socket] = []

        def serve() -> None:
            while True:
                try:
                    client, _ = server.accept()
                    kept.append(client)
                    while answer is not None and client.recv(4096):
                        client.sendall(answer)
                except OSError:
                    return

        threading.Thread(target=serve, daemon=True).start()
        yield f"unix:{path}"
        for client in kept:
            client.close()


def test_nobody_listens(tool: Make, tmp_path: Path) -> None:
    for spec in (f"unix:{tmp_path}/nothing", "localhost:1", "no.such.host.invalid:1234"):
        refused(tool(spec).run(*PROBE), spec.removeprefix("unix:").split(":")[0])


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (None, "answer"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", ""),
        (b"+$E01#a6", ""),
        (b"+$#00", ""),
        (b"+$" + b"41" * 3000 + b"#00", ""),
        (b"\x00\xff\xfe" * 100, ""),
    ],
    ids=["silent", "http", "errors", "empty", "bad checksum", "noise"],
)
def test_a_listener_that_is_no_stub(tool: Make, tmp_path: Path, answer: bytes | None, word: str) -> None:
    with _listener(tmp_path / "s", answer) as spec:
        refused(tool(spec).run("--timeout", "1.5", *PROBE), word)


def test_a_machine_without_a_kernel(tool: Make, tmp_path: Path) -> None:
    stub = tmp_path / "gdb"
    command = ["qemu-system-x86_64", "-S", "-display", "none", "-nodefaults", "-accel", "tcg", "-m", "32"]
    command += ["-chardev", f"socket,id=gdb,path={stub},server=on,wait=off", "-gdb", "chardev:gdb"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        while not stub.exists():
            assert process.poll() is None
        refused(tool(f"unix:{stub}").run(*PROBE), "64-bit mode", "boot")
        done = tool(f"unix:{stub}").recover()
        assert done.status in (0, 1) and "Traceback" not in done.stderr
    finally:
        process.kill()
        process.communicate()


# -- guests that end under us -----------------------------------------------------------------------------------------


@pytest.fixture
def doomed() -> Iterator[Guest]:
    with K61.boot() as guest:
        yield guest


def _panic(guest: Guest) -> None:
    guest.spawn("sleep 0.2; echo c > /proc/sysrq-trigger")


def _reboot(guest: Guest) -> None:
    guest.spawn("sleep 0.2; reboot -f")


def _kill(guest: Guest) -> None:
    psutil.Process(guest.pid).kill()


@pytest.mark.parametrize(
    ("end", "said", "later"),
    [
        (_panic, "panicked", "panicked"),
        (_reboot, "shut down", "shut down"),
        (_kill, "connection", "connect"),
    ],
    ids=["panic", "reboot", "kill"],
)
def test_the_guest_ends_while_it_is_traced(
    doomed: Guest, tool: Make, end: Callable[[Guest], None], said: str, later: str
) -> None:
    probekit = tool(doomed.gdb)
    running = probekit.live("fbt::sys_*:entry { @[probefunc] = count(); }")
    end(doomed)
    refused(running.finish(limit=30), said)
    # And whoever comes later is told as well, at once.
    refused(probekit.run("--timeout", "2", *PROBE, limit=15), later)
    assert "Traceback" not in probekit.recover("--timeout", "2").stderr
