"""``printf()`` formats: parsed as written, or refused with the place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probekit.buffers.formats import Conversion, PrintfFormatError, parse_format


def _only(text: str) -> Conversion:
    (part,) = parse_format(text).parts
    assert isinstance(part, Conversion)
    return part


def test_parts() -> None:
    form = parse_format("a %d%% b\n%s")
    assert form.parts == ("a ", Conversion("", None, None, "", "d"), "% b\n", Conversion("", None, None, "", "s"))
    assert [c.letter for c in form.conversions] == ["d", "s"]
    assert parse_format("").parts == ()
    assert parse_format("100%%").parts == ("100%",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("%-08.3lld", Conversion("0", 8, 3, "ll", "d")),
        ("%08-d", Conversion("-", 8, None, "", "d")),
        ("%+ #'x", Conversion("+ #'", None, None, "", "x")),
        ("%.s", Conversion("", None, 0, "", "s")),
        ("%*.*s", Conversion("", None, None, "", "s", star_width=True, star_precision=True)),
        ("%?p", Conversion("", 16, None, "", "p")),
        ("%@8d", Conversion("@", 8, None, "", "d")),
        ("%hhu", Conversion("", None, None, "hh", "u")),
        ("%wc", Conversion("", None, None, "w", "c")),
    ],
)
def test_conversions(text: str, expected: Conversion) -> None:
    assert _only(text) == expected


@pytest.mark.parametrize(
    ("text", "offset"),
    [
        ("%", 0),
        ("ab%", 2),
        ("%5", 0),
        ("%d %.%", 3),
        ("%5%", 0),
        ("%**d", 0),
        ("%.1.2d", 0),
        ("%1$d", 0),
        ("%99999d", 0),
        ("%.9999999999d", 0),
    ],
)
def test_refused(text: str, offset: int) -> None:
    with pytest.raises(PrintfFormatError) as caught:
        parse_format(text)
    assert caught.value.offset == offset


@given(st.text(alphabet="%d$*.-+ #0?@1sxhl'z"))
def test_never_anything_else(text: str) -> None:
    try:
        form = parse_format(text)
    except PrintfFormatError as error:
        assert 0 <= error.offset < len(text)
    else:
        assert form.text == text
