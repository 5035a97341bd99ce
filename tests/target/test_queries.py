"""Questions to the stub whose answer takes several packets."""

from __future__ import annotations

from typing import Any

import pytest

from probekit.errors import ProtocolError, TargetError, UnsupportedError
from probekit.target.queries import is_error, list_vcpus, printable_reply, run_monitor


class _Link:
    """Answers with the given replies, one after another; the last one again and again."""

    name = "fake"

    def __init__(self, *replies: bytes) -> None:
        self.replies = list(replies)
        self.requests: list[bytes] = []

    def request(self, data: bytes) -> bytes:
        self.requests.append(data)
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]

    request_more = request


def _link(*replies: bytes) -> Any:
    return _Link(*replies)


@pytest.mark.parametrize(
    ("reply", "error"), [(b"E14", True), (b"E.no such thing", True), (b"E1", False), (b"OK", False), (b"E123", False)]
)
def test_an_error_has_two_digits_or_a_text(reply: bytes, error: bool) -> None:
    assert is_error(reply) is error


def test_a_reply_is_shown_bounded_and_printable() -> None:
    assert printable_reply(b"") == "nothing"
    assert printable_reply(b"\x1b[2J" + b"x" * 100) == ascii("\x1b[2J" + "x" * 36)


def test_the_list_of_vcpus_is_read_to_its_end() -> None:
    link = _link(b"m1,2", b"mp1.3", b"l")
    assert list_vcpus(link) == {1: b"1", 2: b"2", 3: b"p1.3"}
    assert link.requests == [b"qfThreadInfo", b"qsThreadInfo", b"qsThreadInfo"]


def test_a_list_that_ends_in_the_same_packet_is_not_asked_for_again() -> None:
    link = _link(b"m0,1l")
    assert list_vcpus(link) == {0: b"0", 1: b"1"}
    assert link.requests == [b"qfThreadInfo"]


def test_a_list_that_repeats_itself_ends() -> None:
    assert list_vcpus(_link(b"m1,2")) == {1: b"1", 2: b"2"}


def test_a_stub_without_a_list_is_not_supported() -> None:
    with pytest.raises(UnsupportedError, match="lists no vCPUs"):
        list_vcpus(_link(b""))


def test_the_monitor_s_output_is_joined() -> None:
    link = _link(b"O" + b"ab\r\n".hex().encode(), b"O" + b"c".hex().encode(), b"OK")
    assert run_monitor(link, "info idt") == "ab\nc"
    assert link.requests[0] == b"qRcmd," + b"info idt".hex().encode()


def test_output_in_place_of_ok_belongs_to_the_answer() -> None:
    assert run_monitor(_link(b"hi".hex().encode()), "x") == "hi"


@pytest.mark.parametrize(("reply", "error"), [(b"", UnsupportedError), (b"E01", TargetError)])
def test_a_monitor_that_is_missing_or_refuses_is_an_error(reply: bytes, error: type[TargetError]) -> None:
    with pytest.raises(error):
        run_monitor(_link(reply), "x")


def test_a_monitor_that_does_not_stop_is_given_up() -> None:
    with pytest.raises(ProtocolError, match="does not stop"):
        run_monitor(_link(b"O" + b"61" * (1 << 20)), "x")
