"""Text to syntax tree: Lark's LALR parser over grammar/*.lark, one token at a time.

Between lexer and parser stands :func:`_tokens`: it renames words (keywords, type
names), replaces macro variables, and so keeps both out of the grammar.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, cast

from lark import Lark, Token
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from probekit.lang import ast
from probekit.lang.diagnostics import Refusal, did_you_mean, not_yet, refuse
from probekit.lang.macros import Macros, MacroUses, expand_text, expand_token
from probekit.lang.source import NOWHERE, Span
from probekit.lang.syntax import TreeBuilder
from probekit.lang.types import TYPE_NAMES
from probekit.lang.words import KEYWORDS, NOT_YET, terminal_of
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
        cache=_tables_file(),
    )


def _tables_file() -> str | bool:
    """Where the parser's tables are kept: making them takes longer than everything else. False: nowhere."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    folder = (Path(home) if home.startswith("/") else Path.home() / ".cache") / "probekit"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # What is unpickled from there must be our own.
        if folder.stat().st_uid != os.getuid() or not os.access(folder, os.W_OK):
            return False
    except (OSError, RuntimeError):  # RuntimeError: there is no home
        return False
    return str(folder / "grammar.tables")


def parse(text: str, macros: Macros, uses: MacroUses, types: Iterable[str] = ()) -> ast.Script:
    """The tree of a script that ``scan`` has passed. ``types``: typedefs beside D's own. Raises :class:`Refusal`."""
    machine = _parser().parse_interactive(text)
    last: Token | None = None
    try:
        for token in _Words(machine, macros, uses, {*TYPE_NAMES, *types}).tokens():
            machine.feed_token(token)
            last = token
        script = machine.feed_eof(last)  # type: ignore[no-untyped-call]
    except UnexpectedInput as error:
        accepted: set[str] = machine.accepts()  # type: ignore[no-untyped-call]
        raise _unexpected(error, text, accepted) from error
    except RecursionError as error:
        raise refuse("D_SYNTAX", NOWHERE, "the script is nested too deeply") from error
    assert isinstance(script, ast.Script)
    _check_depth(script)
    return script


_STARRED = re.compile(r"([A-Za-z_]\w*)(\*+)([A-Za-z_]\w*)?")
_BEFORE_NAME = frozenset(("TYPE_NAME", "STAR", "BASE_TYPE", "TAG", "RBRACE"))


@dataclass(slots=True)
class _Words:
    """The token stream between lexer and parser: words renamed, macro variables replaced, typedefs noticed.

    A ``typedef`` makes its name a type for every token behind it, as in C; so it is noticed here, not in the tree.
    """

    machine: InteractiveParser
    macros: Macros
    uses: MacroUses
    typedefs: set[str]
    before: str = ""
    defining: bool = False
    taken: bool = False
    braces: int = 0
    parens: int = 0

    def tokens(self) -> Iterator[Token]:
        for token in self.machine.lexer_thread.lex(self.machine.parser_state):  # type: ignore[no-untyped-call]
            if token.type == "MACRO":
                found: Iterable[Token] = self._expand(token)
            elif token.type in _WORDS:
                found = self._word(token)
            else:
                found = (token,)
            for piece in found:
                self._notice(piece)
                yield piece

    def _notice(self, token: Token) -> None:
        terminal = token.type
        if self.defining:
            self._define(token)
        elif terminal == "STORAGE" and token == "typedef":
            self.defining, self.taken, self.braces, self.parens = True, False, 0, 0
        tagged = self.before in ("STRUCT", "ENUM") and terminal in ("IDENT", "TYPE_NAME")
        self.before = "TAG" if tagged else terminal

    def _define(self, token: Token) -> None:
        match token.type:
            case "LBRACE" | "RBRACE":
                self.braces += 1 if token.type == "LBRACE" else -1
            case "LPAR" | "RPAR":
                self.parens += 1 if token.type == "LPAR" else -1
            case "SEMI" if self.braces <= 0:
                self.defining = False
            case "COMMA" if self.braces <= 0 and self.parens <= 0:
                self.taken = False
            case "IDENT" if self.braces <= 0 and not self.taken and self.before not in ("STRUCT", "ENUM"):
                self.typedefs.add(str(token))
                self.taken = True

    def _expand(self, token: Token) -> Iterator[Token]:
        for terminal, text in expand_token(token.value, _span(token), self.macros, self.uses):
            piece = Token.new_borrow_pos(terminal, text, token)
            if terminal == "IDENT":
                yield from self._word(piece)
            else:
                yield piece

    def _word(self, token: Token) -> Iterator[Token]:
        """Rename a word. At the top level ``int*`` is a type and a star, not a glob: D settles it so."""
        accepted = self.machine.choices()  # type: ignore[no-untyped-call]
        name, stars, behind = str(token), "", ""
        if token.type == "PSPEC" and (found := _STARRED.fullmatch(name)) is not None:
            name, stars, behind = found[1], found[2], found[3] or ""
        terminal = terminal_of(name, self.typedefs)
        if terminal == "TYPE_NAME" and self.before in _BEFORE_NAME and "IDENT" in accepted:
            terminal = None
        if terminal is not None and terminal in accepted:
            yield Token.new_borrow_pos(terminal, name, token)
            for _ in stars:
                yield Token.new_borrow_pos("STAR", "*", token)
            if behind:
                yield Token.new_borrow_pos("IDENT", behind, token)
        elif token.type == "PSPEC":
            yield token.update(value=expand_text(token.value, _span(token), self.macros, self.uses))
        elif name in NOT_YET or (terminal is not None and terminal not in ("TYPE_NAME", "BASE_TYPE")):
            raise _reserved(name, _span(token))
        elif terminal is None and token.type == "TYPE_NAME" and "IDENT" in accepted:
            yield Token.new_borrow_pos("IDENT", name, token)
        elif terminal is None and token.type == "TYPE_NAME":
            raise refuse("D_SYNTAX", _span(token), f"{name} is not a type", did_you_mean(name, self.typedefs))
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


def _roots(item: ast.Item) -> list[ast.Node]:
    match item:
        case ast.Clause():
            return [item]
        case ast.Inline():
            return [item.value]
        case ast.Translator():
            return [m.value for m in item.members]
        case ast.Declaration() | ast.Provider():
            return []


def _check_depth(script: ast.Script) -> None:
    todo: list[tuple[ast.Node, int]] = [(node, 0) for item in script.items for node in _roots(item)]
    while todo:
        node, depth = todo.pop()
        if depth > MAX_DEPTH:
            raise refuse("D_SYNTAX", node.span, f"nested more than {MAX_DEPTH} levels deep")
        if isinstance(node, ast.Binary):
            first, nodes = ast.chain(node)
            todo.extend((child, depth + 1) for child in (first, *(n.right for n in nodes)))
        else:
            todo.extend((child, depth + 1) for child in ast.children(node))
