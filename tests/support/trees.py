"""Dataclass trees as indented text, spans left out.

Binary(op='+', Name('x'), Integer(1))  ->  Binary +
                                             Name x
                                             Integer 1 int
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from probekit.buffers.formats import Format
from probekit.lang.source import Span
from probekit.lang.typed import Var
from probekit.lang.types import IntType, StringType


def format_tree(node: Any) -> str:
    """The whole tree."""
    return "\n".join(_lines(node, "")) + "\n"


def _is_node(value: Any) -> bool:
    return is_dataclass(value) and not isinstance(value, (Span, IntType, StringType, Var, Format, type))


def _lines(node: Any, label: str) -> Iterator[str]:
    words, inner = [], []
    for f in fields(node):
        value = getattr(node, f.name)
        if isinstance(value, Span):
            continue
        if _is_node(value):
            inner.append((f.name, value))
        elif isinstance(value, tuple) and any(_is_node(v) for v in value):
            inner.extend((f.name, v) for v in value)
        elif value is not None:
            words.append(_word(f.name, value))
    yield " ".join([f"{label}{type(node).__name__}", *(w for w in words if w)])
    for name, value in inner:
        shown = f"{name}: " if name in ("cond", "then", "orelse", "predicate", "body", "function") else ""
        yield from (f"  {line}" for line in _lines(value, shown))


def _word(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return name if value else ""
    if isinstance(value, tuple):
        return f"{name}={[_word('', v) for v in value]}" if value else ""
    if isinstance(value, StringType):
        return f"string[{value.size}]"
    if isinstance(value, Format):
        return repr(value.text)
    if isinstance(value, Var):
        return f"{'this->' if value.scope == 'local' else ''}{value.name}"
    return str(value)
