"""Evaluate constants as D writes them.

0x1fUL      31, unsigned long         '\\n'   10        'ab'  0x6162
"a\\tb"     b"a<tab>b"
"""

from __future__ import annotations

import re

from probekit.lang.diagnostics import refuse
from probekit.lang.source import Span
from probekit.lang.types import IntType, literal_type

__all__ = ("char_value", "integer_value", "string_value")

_INTEGER = re.compile(r"(?:0[xX](?P<hex>[0-9a-fA-F]+)|(?P<oct>0[0-9]*)|(?P<dec>[1-9][0-9]*))(?P<suffix>[uU]?[lL]{0,2})")
_ESCAPE = re.compile(r"\\(?:(?P<oct>[0-7]{1,3})|x(?P<hex>[0-9a-fA-F]{1,2})|(?P<char>.))", re.DOTALL)
_NAMED = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "0": 0}
# No type holds more digits than these. Converting a million of them would take quadratic time.
_LONGEST_INTEGER = 72


def integer_value(text: str, span: Span) -> tuple[int, IntType]:
    """Return the value and type of an integer constant. Raises :class:`Refusal`."""
    if len(text) > _LONGEST_INTEGER:
        raise refuse("D_INT_OFLOW", span, "integer constant is too large")
    found = _INTEGER.fullmatch(text)
    if found is None:
        raise refuse("D_SYNTAX", span, f"{text} is not an integer constant")
    if any(digit in "89" for digit in found["oct"] or ""):
        raise refuse("D_INT_DIGIT", span, f"octal constant {text} has a digit that is none")
    digits, base = next((found[k], b) for k, b in (("hex", 16), ("oct", 8), ("dec", 10)) if found[k] is not None)
    value = int(digits, base)
    suffix = found["suffix"].lower()
    t = literal_type(value, decimal=base == 10, unsigned="u" in suffix, longs=suffix.count("l"))
    if t is None:
        raise refuse("D_INT_OFLOW", span, f"integer constant {text} does not fit in 64 bits")
    return value, t


def string_value(text: str, span: Span) -> bytes:
    """Return the bytes of a string constant, up to its first NUL. ``text`` has its quotes."""
    return _unescape(text[1:-1], span).split(b"\0", 1)[0]


def char_value(text: str, span: Span) -> int:
    """Return the value of a character constant of up to eight bytes; the first byte is the highest.

    ``text`` has its quotes. Raises :class:`Refusal`.
    """
    data = _unescape(text[1:-1], span)
    if not data:
        raise refuse("D_CHR_NULL", span, "empty character constant")
    if len(data) > 8:
        raise refuse("D_CHR_OFLOW", span, "character constant is longer than eight bytes")
    return int.from_bytes(data, "big", signed=len(data) == 8)


def _unescape(text: str, span: Span) -> bytes:
    out = bytearray()
    done = 0
    for found in _ESCAPE.finditer(text):
        out += _encode(text[done : found.start()], span)
        done = found.end()
        if found["oct"] is not None:
            out.append(int(found["oct"], 8) & 0xFF)
        elif found["hex"] is not None:
            out.append(int(found["hex"], 16))
        else:
            named = _NAMED.get(found["char"])
            out += _encode(found["char"], span) if named is None else bytes((named,))
    out += _encode(text[done:], span)
    return bytes(out)


def _encode(text: str, span: Span) -> bytes:
    # Bytes of a script that are not valid UTF-8 arrive as surrogates. They are written as they were.
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise refuse("D_SYNTAX", span, "constant holds a character that no encoding has") from error
