"""Searching and cutting strings: the guest finds and cuts what the host finds and cuts, at any place."""

from __future__ import annotations

from functools import lru_cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.codegen.compared import Compared
from tests.codegen.scripts import ints

_STRINGS = ("", "a", "ab", "aab", "abab", "aabaab", "ba", "b", "abcabcab")
_places = st.one_of(st.integers(-3, 12), ints)


@lru_cache
def _both(call: str) -> Compared:
    choose = " : ".join(f'arg0 == {n} ? "{text}"' for n, text in enumerate(_STRINGS)) + ' : "zz"'
    other = " : ".join(f'arg1 == {n} ? "{text}"' for n, text in enumerate(_STRINGS)) + ' : "zz"'
    return Compared(f"string s; string t; fbt::: {{ s = {choose}; t = {other}; trace({call}); }}", bufsize=1 << 13)


@pytest.mark.parametrize(
    "call",
    [
        "strstr(s, t)", "index(s, t)", "rindex(s, t)", "index(s, t, arg2)", "rindex(s, t, arg2)",
        "substr(s, arg2)", "substr(s, arg2, arg3)", "strtok(s, t)",
    ],
)  # fmt: skip
@settings(max_examples=40)
@given(st.integers(0, len(_STRINGS)), st.integers(0, len(_STRINGS)), _places, _places)
def test_any_two_strings_and_places_give_what_the_host_gives(
    call: str, text: int, other: int, place: int, length: int
) -> None:
    _both(call).fire(text, other, place, length)
