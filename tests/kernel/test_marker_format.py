"""The arguments of a marker, from its format."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probekit.kernel.c_types import CInt, CPointer
from probekit.kernel.marker_format import MAX_ARGUMENTS, MarkerFormatError, argument_types


def _names(text: str) -> list[str]:
    return [t.name if isinstance(t, CInt) else "pointer" for t in argument_types(text)]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("no arguments, 100%%", []),
        ("turn %lu of %s", ["unsigned long", "pointer"]),
        ("at %pS: %d", ["pointer", "int"]),
        ("%-08.3hhx %c %zd %llu", ["unsigned char", "char", "long", "unsigned long long"]),
    ],
)
def test_each_conversion_is_an_argument_of_its_type(text: str, names: list[str]) -> None:
    assert _names(text) == names


def test_a_string_is_a_pointer_to_characters() -> None:
    (found,) = argument_types("%s")
    assert isinstance(found, CPointer)
    assert isinstance(found.target, CInt)
    assert found.target.name == "char"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("50%", "in the middle of a conversion"),
        ("%*d", "takes a width as an argument"),
        ("%.*s", "takes a width as an argument"),
        ("%n", "not known"),
        ("%hs", "not known"),
        ("%d" * (MAX_ARGUMENTS + 1), "more than 10"),
    ],
)
def test_a_format_that_is_not_understood_is_an_error_that_says_why(text: str, message: str) -> None:
    with pytest.raises(MarkerFormatError, match=message):
        argument_types(text)


@given(st.text("%dslhp*.0123 n"))
def test_any_text_of_a_guest_is_read_or_refused(text: str) -> None:
    with suppress(MarkerFormatError):
        assert len(argument_types(text)) <= MAX_ARGUMENTS
