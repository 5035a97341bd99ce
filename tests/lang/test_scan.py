"""What a script is to the grammar: comments and control lines are blank, and no offset moves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probekit.lang.diagnostics import Refusal
from probekit.lang.scan import scan
from probekit.lang.source import Source


def test_comments_and_control_lines_become_blanks_of_the_same_length() -> None:
    text = "#pragma D option quiet\nBEGIN /* a\nb */ { }\n"
    scanned = scan(Source(text))
    assert scanned.text == " " * 22 + "\nBEGIN     \n     { }\n"
    assert len(scanned.text) == len(text)


def test_what_looks_like_a_comment_inside_a_string_is_text() -> None:
    text = """BEGIN { trace("/* # */"); trace('/*'); }"""
    assert scan(Source(text)).text == text


@pytest.mark.parametrize(
    ("line", "name", "value"), [("quiet", "quiet", ""), ("bufsize=4k", "bufsize", "4k"), ("x=", "x", "")]
)
def test_an_option_has_a_name_and_perhaps_a_value(line: str, name: str, value: str) -> None:
    (option,) = scan(Source(f"# pragma D option {line}\n")).options
    assert (option.name, option.value) == (name, value)


def test_other_pragmas_are_kept_as_words() -> None:
    (pragma,) = scan(Source("#pragma D depends_on library net.d\n")).pragmas
    assert pragma.words == ("depends_on", "library", "net.d")


@pytest.mark.parametrize("line", ["#", "#ident x", '# 1 "a.d" 1', "#line 7", "#pragma once", "#pragma D ident x"])
def test_lines_that_say_nothing_to_d_are_accepted(line: str) -> None:
    scanned = scan(Source(line))
    assert (scanned.text.strip(), scanned.options, scanned.pragmas) == ("", (), ())


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("BEGIN /* ", "D_SYNTAX"),
        ('BEGIN { trace("x); }', "D_STR_NL"),
        ("a\0b", "D_SYNTAX"),
        ("#include <x.h>", "D_PRAGCTL_INVAL"),
        ("#nosuch", "D_PRAGCTL_INVAL"),
        ("#line x", "D_PRAGMA_MALFORM"),
        ("#pragma D option", "D_PRAGMA_MALFORM"),
        ("#pragma D nosuch", "D_PRAGMA_INVAL"),
        ("#pragma D error no", "D_PRAGERR"),
        ("#error no", "D_PRAGERR"),
    ],
)
def test_a_wrong_line_is_refused_with_its_tag(text: str, tag: str) -> None:
    with pytest.raises(Refusal) as caught:
        scan(Source(text))
    assert caught.value.diagnostic.tag == tag


@given(st.text("ab/*'\"#\n \\", max_size=30))
def test_any_text_is_refused_or_keeps_its_length_and_lines(text: str) -> None:
    try:
        scanned = scan(Source(text))
    except Refusal:
        return
    assert len(scanned.text) == len(text)
    assert [i for i, c in enumerate(scanned.text) if c == "\n"] == [i for i, c in enumerate(text) if c == "\n"]
