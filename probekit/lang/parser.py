"""Text to syntax tree: Lark's LALR parser over grammar/*.lark, one token at a time.

Between lexer and parser stands :func:`_tokens`: it renames words (keywords, type
names), replaces macro variables, and so keeps both out of the grammar.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, cast

from lark import Lark, Token
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from probekit.lang import ast
from probekit.lang.diagnostics import Refusal, did_you_mean, not_yet, refuse
from probekit.lang.macros import Macros, MacroUses, expand_text, expand_token
from probekit.lang.source import Span
from probekit.lang.syntax import TreeBuilder
from probekit.lang.words import KEYWORDS, NOT_YET, NOT_YET_AT_TOP, terminal_of
from probekit.resources import data_dir

if TYPE_CHECKING:
    from lark.parsers.lalr_interactive_parser import InteractiveParser

__all__ = ("GRAMMAR_FILES", "MAX_DEPTH", "load_grammar", "parse")

GRAMMAR_FILES = ("lexical.lark", "types.lark", "expr.lark", "d.lark")
"""Read in this order and joined: one namespace, so that rules keep their names."""

MAX_DEPTH = 150
"""How deep expressions and statements may nest: the passes after this one recurse."""

_WORDS = frozenset(("IDENT", "PSPEC", "TYPE_NAME"))


def load_grammar() -> str:
    """The whole grammar as text."""
    folder = data_dir("grammar")
    return "\n".join(folder.joinpath(name).read_text("utf-8") for name in GRAMMAR_FILES)


@lru_cache(maxsize=1)
def _parser() -> Lark:
    return Lark(
        load_grammar(),
        parser="lalr",
        lexer="contextual",
        start="start",
        maybe_placeholders=True,
        transformer=TreeBuilder(),
    )


def parse(text: str, macros: Macros, uses: MacroUses) -> ast.Script:
    """The tree of a script that ``scan`` has passed. Raises :class:`Refusal`."""
    machine = _parser().parse_interactive(text)
    last: Token | None = None
    try:
        for token in _tokens(machine, macros, uses):
            machine.feed_token(token)
            last = token
        script = machine.feed_eof(last)  # type: ignore[no-untyped-call]
    except UnexpectedInput as error:
        accepted: set[str] = machine.accepts()  # type: ignore[no-untyped-call]
        raise _unexpected(error, text, accepted) from error
    assert isinstance(script, ast.Script)
    _check_depth(script)
    return script


def _tokens(machine: InteractiveParser, macros: Macros, uses: MacroUses) -> Iterator[Token]:
    for token in machine.lexer_thread.lex(machine.parser_state):  # type: ignore[no-untyped-call]
        if token.type == "MACRO":
            yield from _expand(machine, token, macros, uses)
        elif token.type in _WORDS:
            yield from _word(machine, token, macros, uses)
        else:
            yield token


def _expand(machine: InteractiveParser, token: Token, macros: Macros, uses: MacroUses) -> Iterator[Token]:
    for terminal, text in expand_token(token.value, _span(token), macros, uses):
        piece = Token.new_borrow_pos(terminal, text, token)
        if terminal == "IDENT":
            yield from _word(machine, piece, macros, uses)
        else:
            yield piece


def _word(machine: InteractiveParser, token: Token, macros: Macros, uses: MacroUses) -> Iterator[Token]:
    """Rename a word. At the top level ``int*`` is a type and a star, not a glob: D settles it so."""
    accepted = machine.choices()  # type: ignore[no-untyped-call]
    name = token.value.rstrip("*") if token.type == "PSPEC" else token.value
    terminal = terminal_of(name)
    if token.type == "PSPEC" and terminal == "STRUCT":
        raise not_yet(_span(token), f"{name} declarations are")
    if terminal is not None and terminal in accepted:
        yield Token.new_borrow_pos(terminal, name, token)
        for _ in range(len(token.value) - len(name)):
            yield Token.new_borrow_pos("STAR", "*", token)
    elif token.type == "PSPEC" and name in NOT_YET_AT_TOP:
        raise not_yet(_span(token), NOT_YET_AT_TOP[name])
    elif token.type == "PSPEC":
        yield token.update(value=expand_text(token.value, _span(token), macros, uses))
    elif name in NOT_YET or (terminal is not None and terminal not in ("TYPE_NAME", "BASE_TYPE")):
        raise _reserved(name, _span(token))
    else:
        yield token


def _span(token: Token) -> Span:
    assert token.start_pos is not None
    assert token.end_pos is not None
    return Span(token.start_pos, token.end_pos)


def _reserved(word: str, span: Span) -> Refusal:
    if word in NOT_YET:
        return not_yet(span, NOT_YET[word])
    return refuse("D_SYNTAX", span, f"{word} cannot stand here")


def _unexpected(error: UnexpectedInput, text: str, accepted: set[str]) -> Refusal:
    """Lark's error as ours. ``accepted``: the terminals that could have stood there."""
    match error:
        case UnexpectedToken(token=Token() as token):
            if token.type == "$END":
                end = len(text.rstrip())
                return refuse("D_SYNTAX", Span(end, end), "script ends too early", *_missing(accepted))
            span = _span(token)
            word = text[span.start : span.end]
            return refuse("D_SYNTAX", span, f"syntax error near {_quoted(word)}", *_missing(accepted, word))
        case UnexpectedCharacters():
            at = cast(int, error.pos_in_stream)  # Lark types it as None
            return refuse("D_SYNTAX", Span(at, at + 1), f"character {_quoted(text[at])} cannot stand here")
        case _:
            return refuse("D_SYNTAX", Span(len(text), len(text)), "script ends too early")


_PLAIN = {"COLON": ":", "RBRACE": "}", "RPAR": ")", "RSQB": "]", "SEMI": ";", "PRED_END": "/", "LBRACE": "{"}


def _missing(accepted: set[str], word: str = "") -> list[str]:
    hints = [did_you_mean(word, KEYWORDS)] if word.isidentifier() and word not in KEYWORDS else []
    if "PRED_END" in accepted and word:
        hints.append("a predicate ends with / before {")
    if "SEMI" in accepted and word and (word[0].isalnum() or word[0] in "_@`\"'"):
        hints.append("is a ; missing before it?")
    if word.startswith("/") and "DIV" not in accepted:
        hints.append("a comment is written /* ... */")
    wanted = [text for name, text in _PLAIN.items() if name in accepted]
    return [h for h in hints if h] or ([f"expected {' or '.join(wanted)}"] if 0 < len(wanted) <= 3 else [])


def _quoted(word: str) -> str:
    return repr(word if len(word) <= 40 else word[:40] + "...")


def _check_depth(script: ast.Script) -> None:
    todo: list[tuple[ast.Node, int]] = [(i, 0) for i in script.items if isinstance(i, ast.Clause)]
    while todo:
        node, depth = todo.pop()
        if depth > MAX_DEPTH:
            raise refuse("D_SYNTAX", node.span, f"nested more than {MAX_DEPTH} levels deep")
        if isinstance(node, ast.Binary):
            first, nodes = ast.chain(node)
            todo.extend((child, depth + 1) for child in (first, *(n.right for n in nodes)))
        else:
            todo.extend((child, depth + 1) for child in ast.children(node))
