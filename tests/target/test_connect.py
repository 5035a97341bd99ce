"""Target specs, and what is said when nothing answers."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from probekit.errors import ProbekitError, TargetError, TargetTimeout, UnsupportedError
from probekit.target import gdb_process
from probekit.target.connect import TargetSpec, connect, parse_spec


@pytest.mark.parametrize(
    ("text", "kind", "address", "port"),
    [
        ("localhost:1234", "tcp", "localhost", 1234),
        (":1234", "tcp", "localhost", 1234),
        ("tcp:10.0.0.1:9999", "tcp", "10.0.0.1", 9999),
        ("[::1]:1234", "tcp", "::1", 1234),
        ("unix:/run/gdb sock", "unix", "/run/gdb sock", 0),
        ("gdb:unix:/run/gdb.sock", "gdb", "unix:/run/gdb.sock", 0),
        ("gdb:extended-remote :1", "gdb", "extended-remote :1", 0),
        ("none", "none", "", 0),
    ],
)
def test_each_form_of_a_target_is_read(text: str, kind: str, address: str, port: int) -> None:
    assert parse_spec(text) == TargetSpec(text, kind, address, port)


@pytest.mark.parametrize(
    "bad", ["", "foo", "unix:", "gdb:", "gdb: ", "host:", "host:0", "host:65536", "host:-1", "gdb:a\nb"]
)
def test_anything_else_is_no_target(bad: str) -> None:
    with pytest.raises(ProbekitError) as caught:
        parse_spec(bad)
    assert "unix:PATH" in caught.value.hint


def test_a_target_where_nothing_listens_is_refused(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        with pytest.raises(TargetError, match="refused") as caught:
            connect(f"127.0.0.1:{port}")
    assert "-gdb" in caught.value.hint
    with pytest.raises(TargetError, match="No such file"):
        connect(f"unix:{tmp_path}/none")
    with pytest.raises(TargetError):
        connect(f"unix:{tmp_path}/{'x' * 200}")


def test_a_socket_that_nobody_serves_times_out(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(0)
        for _ in range(3):  # the later ones do not even fit the backlog
            with pytest.raises(TargetTimeout):
                connect(f"unix:{path}", timeout=0.3)


def test_without_gdb_the_hint_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gdb_process.shutil, "which", lambda _: None)
    with pytest.raises(UnsupportedError, match="not installed") as caught:
        connect("gdb:/nowhere")
    assert "package gdb" in caught.value.hint
