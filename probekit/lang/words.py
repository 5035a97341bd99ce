"""Words that are not identifiers: keywords, type names, and those kept for later.

The lexer reads every word as IDENT, PSPEC or TYPE_NAME; the parser renames the
token by :func:`terminal_of`.
"""

from __future__ import annotations

from probekit.lang.types import TYPE_NAMES

__all__ = ("BASE_TYPES", "KEYWORDS", "NOT_YET", "NOT_YET_AT_TOP", "terminal_of")

BASE_TYPES = frozenset(
    ("void", "char", "short", "int", "long", "float", "double", "signed", "unsigned", "string", "const", "volatile")
)

KEYWORDS: dict[str, str] = {
    "if": "IF",
    "else": "ELSE",
    "self": "SCOPE",
    "this": "SCOPE",
    "sizeof": "SIZEOF",
    "stringof": "STRINGOF",
    "offsetof": "OFFSETOF",
    "xlate": "XLATE",
    "struct": "STRUCT",
    "union": "STRUCT",
    "enum": "STRUCT",
    **dict.fromkeys(BASE_TYPES, "BASE_TYPE"),
}

NOT_YET_AT_TOP: dict[str, str] = {
    "inline": "inline declarations are",
    "typedef": "typedef declarations are",
    "extern": "extern declarations are",
    "static": "static declarations are",
    "auto": "auto declarations are",
    "register": "register declarations are",
    "translator": "translators are",
    "provider": "provider declarations are",
}
"""Words that start a declaration which has no meaning yet: what to say when one is met."""

NOT_YET: dict[str, str] = {
    **NOT_YET_AT_TOP,
    "userland": "userland types are",
    "import": "import expressions are",
    "counter": "counters are",
    "probe": "probe declarations are",
    "restrict": "restrict types are",
    "break": "loops are",
    "case": "switch statements are",
    "continue": "loops are",
    "default": "switch statements are",
    "do": "loops are",
    "for": "loops are",
    "goto": "goto statements are",
    "return": "return statements are",
    "switch": "switch statements are",
    "while": "loops are",
}
"""Reserved words of D (and of C) with no meaning yet: what to say when one is met."""


def terminal_of(word: str) -> str | None:
    """The terminal that a word really is, or None for an ordinary identifier."""
    return KEYWORDS.get(word) or ("TYPE_NAME" if word in TYPE_NAMES else None)
