"""One value out of a JSON text."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probekit.interp.json_text import find_value

_TEXT = b' { "a" : [1, {"b": "x"}, [2, 3]], "c": null, "d": "a \\"quoted\\" word", "e": -1.5e3 } '


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (b"a[0]", b"1"),
        (b"a[1].b", b"x"),
        (b"a[2][1]", b"3"),
        (b"a[1]", b'{"b": "x"}'),
        (b"c", b"null"),
        (b"d", b'a \\"quoted\\" word'),
        (b"e", b"-1.5e3"),
    ],
)
def test_a_path_leads_to_its_value_as_written(path: bytes, value: bytes) -> None:
    assert find_value(_TEXT, path) == value


@pytest.mark.parametrize("path", [b"", b"z", b"a[9]", b"a.b", b"c[0]", b"a[", b"a[x]", b"."])
def test_a_path_that_leads_nowhere_finds_nothing(path: bytes) -> None:
    assert find_value(_TEXT, path) == b""


@pytest.mark.parametrize("text", [b"", b"{", b'{"a"', b'{"a": ', b'{"a": "x', b'{"a": [1', b"[" * 100])
def test_a_text_that_is_no_json_finds_nothing(text: bytes) -> None:
    assert find_value(text, b"a") == b""


def test_values_that_are_nested_too_deeply_are_not_followed() -> None:
    assert find_value(b'{"a": ' + b"[" * 60 + b"]" * 60 + b"}", b"a") != b""
    assert find_value(b'{"a": ' + b"[" * 70 + b"]" * 70 + b"}", b"a") == b""


def test_brackets_inside_strings_are_text() -> None:
    assert find_value(b'{"a": ["]", "}"], "b": 2}', b"b") == b"2"


@given(values=st.lists(st.integers() | st.booleans() | st.none() | st.lists(st.integers()), min_size=1), data=st.data())
def test_every_element_of_a_list_is_found(values: list[object], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(values) - 1))
    assert json.loads(find_value(json.dumps(values).encode(), b"[%d]" % index)) == values[index]


@given(st.binary(max_size=40), st.binary(max_size=10))
def test_no_text_and_no_path_raises(text: bytes, path: bytes) -> None:
    assert isinstance(find_value(text, path), bytes)
