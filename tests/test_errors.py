"""Errors, and the checks of what our own code rules out."""

from __future__ import annotations

import pytest

from probekit.errors import InternalError, ProbekitError, ProtocolError, required


def test_a_value_that_is_there_is_returned_even_when_it_is_false() -> None:
    assert required(0, "a number") == 0
    assert required("", "a text") == ""


def test_a_missing_value_is_named() -> None:
    with pytest.raises(InternalError, match="the layout is missing"):
        required(None, "the layout")


def test_our_own_bugs_are_never_taken_for_an_error_of_the_user_or_the_guest() -> None:
    assert not issubclass(InternalError, ProbekitError)
    assert not issubclass(InternalError, AssertionError)


def test_a_reply_of_a_stub_is_kept_bounded() -> None:
    assert ProtocolError("m", reply=b"x" * 10_000).reply == b"x" * 256
