"""Stubs that QEMU's monitor has opened: candidates by their sockets, and QEMU's own word."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import psutil
import pytest

from probekit.target.runtime_stubs import ask_for_stub, listening, stub_address, unnamed


def test_what_a_process_listens_on_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(path))
        unix.listen()
        found = listening(psutil.Process(os.getpid()))
        assert {f"tcp:{tcp.getsockname()[1]}", f"unix:{path}"} <= found


def test_a_process_that_cannot_be_seen_listens_on_nothing() -> None:
    class _Foreign:
        def net_connections(self, kind: str) -> list[Any]:
            raise psutil.AccessDenied(1)

    foreign: Any = _Foreign()
    assert listening(foreign) == frozenset()


@pytest.mark.parametrize(
    ("address", "words", "is_named"),
    [
        ("tcp:1234", "-name a", False),
        ("tcp:1234", "-serial tcp::1234,server=on", True),
        ("tcp:5902", "-vnc 127.0.0.1:2,password=on", True),
        ("tcp:5902", "-vnc :3", False),
        ("unix:/run/q", "-qmp unix:q,server=on", True),
        ("unix:/run/gdb", "-qmp unix:/run/q", False),
        ("unix:/a,b", "-qmp unix:/a,,b", True),
    ],
)
def test_the_command_line_names_an_address_or_not(address: str, words: str, is_named: bool) -> None:
    assert (unnamed([address], ["kvm", *words.split()]) == frozenset()) is is_named


@pytest.mark.parametrize(
    ("filename", "address"),
    [
        ("disconnected:tcp:0.0.0.0:1234,server=on", "tcp:1234"),
        ("disconnected:unix:/run/g,server=on", "unix:/run/g"),
        ("tcp:127.0.0.1:1234,server=on <-> 127.0.0.1:5", "tcp:1234"),
        ("pty:/dev/pts/1", None),
        ("disconnected:tcp:x", None),
        (None, None),
    ],
)
def test_the_stub_is_the_one_with_its_label(filename: object, address: str | None) -> None:
    others = [{"label": "monitor", "filename": "unix:/m"}, "?", {"label": "gdb", "filename": filename}]
    assert stub_address(others) == address
    assert stub_address(others[:2]) is None and stub_address({}) is None


def test_a_qemu_that_does_not_answer_has_said_nothing(tmp_path: Path) -> None:
    assert ask_for_stub([]) is None
    assert ask_for_stub([str(tmp_path / "nobody")]) is None
