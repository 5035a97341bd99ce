"""Strings and paths as D's subroutines have them."""

from __future__ import annotations

import os.path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probekit.interp import strings

_BYTES = st.binary(max_size=12)
_PATHS = st.text("ab/.", max_size=12).map(str.encode)


@pytest.mark.parametrize(
    ("path", "base", "parent"),
    [
        (b"/a/b", b"b", b"/a"),
        (b"/a/b///", b"b", b"/a"),
        (b"/a", b"a", b"/"),
        (b"//", b"/", b"/"),
        (b"a", b"a", b"."),
        (b"", b".", b"."),
        (b"a//b", b"b", b"a"),
    ],
)
def test_a_path_is_divided_as_the_c_library_divides_it(path: bytes, base: bytes, parent: bytes) -> None:
    assert (strings.basename(path), strings.dirname(path)) == (base, parent)


@pytest.mark.parametrize(
    ("path", "clean"),
    [(b"/a//b/../c", b"/a/c"), (b"/../..", b"/"), (b"/a/.", b"/a/."), (b"a/../b", b"/b"), (b"", b"")],
)
def test_a_path_is_cleaned_without_a_file_system(path: bytes, clean: bytes) -> None:
    assert strings.cleanpath(path) == clean


@given(parts=st.lists(st.sampled_from(["a", "b", "..", "."]), max_size=6))
def test_a_cleaned_absolute_path_is_the_normal_one(parts: list[str]) -> None:
    path = "/" + "".join(f"{part}/" for part in parts) + "end"
    assert strings.cleanpath(path.encode()) == os.path.normpath(path).encode()


@pytest.mark.parametrize(
    ("start", "length", "expected"),
    [
        (2, None, b"cdef"),
        (2, 2, b"cd"),
        (-2, None, b"ef"),
        (1, -2, b"bcd"),
        (9, None, b""),
        (-9, 5, b"ab"),
        (-9, 2, b""),
        (2, 0, b""),
        (2, -9, b""),
    ],
)
def test_a_part_of_a_string_counts_from_either_end(start: int, length: int | None, expected: bytes) -> None:
    assert strings.substr(b"abcdef", start, length) == expected


@given(whole=_BYTES, start=st.integers(-20, 20), length=st.none() | st.integers(-20, 20))
def test_a_part_of_a_string_is_always_inside_it(whole: bytes, start: int, length: int | None) -> None:
    assert strings.substr(whole, start, length) in whole


def test_a_search_starts_inside_the_string_wherever_it_is_asked_to() -> None:
    assert [strings.index(b"abab", b"b", start) for start in (-5, 0, 2, 4, 9)] == [1, 1, 3, -1, -1]
    assert [strings.rindex(b"abab", b"b", start) for start in (-1, 0, 1, 2, 9, None)] == [-1, -1, 1, 1, 3, 3]
    assert strings.index(b"abc", b"", 9) == 3
    assert strings.rindex(b"abc", b"", -1) == 0


@pytest.mark.parametrize(
    ("value", "base", "expected"),
    [(0, 10, b"0"), (-12, 10, b"-12"), (255, 16, b"0xff"), (8, 8, b"010"), (-1, 16, b"0x" + b"f" * 16), (35, 36, b"z")],
)
def test_a_number_is_written_with_the_prefix_of_its_base(value: int, base: int, expected: bytes) -> None:
    assert strings.lltostr(value, base) == expected


@given(value=st.integers(-(1 << 63), (1 << 63) - 1))
def test_a_decimal_number_reads_back_as_itself(value: int) -> None:
    assert strings.strtoll(strings.lltostr(value, 10), 10) == value


@pytest.mark.parametrize(
    ("written", "base", "value"),
    [
        (b" \t+12x", 10, 12),
        (b"-0x1F", 16, -31),
        (b"789", 8, 7),
        (b"", 10, 0),
        (b"--5", 10, 0),
        (b"9" * 40, 10, (1 << 63) - 1),
        (b"-" + b"9" * 40, 10, -(1 << 63)),
        (b"zz", 36, 1295),
    ],
)
def test_a_number_ends_where_it_cannot_be_read_and_stays_in_64_bits(written: bytes, base: int, value: int) -> None:
    assert strings.strtoll(written, base) == value


def test_a_token_is_given_with_what_follows_its_delimiter() -> None:
    assert strings.strtok(b"/a//b", b"/") == (b"a", b"/b")
    assert strings.strtok(b"/b", b"/") == (b"b", None)
    assert strings.strtok(b"///", b"/") is None


@given(whole=_BYTES, delimiters=st.binary(min_size=1, max_size=3))
def test_the_tokens_are_the_pieces_between_delimiters(whole: bytes, delimiters: bytes) -> None:
    tokens = list[bytes]()
    rest: bytes | None = whole
    while rest is not None and (found := strings.strtok(rest, delimiters)) is not None:
        token, rest = found
        tokens.append(token)
    for byte in delimiters:
        whole = whole.replace(bytes((byte,)), delimiters[:1])
    assert tokens == [piece for piece in whole.split(delimiters[:1]) if piece]
