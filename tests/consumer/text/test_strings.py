"""Guest strings."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probekit.consumer.text.strings import c_escape, cut, decode, escape_controls, padded, spell_surrogates


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


@given(st.binary(max_size=12), st.integers(0, 16))
def test_columns_and_cuts_count_bytes(data: bytes, width: int) -> None:
    text = decode(data)
    size = len(text.encode("utf-8", "surrogateescape"))
    for left in (False, True):
        shown = padded(text, width, left=left)
        assert len(shown.encode("utf-8", "surrogateescape")) == max(width, size)
        assert shown.strip(" ") == text.strip(" ")
    assert cut(text, width).encode("utf-8", "surrogateescape") == data.split(b"\0")[0][:width]


def test_a_character_of_two_bytes_takes_two_columns() -> None:
    assert padded("\u00e9", 4) == "  \u00e9"
    assert padded("\u00e9", 4, left=True) == "\u00e9  "
    assert cut("a\u00e9", 2) == "a\udcc3"
