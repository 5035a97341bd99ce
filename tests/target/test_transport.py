"""Connections to a stub: what goes through them, and how they fail."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from probekit.errors import TargetError, TargetLost
from probekit.target.transport import Stream, open_tcp, open_unix


@pytest.fixture
def pair() -> Iterator[tuple[Stream, socket.socket]]:
    ours, theirs = socket.socketpair()
    stream = Stream(ours, "fake")
    try:
        yield stream, theirs
    finally:
        stream.close()
        theirs.close()


def test_nothing_has_arrived_until_something_is_sent(pair: tuple[Stream, socket.socket]) -> None:
    stream, theirs = pair
    assert stream.receive() == b""
    assert stream.poll(0) == (False, False)
    theirs.sendall(b"abc")
    assert stream.poll(1) == (True, False)
    assert stream.receive() == b"abc"


def test_a_full_connection_takes_no_more_and_says_so(pair: tuple[Stream, socket.socket]) -> None:
    stream, theirs = pair
    sent = 0
    while taken := stream.send(bytes(1 << 16)):
        sent += taken
    assert stream.poll(0, write=True) == (False, False)
    while sent > 0:
        sent -= len(theirs.recv(1 << 20))
    assert stream.poll(1, write=True)[1]


def test_the_other_end_s_closing_is_a_lost_target(pair: tuple[Stream, socket.socket]) -> None:
    stream, theirs = pair
    theirs.close()
    assert stream.poll(1)[0]
    with pytest.raises(TargetLost, match="closed the connection"):
        stream.receive()
    with pytest.raises(TargetLost, match="fake"):
        stream.send(b"x")


def test_a_closed_connection_is_lost_and_may_be_closed_again(pair: tuple[Stream, socket.socket]) -> None:
    stream, _ = pair
    stream.close()
    stream.close()
    with pytest.raises(TargetLost):
        stream.poll(0)


def test_a_socket_that_does_not_exist_is_refused_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="cannot connect") as caught:
        open_unix(str(tmp_path / "nosuch"), timeout=1)
    assert "-gdb" in caught.value.hint


def test_a_port_that_nobody_listens_on_is_refused() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(TargetError, match="cannot connect"):
            open_tcp("127.0.0.1", unused.getsockname()[1], timeout=1)


def test_both_kinds_of_socket_connect(tmp_path: Path) -> None:
    path = str(tmp_path / "stub")
    with socket.socket(socket.AF_UNIX) as unix, socket.socket() as tcp:
        unix.bind(path)
        unix.listen()
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        for stream in (open_unix(path, timeout=1), open_tcp("127.0.0.1", tcp.getsockname()[1], timeout=1)):
            assert stream.send(b"x") == 1
            stream.close()
