"""The parser's tables as text, and where they come from.

grammar/tables.txt says which grammar it was made from. Where that is no longer the grammar that is there, the
tables are made anew for this run, by Lark; ``python -m probekit.lang.maketables`` writes the file.

    probekit tables 1 2906145132
    terminal 0 pattern IDENT "[a-zA-Z_][0-9a-zA-Z_]*"
    rule cond 5 conditional inline 0,2,4 0
    row 12:34 15:-7 ...
"""

from __future__ import annotations

from binascii import crc32
from functools import lru_cache

from probekit.lang.lalr import Rule, Tables, Terminal
from probekit.resources import data_dir

__all__ = ("GRAMMAR_FILES", "TABLES_FILE", "as_text", "from_text", "load_grammar", "load_tables")

GRAMMAR_FILES = ("lexical.lark", "types.lark", "expr.lark", "d.lark")
"""Read in this order and joined: one namespace, so that rules keep their names."""

TABLES_FILE = "tables.txt"

_VERSION = 1


def load_grammar() -> str:
    """The whole grammar as text."""
    folder = data_dir("grammar")
    return "\n".join(folder.joinpath(name).read_text("utf-8") for name in GRAMMAR_FILES)


@lru_cache(maxsize=1)
def load_tables() -> Tables:
    """The tables of the grammar that is there."""
    grammar = load_grammar()
    try:
        text = data_dir("grammar").joinpath(TABLES_FILE).read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        text = ""
    if text.partition("\n")[0] == _head(grammar):
        return from_text(text)
    from probekit.lang.maketables import make_tables

    return make_tables(grammar)


def _head(grammar: str) -> str:
    return f"probekit tables {_VERSION} {crc32(grammar.encode())}"


def as_text(tables: Tables, grammar: str) -> str:
    """The file's content."""
    lines = [_head(grammar), f"states {tables.start} {tables.accept} {' '.join(map(str, tables.states))}"]
    lines.append(f"ignored {tables.ignored}")
    lines.append(f"symbols {' '.join(tables.symbols)}")
    for t in tables.terminals:
        lines.append(f"terminal {t.priority} {'pattern' if t.is_pattern else 'string'} {t.name} {t.text}")
    for r in tables.rules:
        kept = "all" if r.kept is None else ",".join(f"{i}{'+' * joined}{'n' * nones}" for i, joined, nones in r.kept)
        lines.append(
            f"rule {r.origin} {r.size} {r.method or '-'} {'inline' if r.inline else '-'} {kept or '-'} {r.nones}"
        )
    lines.extend(f"row {row}" for row in tables.rows)
    return "\n".join(lines) + "\n"


def from_text(text: str) -> Tables:
    """The tables of a file, whose first line has been looked at."""
    parts: dict[str, list[str]] = {}
    for line in text.split("\n")[1:]:
        kind, _, rest = line.partition(" ")
        parts.setdefault(kind, []).append(rest)
    start, accept, *states = map(int, parts["states"][0].split())
    return Tables(
        terminals=tuple(_terminal(line) for line in parts["terminal"]),
        rules=tuple(_rule(line) for line in parts["rule"]),
        symbols=tuple(parts["symbols"][0].split()),
        rows=list(parts["row"]),
        states=tuple(states),
        start=start,
        accept=accept,
        ignored=parts["ignored"][0],
    )


def _terminal(line: str) -> Terminal:
    priority, kind, name, text = line.split(" ", 3)
    return Terminal(name, int(priority), kind == "pattern", text)


def _rule(line: str) -> Rule:
    origin, size, method, inline, kept, nones = line.split()
    places = None if kept == "all" else () if kept == "-" else tuple(map(_place, kept.split(",")))
    return Rule(origin, int(size), "" if method == "-" else method, inline == "inline", places, int(nones))


def _place(text: str) -> tuple[int, bool, int]:
    number = text.rstrip("+n")
    return int(number), "+" in text, text.count("n")
