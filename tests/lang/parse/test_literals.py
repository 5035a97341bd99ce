"""Constants as D writes them."""

from __future__ import annotations

import pytest

from probekit.lang.diagnostics import Refusal
from probekit.lang.parse.literals import char_value, integer_value, string_value
from probekit.lang.source import NOWHERE


@pytest.mark.parametrize(
    ("text", "value", "size", "signed"),
    [
        ("0", 0, 4, True),
        ("010", 8, 4, True),
        ("0x1fUL", 31, 8, False),
        ("2147483647", 2147483647, 4, True),
        ("2147483648", 2147483648, 8, True),
        ("0x80000000", 0x80000000, 4, False),
        ("1u", 1, 4, False),
        ("1ll", 1, 8, True),
        ("0xffffffffffffffff", (1 << 64) - 1, 8, False),
    ],
)
def test_an_integer_has_the_type_that_c_gives_it(text: str, value: int, size: int, signed: bool) -> None:
    found, t = integer_value(text, NOWHERE)
    assert (found, t.bits, t.signed) == (value, 8 * size, signed)


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("089", "D_INT_DIGIT"),
        ("0x10000000000000000", "D_INT_OFLOW"),
        ("9" * 100_000, "D_INT_OFLOW"),
        ("1x", "D_SYNTAX"),
        ("1lll", "D_SYNTAX"),
    ],
)
def test_a_wrong_integer_is_refused(text: str, tag: str) -> None:
    with pytest.raises(Refusal) as caught:
        integer_value(text, NOWHERE)
    assert caught.value.diagnostic.tag == tag


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r'"a\tb"', b"a\tb"),
        (r'"\101\x42C"', b"ABC"),
        (r'"\q\""', b'q"'),
        (r'"a\0b"', b"a"),
        ('"\u00e4"', b"\xc3\xa4"),
        ('"\udcff"', b"\xff"),
        ('""', b""),
    ],
)
def test_a_string_is_its_bytes_up_to_the_first_nul(text: str, value: bytes) -> None:
    assert string_value(text, NOWHERE) == value


def test_a_character_that_no_encoding_has_is_refused() -> None:
    with pytest.raises(Refusal):
        string_value('"\ud800"', NOWHERE)


@pytest.mark.parametrize(
    ("text", "value"),
    [("'a'", 97), (r"'\n'", 10), ("'ab'", 0x6162), (r"'\377'", 255), (r"'\xff.......'", -0xD1D1D1D1D1D1D2)],
)
def test_the_first_byte_of_a_character_constant_is_the_highest(text: str, value: int) -> None:
    assert char_value(text, NOWHERE) == value


@pytest.mark.parametrize(("text", "tag"), [("''", "D_CHR_NULL"), ("'123456789'", "D_CHR_OFLOW")])
def test_a_character_constant_has_one_to_eight_bytes(text: str, tag: str) -> None:
    with pytest.raises(Refusal) as caught:
        char_value(text, NOWHERE)
    assert caught.value.diagnostic.tag == tag
