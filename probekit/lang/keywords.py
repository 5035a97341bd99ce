"""List the words that are not identifiers: keywords and type names.

The lexer reads every word as IDENT, PSPEC or TYPE_NAME. The parser then renames the token to the terminal that
:func:`terminal_of` returns.
"""

from __future__ import annotations

from collections.abc import Container

__all__ = ("BASE_TYPES", "D_WORDS", "KEYWORDS", "MEANINGLESS", "terminal_of")

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
"""The terminal of each keyword."""

MEANINGLESS: dict[str, str] = {
    "import": "no import",
    "counter": "no counters",
    "break": "no loops",
    "case": "no switch",
    "continue": "no loops",
    "default": "no switch",
    "do": "no loops",
    "for": "no loops",
    "goto": "no goto",
    "return": "no return",
    "switch": "no switch",
    "while": "no loops",
}
"""Words that are reserved in D (and C) but mean nothing in D, each with what D lacks."""


D_WORDS = frozenset(
    (
        *("counter", "import", "offsetof", "probe", "provider", "self", "string", "stringof"),
        *("this", "translator", "userland", "xlate"),
    )
)
"""Words that are reserved in D and not in C. The kernel's structs may have members and tags of these names."""


def terminal_of(word: str, typedefs: Container[str]) -> str | None:
    """Return the terminal that a word really is, or None for an ordinary identifier."""
    return KEYWORDS.get(word) or ("TYPE_NAME" if word in typedefs else None)
