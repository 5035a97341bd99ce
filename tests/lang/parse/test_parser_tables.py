"""The parser's tables: they are those of the grammar, and do what Lark does with it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lark import Lark
from lark.exceptions import UnexpectedCharacters, UnexpectedToken

from probekit.lang import lalr, tables
from probekit.lang.lalr import END, Machine, Token
from probekit.lang.maketables import make_tables
from probekit.lang.parse.tree_builder import TreeBuilder
from probekit.resources import data_dir

_GRAMMAR = tables.load_grammar()
_FILE = data_dir("grammar").joinpath(tables.TABLES_FILE)


def test_the_file_is_of_this_grammar() -> None:
    made = tables.as_text(make_tables(_GRAMMAR), _GRAMMAR)
    assert made == Path(str(_FILE)).read_text("utf-8"), "python -m probekit.lang.maketables writes it"
    assert tables.as_text(tables.from_text(made), _GRAMMAR) == made


def test_of_another_grammar_they_are_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "load_grammar", lambda: _GRAMMAR + "\n// changed\n")
    assert tables.load_tables.__wrapped__().terminals == tables.from_text(_FILE.read_text("utf-8")).terminals


def test_what_a_terminal_may_begin_with() -> None:
    for terminal in tables.load_tables().terminals:
        first = lalr._FIRST.get(terminal.name)
        if first is None:
            assert not terminal.is_pattern or terminal.name not in lalr._FIRST
            continue
        for c in map(chr, range(256)):
            if c not in first:
                for rest in ("", "0", "a", "=", "+", "-", "1.5", "'", '"', " {", "/"):
                    assert re.match(terminal.text, c + rest) is None, (terminal.name, c)


_LARK = Lark(_GRAMMAR, parser="lalr", lexer="contextual", start="start", maybe_placeholders=True)
_PIECES = st.sampled_from(
    [
        *"BEGIN x / { } ; ( ) [ ] 1 1.5 @a = == + ++ -> ... . * ? : , 'a' $1 `y a`b - % && ^^ probe #".split(),
        *(" ", "\n", '"s"'),
    ]
)


def _by_lark(text: str) -> list[tuple[str, str]] | int:
    machine = _LARK.parse_interactive(text)
    found = []
    try:
        for token in machine.lexer_thread.lex(machine.parser_state):  # type: ignore[no-untyped-call]
            found.append((token.type, str(token)))
            machine.feed_token(token)
        machine.feed_eof()  # type: ignore[no-untyped-call]
    except UnexpectedCharacters as error:
        return int(error.pos_in_stream or 0)
    except UnexpectedToken as error:
        return -1 if error.token.type == "$END" else int(error.token.start_pos or 0)
    return found


def _by_ours(text: str) -> list[tuple[str, str]] | int:
    loaded = tables.load_tables()
    machine = Machine(loaded, text, tuple(None for _ in loaded.rules))
    found = []
    try:
        for token in machine.tokens():
            found.append((token.type, str(token)))
            assert machine.accepts() <= set(machine.choices())
            machine.feed(token)
        machine.feed(Token(END, "", len(text), len(text)))
    except lalr.UnexpectedCharacter as error:
        return error.at
    except lalr.UnexpectedToken as error:
        return -1 if error.token.type == END else error.token.start
    return found


@given(st.lists(_PIECES, max_size=30).map("".join))
def test_tokens_are_larks(text: str) -> None:
    assert _by_ours(text) == _by_lark(text)


@pytest.mark.parametrize(
    "text",
    [
        "BEGIN / x > 1 / { trace(x / 2); @a[1, 2] = count(); }",
        "struct s { int a : 3; char *b[4]; }; inline int f[int a, int b] = a + b;",
        "provider p { probe f(int a) : (int a); }; translator t_t < int a > { b = a; };",
        "a:b::c*, tick-1s { if (x) { y = 'a'; } else z = offsetof (struct s, a); }",
    ],
)
def test_programs_are_read_as_lark_reads_them(text: str) -> None:
    assert _by_ours(text) == _by_lark(text)


def test_methods_are_the_builders() -> None:
    for rule in tables.load_tables().rules:
        assert not rule.method or callable(getattr(TreeBuilder(), rule.method))
