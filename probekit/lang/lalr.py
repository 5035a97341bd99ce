"""A parser driven by tables: LALR(1), with a lexer that offers only what the parser's state accepts.

Lark makes the tables from grammar/*.lark (:mod:`maketables`), and they lie beside it as text; so a program is
parsed without importing Lark, which takes longer than everything else. What the tables say:

    terminals   in the order in which they are tried; a string, or a pattern
    rules       their size, which of the children are kept, and the builder's method that takes them
    rows        for each state what each symbol leads to: shift to a state (n), reduce by a rule (-n - 1)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from probekit.records import record

__all__ = ("END", "Machine", "Rule", "Tables", "Terminal", "Token", "UnexpectedCharacter", "UnexpectedToken")

END = "$END"

Row = dict[str, int]


class Token(str):
    """A terminal as it stands in the text. ``type``: its name; it lies from ``start`` to ``end``."""

    __slots__ = ("end", "start", "type")
    type: str
    start: int
    end: int

    def __new__(cls, type_: str, text: str, start: int, end: int) -> Token:
        """A token."""
        made = super().__new__(cls, text)
        made.type, made.start, made.end = type_, start, end
        return made

    def like(self, type_: str, text: str) -> Token:
        """Another token in the same place."""
        return Token(type_, text, self.start, self.end)


@record
class Terminal:
    """``text``: what it is, or a pattern of it. Terminals of one ``priority`` may rename one another."""

    name: str
    priority: int
    is_pattern: bool
    text: str


@record
class Rule:
    """``method``: of the builder, "" for a list of children. ``inline``: a single child stands for the whole.

    ``kept``: None for all children, else (place, whether it is a list to be joined, how many None before it);
    ``nones``: how many None behind them.
    """

    origin: str
    size: int
    method: str
    inline: bool
    kept: tuple[tuple[int, bool, int], ...] | None
    nones: int


class UnexpectedToken(Exception):
    """A token that cannot stand where it does."""

    def __init__(self, token: Token) -> None:
        super().__init__(token)
        self.token = token


class UnexpectedCharacter(Exception):
    """A character that begins no token. ``at``: where."""

    def __init__(self, at: int) -> None:
        super().__init__(at)
        self.at = at


_Try = tuple[str, str, "re.Pattern[str] | None", dict[str, str]]
"""A terminal to be tried: its name, its text or else its pattern, and what text of it is another terminal."""


@dataclass(slots=True)
class Tables:
    """See the module. ``start``, ``accept``: the first state and the last; ``ignored``: terminals between tokens.

    ``rows``: each as text until a state is entered; ``states``: the row of each.
    """

    terminals: tuple[Terminal, ...]
    rules: tuple[Rule, ...]
    symbols: tuple[str, ...]
    rows: list[str | Row]
    states: tuple[int, ...]
    start: int
    accept: int
    ignored: str
    _tries: dict[tuple[int, str], tuple[_Try, ...]] = field(default_factory=dict)
    _patterns: dict[str, re.Pattern[str]] = field(default_factory=dict)

    def row(self, state: int) -> Row:
        """What each symbol leads to."""
        found = self.rows[self.states[state]]
        if isinstance(found, str):
            pairs = (pair.split(":") for pair in found.split())
            found = self.rows[self.states[state]] = {self.symbols[int(s)]: int(n) for s, n in pairs}
        return found

    def pattern(self, text: str) -> re.Pattern[str]:
        """A pattern, compiled when it is first tried."""
        found = self._patterns.get(text)
        if found is None:
            found = self._patterns[text] = re.compile(text)
        return found

    def tries(self, state: int, first: str) -> tuple[_Try, ...]:
        """The terminals that may begin with a character in a state, in order. State -1: any terminal."""
        key = (self.states[state] if state >= 0 else -1, first)
        found = self._tries.get(key)
        if found is None:
            accepted = [t for t in self.terminals if state < 0 or t.name in self.row(state)]
            found = self._tries[key] = tuple(self._try(t, accepted) for t in accepted if _may_begin(t, first))
        return found

    def _try(self, terminal: Terminal, accepted: list[Terminal]) -> _Try:
        if not terminal.is_pattern:
            return terminal.name, terminal.text, None, {}
        pattern = self.pattern(terminal.text)
        others = {
            t.text: t.name
            for t in accepted
            if not t.is_pattern and t.priority == terminal.priority and _is_all(pattern, t.text)
        }
        return terminal.name, "", pattern, others


def _is_all(pattern: re.Pattern[str], text: str) -> bool:
    found = pattern.match(text)
    return found is not None and found[0] == text


_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_"
_DIGITS = "0123456789"
_FIRST: dict[str, frozenset[str]] = {
    "IDENT": frozenset(_LETTERS),
    "TYPE_NAME": frozenset(_LETTERS),
    "SYMBOL": frozenset(_LETTERS + "`"),
    "PSPEC": frozenset(_LETTERS + _DIGITS + "-$:.?*\\[]!`"),
    "INT": frozenset(_DIGITS),
    "FLOAT": frozenset(_DIGITS + "."),
    "MACRO": frozenset("$"),
    "AGG": frozenset("@"),
    "STRING": frozenset('"'),
    "CHAR": frozenset("'"),
    "PRED_END": frozenset("/"),
    "ASSIGN_OP": frozenset("+-*/%<>&|^="),
    "INCR": frozenset("+-"),
    "EQUALITY": frozenset("=!"),
    "SHIFT": frozenset("<>"),
}
"""What a terminal may begin with; one that is not here is always tried."""


def _may_begin(terminal: Terminal, first: str) -> bool:
    if not terminal.is_pattern:
        return terminal.text.startswith(first)
    known = _FIRST.get(terminal.name)
    return known is None or first in known


@dataclass(slots=True)
class Machine:
    """One parse of ``text``. ``methods``: for each rule what makes its node, None for a plain list."""

    tables: Tables
    text: str
    methods: tuple[Callable[[list[Any]], Any] | None, ...]
    states: list[int] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Begin at the start."""
        self.states.append(self.tables.start)

    def tokens(self) -> Iterator[Token]:
        """The tokens, each read in the state that the parser is in when it is asked for."""
        text, tables = self.text, self.tables
        blank = tables.pattern(tables.ignored)
        at = 0
        while True:
            if (found := blank.match(text, at)) is not None:
                at = found.end()
            if at >= len(text):
                return
            token = self._read(at, self.states[-1])
            if token is None:
                other = self._read(at, -1)
                raise UnexpectedCharacter(at) if other is None else UnexpectedToken(other)
            at = token.end
            yield token

    def _read(self, at: int, state: int) -> Token | None:
        text = self.text
        for name, literal, pattern, others in self.tables.tries(state, text[at]):
            if pattern is None:
                if text.startswith(literal, at):
                    return Token(name, literal, at, at + len(literal))
            elif (found := pattern.match(text, at)) is not None:
                value = found[0]
                return Token(others.get(value, name), value, at, found.end())
        return None

    def choices(self) -> Row:
        """What the state knows; the names in capitals are terminals."""
        return self.tables.row(self.states[-1])

    def accepts(self) -> set[str]:
        """The terminals that may come next."""
        return {name for name in self.choices() if name.isupper() and self._would_shift(name)}

    def _would_shift(self, name: str) -> bool:
        states = list(self.states)
        while True:
            action = self.tables.row(states[-1]).get(name)
            if action is None:
                return False
            if action >= 0:
                return True
            rule = self.tables.rules[-action - 1]
            del states[len(states) - rule.size :]
            states.append(self.tables.row(states[-1])[rule.origin])
            if name == END and states[-1] == self.tables.accept:
                return True

    def feed(self, token: Token) -> Any:
        """Take one token. Raises :class:`UnexpectedToken`. Of :data:`END`: the value of the whole."""
        states, values, tables = self.states, self.values, self.tables
        name = token.type
        while True:
            action = tables.row(states[-1]).get(name)
            if action is None:
                raise UnexpectedToken(token)
            if action >= 0:
                states.append(action)
                values.append(token)
                return None
            number = -action - 1
            rule = tables.rules[number]
            cut = len(values) - rule.size
            children = values[cut:]
            del states[len(states) - rule.size :], values[cut:]
            values.append(_reduce(rule, self.methods[number], children))
            states.append(tables.row(states[-1])[rule.origin])
            if name == END and states[-1] == tables.accept:
                return values[-1]


def _reduce(rule: Rule, method: Callable[[list[Any]], Any] | None, children: list[Any]) -> Any:
    if rule.kept is not None:
        kept: list[Any] = []
        for place, joined, nones in rule.kept:
            if nones:
                kept += [None] * nones
            if not joined:
                kept.append(children[place])
            elif kept:
                kept += children[place]
            else:
                kept = children[place]  # a list that grows to the right: not copied at each step
        children = kept + [None] * rule.nones if rule.nones else kept
    if rule.inline and len(children) == 1:
        return children[0]
    return children if method is None else method(children)
