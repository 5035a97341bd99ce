"""Words that are not identifiers: keywords and type names.

The lexer reads every word as IDENT, PSPEC or TYPE_NAME; the parser renames the
token by :func:`terminal_of`.
"""

from __future__ import annotations

from collections.abc import Container

__all__ = ("BASE_TYPES", "KEYWORDS", "NOT_YET", "terminal_of")

BASE_TYPES = frozenset(
    ("void", "char", "short", "int", "long", "float", "double", "signed", "unsigned", "string", "userland")
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
    "enum": "ENUM",
    "inline": "INLINE",
    "translator": "TRANSLATOR",
    "provider": "PROVIDER",
    **dict.fromkeys(("typedef", "extern", "static", "auto", "register"), "STORAGE"),
    **dict.fromkeys(("const", "volatile", "restrict"), "QUALIFIER"),
    **dict.fromkeys(BASE_TYPES, "BASE_TYPE"),
}

NOT_YET: dict[str, str] = {
    "import": "import expressions are",
    "counter": "counters are",
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
"""Reserved words of D (and of C) with no meaning in D: what to say when one is met."""


def terminal_of(word: str, typedefs: Container[str]) -> str | None:
    """The terminal that a word really is, or None for an ordinary identifier."""
    return KEYWORDS.get(word) or ("TYPE_NAME" if word in typedefs else None)
