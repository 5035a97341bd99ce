"""From grammar/*.lark to the parser's tables, by Lark. As a program: write grammar/tables.txt.

Lark is asked for its finished parser, and what it would do is read off: the order of its terminals, its parse
table, and the little chain of functions that stands between a rule and the tree builder.
"""

from __future__ import annotations

from typing import Any

from lark import Lark
from lark.lexer import PatternStr
from lark.parse_tree_builder import ChildFilter, ExpandSingleChild
from lark.parsers.lalr_analysis import Shift

from probekit.lang.lalr import Rule, Tables, Terminal
from probekit.lang.parse.tree_builder import TreeBuilder
from probekit.lang.tables import TABLES_FILE, as_text, load_grammar
from probekit.resources import data_dir

__all__ = ("make_tables",)


def make_tables(grammar: str) -> Tables:
    """The tables of a grammar. Raises what Lark raises where the grammar is wrong."""
    # The attributes are Lark's own, and untyped.
    lark: Any = Lark(
        grammar,
        parser="lalr",
        lexer="contextual",
        start="start",
        maybe_placeholders=True,
        transformer=TreeBuilder(),
    )
    parser = lark.parser.parser.parser
    table = parser.parse_table
    # Lark numbers as its sets happen to be ordered: here the same grammar makes the same tables.
    rules = sorted(parser.callbacks, key=lambda r: (r.origin.name, [s.name for s in r.expansion]))
    numbers = {rule: -number - 1 for number, rule in enumerate(rules)}
    order = _in_order(table.states, table.start_states["start"])
    places = {state: number for number, state in enumerate(order)}
    symbols = sorted({name for row in table.states.values() for name in row})
    indices = {name: index for index, name in enumerate(symbols)}
    rows: dict[str, int] = {}
    states: list[int] = []
    for state in order:
        pairs = []
        for name, (action, argument) in sorted(table.states[state].items(), key=lambda item: item[0]):
            target = places[argument] if action is Shift else numbers[argument]
            pairs.append(f"{indices[name]}:{target}")
        states.append(rows.setdefault(" ".join(pairs), len(rows)))
    terminals = lark.parser.lexer.root_lexer.terminals
    ignored = [t.pattern.to_regexp() for t in terminals if t.name in lark.ignore_tokens]
    return Tables(
        terminals=tuple(_terminal(t) for t in terminals if t.name not in lark.ignore_tokens),
        rules=tuple(_rule(rule, parser.callbacks[rule]) for rule in rules),
        symbols=tuple(symbols),
        rows=list(rows),
        states=tuple(states),
        start=0,
        accept=places[table.end_states["start"]],
        ignored=_one_line("|".join(ignored)),
    )


def _in_order(states: Any, start: Any) -> list[Any]:
    """The states as they are first reached from the start, symbol by symbol."""
    found = [start]
    seen = {start}
    for state in found:
        for _, (action, argument) in sorted(states[state].items(), key=lambda item: item[0]):
            if action is Shift and argument not in seen:
                seen.add(argument)
                found.append(argument)
    return found


def _terminal(terminal: Any) -> Terminal:
    if isinstance(terminal.pattern, PatternStr):
        return Terminal(terminal.name, terminal.priority, False, terminal.pattern.value)
    return Terminal(terminal.name, terminal.priority, True, _one_line(terminal.pattern.to_regexp()))


def _one_line(pattern: str) -> str:
    """A pattern with its control characters written as escapes, which mean the same to ``re``."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in pattern)


def _rule(rule: Any, callback: Any) -> Rule:
    kept: tuple[tuple[int, bool, int], ...] | None = None
    nones, inline = 0, False
    if isinstance(callback, ChildFilter):
        # Where there are no placeholders Lark leaves their number out.
        kept = tuple((i, bool(joined), sum(added)) for i, joined, *added in callback.to_include)
        nones, callback = getattr(callback, "append_none", 0), callback.node_builder
    if isinstance(callback, ExpandSingleChild):
        inline, callback = True, callback.node_builder
    method = getattr(callback, "__name__", "")
    if not method and not inline and not rule.origin.name.startswith("_"):
        raise ValueError(f"{rule.origin.name} has no method of the tree builder's")
    return Rule(rule.origin.name, len(rule.expansion), method, inline, kept, nones)


if __name__ == "__main__":
    text = load_grammar()
    data_dir("grammar").joinpath(TABLES_FILE).write_text(as_text(make_tables(text), text), "utf-8")
