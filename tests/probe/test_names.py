"""Probe names, descriptions and globs."""

from __future__ import annotations

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probekit.probe.names import DescriptionError, ProbeDescription, ProbeName, glob_regex, has_wildcard, is_glob

READ = ProbeName("fbt", "vmlinux", "vfs_read", "entry")


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("BEGIN", ("", "", "", "BEGIN")),
        ("vfs_read:entry", ("", "", "vfs_read", "entry")),
        ("vmlinux:vfs_read:entry", ("", "vmlinux", "vfs_read", "entry")),
        ("fbt:vmlinux:vfs_read:entry", ("fbt", "vmlinux", "vfs_read", "entry")),
        ("fbt:::", ("fbt", "", "", "")),
        ("", ("", "", "", "")),
    ],
)
def test_fields_are_left_out_on_the_left(text: str, fields: tuple[str, str, str, str]) -> None:
    parsed = ProbeDescription.parse(text)
    assert (parsed.provider, parsed.module, parsed.function, parsed.name) == fields
    assert parsed.probe_id is None


def test_an_integer_is_a_probe_id() -> None:
    parsed = ProbeDescription.parse("12")
    assert parsed.probe_id == 12
    assert str(parsed) == "12"
    assert not parsed.matches(READ)


def test_five_fields_are_too_many() -> None:
    with pytest.raises(DescriptionError) as caught:
        ProbeDescription.parse("a:b:c:d:e")
    assert caught.value.text == "a:b:c:d:e"


@pytest.mark.parametrize(
    ("description", "matches"),
    [
        ("fbt:::entry", True),
        ("fbt:::return", False),
        ("vfs_*:entry", True),
        ("*read:", True),
        (":vfs_rea?:", True),
        ("f[a-c]t:::", True),
        ("f[!a-c]t:::", False),
        ("vfs:entry", False),
    ],
)
def test_matching(description: str, matches: bool) -> None:
    assert ProbeDescription.parse(description).matches(READ) is matches


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("a\\*b", "a*b", True),
        ("a\\*b", "axb", False),
        ("a\\", "a\\", True),
        ("[", "[", True),
        ("a[b", "a[b", True),
        ("[]a]", "]", True),
        ("[!]a]", "b", True),
        ("[!]a]", "]", False),
        ("[z-a]", "m", False),
        ("[!z-a]", "m", True),
        ("[a-]", "-", True),
        ("[a||b]", "|", True),
        ("[a--]", "a", False),
        ("[^a]", "^", True),
        ("[a&&b]", "&", True),
        ("a.b", "axb", False),
        ("*", "", True),
        ("*", "two\nlines", True),
    ],
)
def test_globs(pattern: str, text: str, matches: bool) -> None:
    assert (glob_regex(pattern).fullmatch(text) is not None) is matches


@given(pattern=st.text("ab*?[]!-^z&|~.", max_size=8), text=st.text("ab-^z&|]![.", max_size=5))
def test_globs_are_those_of_the_shell(pattern: str, text: str) -> None:
    assert (glob_regex(pattern).fullmatch(text) is not None) == fnmatch.fnmatchcase(text, pattern)


@given(st.text())
def test_any_text_is_a_glob(pattern: str) -> None:
    glob_regex(pattern).fullmatch("x")


def test_is_glob() -> None:
    assert all(map(is_glob, ("", "a*", "?", "[a]", "a\\b")))
    assert not is_glob("vfs_read")


def test_fields_that_are_left_out_are_no_wildcards() -> None:
    parse = ProbeDescription.parse
    assert not any(map(has_wildcard, map(parse, ("fbt::vfs_read:entry", "fbt:::", "BEGIN", "42", ":::"))))
    assert all(map(has_wildcard, map(parse, ("fbt::vfs_*:entry", "f?t:::", "::[a]:", "::a\\b:"))))


def test_names_print_and_sort() -> None:
    assert str(READ) == "fbt:vmlinux:vfs_read:entry"
    assert sorted([READ, ProbeName("dtrace", "", "", "BEGIN")])[1] is READ
