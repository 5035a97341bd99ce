"""Places in a script's text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probekit.lang.source import Source, Span

_CPP = Source('# 1 "<stdin>"\n# 1 "a.h" 1\nint x;\n# 2 "<stdin>" 2\nBEGIN\n#line 90\nEND\n')


@pytest.mark.parametrize(("offset", "place"), [(0, (1, 1)), (1, (1, 2)), (2, (2, 1)), (3, (2, 2)), (4, (2, 3))])
def test_lines_and_columns_are_counted_from_one(offset: int, place: tuple[int, int]) -> None:
    assert Source("a\nbc").place(offset) == place


@given(text=st.text("ab\n"), data=st.data())
def test_a_place_is_where_its_line_says(text: str, data: st.DataObject) -> None:
    offset = data.draw(st.integers(0, len(text)))
    line, column = Source(text).place(offset)
    lines = text.split("\n")
    assert sum(len(before) + 1 for before in lines[: line - 1]) + column - 1 == offset
    assert Source(text).line(line) == lines[line - 1]


def test_a_line_mark_names_the_line_after_it() -> None:
    assert [_CPP.named_line(line) for line in (3, 5, 7)] == [1, 2, 90]
    assert Source("a\nb").named_line(2) == 2


def test_only_text_between_the_marks_of_a_file_was_included() -> None:
    assert _CPP.included(_CPP.text.index("int"))
    assert not _CPP.included(_CPP.text.index("BEGIN"))


def test_a_span_to_another_covers_both() -> None:
    assert Span(1, 3).to(Span(7, 9)) == Span(1, 9)
    assert Source("abcdef").slice(Span(1, 3)) == "bc"
