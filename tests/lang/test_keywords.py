"""Words that are not identifiers."""

from __future__ import annotations

import pytest

from probekit.lang.keywords import BASE_TYPES, KEYWORDS, MEANINGLESS, terminal_of


@pytest.mark.parametrize(
    ("word", "terminal"),
    [("if", "IF"), ("this", "SCOPE"), ("union", "STRUCT"), ("const", "QUALIFIER"), ("string", "BASE_TYPE")],
)
def test_a_keyword_has_its_terminal(word: str, terminal: str) -> None:
    assert terminal_of(word, ()) == terminal


def test_a_word_is_a_type_only_once_it_is_declared() -> None:
    assert terminal_of("pid_t", ()) is None
    assert terminal_of("pid_t", {"pid_t"}) == "TYPE_NAME"


def test_a_typedef_does_not_hide_a_keyword() -> None:
    assert terminal_of("if", {"if"}) == "IF"


def test_every_base_type_is_a_keyword_and_no_meaningless_word_is() -> None:
    assert set(KEYWORDS) >= BASE_TYPES
    assert not set(KEYWORDS) & set(MEANINGLESS)
