"""A gdb stub that QEMU's monitor opened is found without ``-r``. The machine has no guest in it."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from probekit.errors import ProbekitError
from probekit.target.connect import parse_spec
from probekit.target.discovery import find_qemu, only_guest

pytestmark = pytest.mark.guest
LIMIT = 30.0


@pytest.fixture
def monitor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The monitor of a QEMU, which is the only one of this host."""
    path = tmp_path / "monitor"
    command = ["qemu-system-x86_64", "-nodefaults", "-display", "none", "-S", "-m", "16", "-name", "mon"]
    command += ["-qmp", f"unix:{tmp_path}/qmp,server=on,wait=off", "-monitor", f"unix:{path},server=on,wait=off"]
    with subprocess.Popen(command) as process:
        try:
            deadline = time.monotonic() + LIMIT
            while not path.exists():
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.05)
            monkeypatch.setattr("psutil.process_iter", lambda: iter([psutil.Process(process.pid)]))
            yield path
        finally:
            process.kill()


def _type(monitor: Path, command: str, answer: str) -> None:
    """Type a command, and wait for its answer."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(LIMIT)
        connection.connect(str(monitor))
        connection.send(f"{command}\n".encode())
        seen = b""
        while answer.encode() not in seen:
            seen += connection.recv(4096)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def test_it_is_found_while_it_is_open(monitor: Path) -> None:
    with pytest.raises(ProbekitError, match=r"none with a gdb stub runs on this host, but mon") as caught:
        only_guest()
    assert "gdbserver" in caught.value.hint
    port = _free_port()
    _type(monitor, f"gdbserver tcp:127.0.0.1:{port}", "Waiting for gdb connection")
    spec, name = only_guest()
    assert spec == f"localhost:{port}" and name.startswith("mon (pid ")
    found = find_qemu(parse_spec(spec))
    assert found is not None and found.name == "mon"


def test_where_qmp_has_another_client_its_address_is_named(monitor: Path) -> None:
    port = _free_port()
    _type(monitor, f"gdbserver tcp:127.0.0.1:{port}", "Waiting for gdb connection")
    with socket.socket(socket.AF_UNIX) as busy:
        busy.connect(str(monitor.with_name("qmp")))
        busy.recv(4096)
        with pytest.raises(ProbekitError, match="none with a gdb stub") as caught:
            only_guest()
    assert f"name it: -r localhost:{port}" in caught.value.hint
