"""Parse a script: feed the tokens of Lark's lexer to Lark's parser of grammar/*.lark, one by one.

Between the two stands :class:`_TokenFilter`, which renames words (keywords, type names) and replaces macro
variables. So the grammar knows neither. Lark calls :class:`probekit.lang.parse.tree_builder.TreeBuilder` for the
nodes.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator

from lark import Token, UnexpectedCharacters, UnexpectedToken
from lark.parsers.lalr_interactive_parser import InteractiveParser

from probekit.errors import InternalError
from probekit.lang import ast
from probekit.lang.diagnostics import Refusal, did_you_mean, refuse
from probekit.lang.kernelside import KernelSide, NoKernel
from probekit.lang.keywords import D_WORDS, KEYWORDS, MEANINGLESS, terminal_of
from probekit.lang.parse.grammar import grammar_parser
from probekit.lang.parse.macros import Macros, MacroUses, expand_text, expand_token
from probekit.lang.parse.tree_builder import span_of
from probekit.lang.source import NOWHERE, Span
from probekit.lang.types import TYPE_NAMES
from probekit.records import mutable_record

__all__ = ("MAX_DEPTH", "parse")

MAX_DEPTH = 150
"""How deeply expressions and statements may nest: the later passes are recursive."""

_INSTEAD = {"no loops": "a probe such as tick-10ms fires again and again", "no switch": "use if and else, or ?:"}
"""What to use in place of what D lacks."""

_WORDS = frozenset(("IDENT", "PSPEC", "TYPE_NAME"))
"""The terminals that a word may have in the lexer."""
_END = "$END"
"""The token that Lark feeds at the end of the text."""


def parse(
    text: str, macros: Macros, uses: MacroUses, types: Iterable[str] = (), kernel: KernelSide | None = None
) -> ast.Script:
    """Parse a script that ``scan`` has prepared. Raises :class:`Refusal`.

    ``uses``: notes the arguments that the script refers to. ``types``: typedefs besides D's own. ``kernel``: is asked
    about a word that may name a type and that the script does not define.
    """
    parser = grammar_parser().parse_interactive(text)
    words = _TokenFilter(text, parser, macros, uses, {*TYPE_NAMES, *types}, kernel or NoKernel())
    try:
        for token in words.tokens():
            parser.feed_token(token)
        script = parser.feed_eof()
    except UnexpectedToken as error:
        raise _unexpected(error.token, text, parser.accepts()) from error
    except UnexpectedCharacters as error:
        at: int = error.pos_in_stream  # type: ignore[assignment]  # Lark sets it
        raise refuse("D_SYNTAX", Span(at, at + 1), f"character {_quoted(text[at])} cannot stand here") from error
    except RecursionError as error:
        raise refuse("D_SYNTAX", NOWHERE, "the script is nested too deeply") from error
    if not isinstance(script, ast.Script):
        raise InternalError("the grammar gave no script")
    _check_depth(script)
    return script


_STARRED = re.compile(r"([A-Za-z_]\w*)(\*+)([A-Za-z_]\w*)?")
_BEFORE_NAME = frozenset(("TYPE_NAME", "STAR", "BASE_TYPE", "TAG", "RBRACE"))
_BEFORE_DECLARED = _BEFORE_NAME | {"COMMA", "LPAR"}
_MEMBER = frozenset(("IDENT", "TYPE_NAME"))
_MEMBER_OF_TRANSLATOR = frozenset(("IDENT", "RBRACE"))
_BEFORE_MEMBER = frozenset(("ARROW", "DOT", "STRUCT", "ENUM"))
_AFTER_TYPE = re.compile(r"\s*[*)(\[\w]")
_WORD = re.compile(r"[A-Za-z_]\w*")


@mutable_record
class _TokenFilter:
    """Passes the lexer's tokens on: renames words, replaces macro variables, notices typedefs.

    As in C, a ``typedef`` makes its name a type for all later tokens, so it must be noticed here and not in the tree.
    The guest's kernel is asked last, and only about a word in a place where a type may stand.
    """

    text: str
    """The whole script."""
    parser: InteractiveParser
    macros: Macros
    uses: MacroUses
    """Notes the arguments that the script refers to."""
    typedefs: set[str]
    """The names of types so far."""
    kernel: KernelSide
    before: str = ""
    """The terminal of the token before this one; ``TAG`` for the tag of a struct or enumeration."""
    defining: bool = False
    """Inside a ``typedef``."""
    taken: bool = False
    """This declarator's name has been seen."""
    braces: int = 0
    """How many braces are open in the ``typedef``."""
    parens: int = 0
    """How many parentheses are open in the ``typedef``."""
    struct_braces: int = 0
    """How many braces are open from that of a struct's body on."""
    module: str = ""
    """The module of ``module`struct``, until the tag comes."""

    def tokens(self) -> Iterator[Token]:
        """Yield the tokens for the parser. Each is read in the parser's state after the token before it."""
        for token in self.parser.lexer_thread.lex(self.parser.parser_state):
            if token.type == "MACRO":
                found: Iterable[Token] = self._expand(token)
            elif "`" in token and token.type in ("SYMBOL", "TYPE_NAME", "PSPEC"):
                found = self._scoped(token)
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
        if terminal == "LBRACE" and (self.struct_braces or self.before in ("STRUCT", "TAG")):
            self.struct_braces += 1
        elif terminal == "RBRACE" and self.struct_braces:
            self.struct_braces -= 1
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
        for terminal, text in expand_token(str(token), span_of(token), self.macros, self.uses):
            piece = _like(token, terminal, text)
            if terminal == "IDENT":
                yield from self._word(piece)
            else:
                yield piece

    def _word(self, token: Token) -> Iterator[Token]:
        """Rename a word. Outside of clauses ``int*`` is a type and a star, not a glob."""
        accepted = self.parser.choices()
        name, stars, after = str(token), "", ""
        if token.type == "PSPEC" and (found := _STARRED.fullmatch(name)) is not None:
            name, stars, after = found[1], found[2], found[3] or ""
        if name in D_WORDS and self._names_member(accepted):
            yield from self._tagged(_like(token, "IDENT", name))
            return
        terminal = terminal_of(name, self.typedefs)
        if terminal == "TYPE_NAME" and self.before in _BEFORE_NAME and "IDENT" in accepted:
            terminal = None
        if terminal is None and self._is_kernel_type(token, name, accepted):
            terminal = "TYPE_NAME"
        if terminal is not None and terminal in accepted:
            yield _like(token, terminal, name)
            for _ in stars:
                yield _like(token, "STAR", "*")
            if after:
                yield _like(token, "IDENT", after)
        elif self.module and self.before in ("STRUCT", "ENUM"):
            yield from self._tagged(token)
        elif token.type == "PSPEC":
            yield _like(token, "PSPEC", expand_text(str(token), span_of(token), self.macros, self.uses))
        elif name in MEANINGLESS or (terminal is not None and terminal not in ("TYPE_NAME", "BASE_TYPE")):
            raise _reserved(name, span_of(token))
        elif terminal is None and token.type == "TYPE_NAME" and "IDENT" in accepted:
            yield _like(token, "IDENT", name)
        elif terminal is None and token.type == "TYPE_NAME":
            raise refuse("D_SYNTAX", span_of(token), f"{name} is not a type", did_you_mean(name, self.typedefs))
        else:
            yield token

    def _names_member(self, accepted: Container[str]) -> bool:
        """Tell whether a word of D's own names a member of a struct, or a struct, as any other word does in C."""
        if self.before in ("STRUCT", "ENUM"):
            return True
        if "IDENT" not in accepted or "INT" in accepted:
            return False  # an expression
        words = frozenset(self.parser.accepts())
        if self.struct_braces:
            return self.before in _BEFORE_DECLARED and "IDENT" in words
        return words in (_MEMBER, _MEMBER_OF_TRANSLATOR)

    def _tagged(self, token: Token) -> Iterator[Token]:
        """Yield a tag, with the module that it belongs to."""
        yield _like(token, token.type, f"{self.module}`{token}") if self.module else token
        self.module = ""

    def _is_kernel_type(self, token: Token, name: str, accepted: Container[str]) -> bool:
        """Tell whether a word that the script does not define as a type names one of the kernel's."""
        if "TYPE_NAME" not in accepted or self.before in _BEFORE_MEMBER or not _WORD.fullmatch(name):
            return False
        if token.type == "PSPEC" or "INT" in accepted:
            # A probe description or an expression may stand here too: what follows decides.
            starred = token.type == "PSPEC" and name != token
            if not starred and _AFTER_TYPE.match(self.text, token.end_pos or 0) is None:
                return False
        elif self.before in _BEFORE_NAME and "IDENT" in accepted:
            return False
        return self.kernel.is_type(name) and not self._assigned(name)

    def _assigned(self, name: str) -> bool:
        """Tell whether the script uses a word as a variable somewhere."""
        use = rf"(?<![\w`>.]){name}\s*(?:\+\+|--|\[|(?:[-+*/%&|^]|<<|>>)?=(?!=))"
        return re.search(use, self.text) is not None

    def _scoped(self, token: Token) -> Iterator[Token]:
        """Rename ``module`type``, the ``struct`` of ``module`struct tag``, or a symbol."""
        accepted = self.parser.choices()
        module, _, name = str(token).partition("`")
        terminal = KEYWORDS.get(name)
        if module and terminal in ("STRUCT", "ENUM") and terminal in accepted:
            self.module = module
            yield _like(token, terminal, name)
        elif module and "TYPE_NAME" in accepted and self.before not in _BEFORE_MEMBER and self.kernel.is_type(token):
            yield _like(token, "TYPE_NAME", str(token))
        elif token.type == "PSPEC":
            yield from self._word(token)
        elif "SYMBOL" in accepted:
            yield _like(token, "SYMBOL", str(token))
        else:
            raise refuse("D_TYPE_ERR", span_of(token), f"unknown type {token}", self.kernel.lacking)


def _like(token: Token, terminal: str, text: str) -> Token:
    """Make another token in the same place."""
    return Token.new_borrow_pos(terminal, text, token)


def _reserved(word: str, span: Span) -> Refusal:
    if word in MEANINGLESS:
        lacking = MEANINGLESS[word]
        return refuse("D_SYNTAX", span, f"{word} has no meaning: D has {lacking}", _INSTEAD.get(lacking, ""))
    return refuse("D_SYNTAX", span, f"{word} cannot stand here")


def _unexpected(token: Token, text: str, accepted: set[str]) -> Refusal:
    """Make the fault for a token that cannot stand where it does.

    ``accepted``: the terminals that could have stood there.
    """
    if token.type == _END:
        end = len(text.rstrip())
        return refuse("D_SYNTAX", Span(end, end), "script ends too early", *_missing(accepted))
    span = span_of(token)
    word = text[span.start : span.end]
    return refuse("D_SYNTAX", span, f"syntax error near {_quoted(word)}", *_missing(accepted, word))


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


def _roots(item: ast.TopLevel) -> list[ast.Node]:
    match item:
        case ast.ClauseDef():
            return [item]
        case ast.InlineDecl():
            return [item.value]
        case ast.TranslatorDecl():
            return [m.value for m in item.members]
        case ast.Declaration() | ast.ProviderDecl():
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
