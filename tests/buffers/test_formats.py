"""Format strings as data: literal text, conversions, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probekit.buffers.formats import MAX_WIDTH, Conversion, PrintfFormatError, parse_format


def test_text_and_conversions_come_in_order() -> None:
    assert parse_format("a%-5d|%s\n").parts == (
        "a",
        Conversion("-", 5, None, "", "d"),
        "|",
        Conversion("", None, None, "", "s"),
        "\n",
    )


def test_two_percent_signs_are_one_and_join_the_text_around_them() -> None:
    form = parse_format("100%% of %d%%")
    assert form.parts == ("100% of ", Conversion("", None, None, "", "d"), "%")
    assert form.conversions == (Conversion("", None, None, "", "d"),)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("%08.3lld", Conversion("0", 8, 3, "ll", "d")),
        ("%*.*d", Conversion("", None, None, "", "d", star_width=True, star_precision=True)),
        ("%.d", Conversion("", None, 0, "", "d")),
        ("%?p", Conversion("", 16, None, "", "p")),
        ("%@10d", Conversion("@", 10, None, "", "d")),
        ("%hhu", Conversion("", None, None, "hh", "u")),
        ("%wc", Conversion("", None, None, "w", "c")),
        ("%#+ 'x", Conversion("#+ '", None, None, "", "x")),
    ],
)
def test_each_part_of_a_conversion_is_a_field(text: str, expected: Conversion) -> None:
    assert parse_format(text).parts == (expected,)


@pytest.mark.parametrize(("text", "flags"), [("%-0d", "0"), ("%0-d", "-"), ("%-08.3lld", "0")])
def test_the_later_of_zero_and_minus_wins(text: str, flags: str) -> None:
    assert parse_format(text).conversions[0].flags == flags


@pytest.mark.parametrize(
    ("text", "message", "offset"),
    [
        ("ab%", "not a conversion", 2),
        ("%5", "not a conversion", 0),
        ("%!", "not a conversion", 0),
        ("%**d", "more than one * for a width", 0),
        ("%.*.*d", "more than one .", 0),
        ("%d %.%", "not a conversion", 3),
        ("%5%", "not a conversion", 0),
        ("%.1.2d", "more than one .", 0),
        ("x%1$d", "positional", 1),
        (f"%{MAX_WIDTH + 1}d", "above 4096", 0),
        ("%99999999999999999999d", "above 4096", 0),
        (f"%.{MAX_WIDTH + 1}d", "above 4096", 0),
    ],
)
def test_a_format_that_means_nothing_is_refused_at_its_place(text: str, message: str, offset: int) -> None:
    with pytest.raises(PrintfFormatError) as caught:
        parse_format(text)
    assert message in str(caught.value)
    assert caught.value.offset == offset


def test_the_largest_width_is_accepted() -> None:
    assert parse_format(f"%{MAX_WIDTH}d").conversions[0].width == MAX_WIDTH


def test_an_empty_format_has_no_parts() -> None:
    assert parse_format("").parts == ()


@given(st.text(alphabet="%d$*.-+ #0?@1sxhl'z"))
def test_any_text_is_a_format_or_is_refused_at_a_place_inside_it(text: str) -> None:
    try:
        form = parse_format(text)
    except PrintfFormatError as error:
        assert 0 <= error.offset < len(text)
    else:
        assert form.text == text
