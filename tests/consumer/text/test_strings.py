"""Guest strings."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probekit.consumer.text.strings import c_escape, decode, escape_controls, spell_surrogates


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain é 漢", "plain é 漢"),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\nb\tc\r", "a\\x0ab\\x09c\\x0d"),
        ("\x7f\x9b", "\\x7f\\x9b"),
        ("a\u202eb\u2028", "a\\u202eb\\u2028"),
        ("\udcff\ud800", "\\xff\\ud800"),
    ],
)
def test_escape_controls(text: str, expected: str) -> None:
    assert escape_controls(text) == expected


@given(st.text(st.characters()))
def test_no_control_character_survives(text: str) -> None:
    escaped = escape_controls(text)
    assert not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in escaped)


@given(st.binary())
def test_decode_never_fails_and_is_always_encodable(data: bytes) -> None:
    assert decode(data).encode("utf-8", "surrogateescape") == data.split(b"\0", 1)[0]
    spell_surrogates(decode(data)).encode()


def test_decode() -> None:
    assert decode(b"bash\0garbage") == "bash"
    assert decode(b"\xff!") == "\udcff!"
    assert c_escape(decode(b"\xff!")) == "\\377!"
    assert decode(b"") == ""


@given(st.text())
def test_c_escape_is_printable_ascii(text: str) -> None:
    assert all(" " <= c <= "~" for c in c_escape(text))
