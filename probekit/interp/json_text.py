"""Find one value in a JSON document: ``json(document, "a.b[2].c")``. Strings come without their quotes.

find_value(b'{"a": [1, {"b": "x"}]}', b"a[1].b")   ->  b"x"
"""

from __future__ import annotations

import re

__all__ = ("find_value",)

_PATH_STEP = re.compile(rb"\.?([^.\[\]]+)|\[([0-9]{1,9})\]")
_BLANKS = re.compile(rb"[ \t\r\n]*")
_NUMBER_OR_WORD = re.compile(rb"[-+0-9.eE]+|true|false|null")
_STRING = re.compile(rb'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_MAX_DEPTH = 64


def find_value(text: bytes, path: bytes) -> bytes:
    """Return the value at ``path`` as it is written; empty when there is none, or the text is no JSON up to there."""
    at = 0
    done = 0
    while done < len(path):
        step = _PATH_STEP.match(path, done)
        if step is None:
            return b""
        done = step.end()
        found = _find_member(text, at, step[1]) if step[1] is not None else _find_element(text, at, int(step[2]))
        if found is None:
            return b""
        at = found
    at = _skip_blanks(text, at)
    end = _value_end(text, at)
    if end is None or not path:
        return b""
    return text[at + 1 : end - 1] if text[at : at + 1] == b'"' else text[at:end]


def _skip_blanks(text: bytes, at: int) -> int:
    found = _BLANKS.match(text, at)
    return found.end() if found is not None else at


def _value_end(text: bytes, start: int) -> int | None:
    """Return where the value at ``start`` ends, or None; inside brackets only brackets and strings are looked at."""
    at = start
    opening = text[at : at + 1]
    if opening == b'"':
        found = _STRING.match(text, at)
        return found.end() if found is not None else None
    if opening not in (b"{", b"["):
        found = _NUMBER_OR_WORD.match(text, at)
        return found.end() if found is not None else None
    depth = 0
    while at < len(text):
        byte = text[at : at + 1]
        if byte == b'"':
            found = _STRING.match(text, at)
            if found is None:
                return None
            at = found.end()
            continue
        depth += (byte in b"{[") - (byte in b"}]")
        at += 1
        if depth == 0:
            return at
        if depth > _MAX_DEPTH:
            return None
    return None


def _find_member(text: bytes, at: int, name: bytes) -> int | None:
    """Return where the value of an object's member starts. Names are compared as they are written."""
    at = _skip_blanks(text, at)
    if text[at : at + 1] != b"{":
        return None
    at = _skip_blanks(text, at + 1)
    while (key := _STRING.match(text, at)) is not None:
        at = _skip_blanks(text, key.end())
        if text[at : at + 1] != b":":
            return None
        at = _skip_blanks(text, at + 1)
        if key[1] == name:
            return at
        end = _value_end(text, at)
        if end is None:
            return None
        at = _skip_blanks(text, end)
        if text[at : at + 1] != b",":
            return None
        at = _skip_blanks(text, at + 1)
    return None


def _find_element(text: bytes, at: int, number: int) -> int | None:
    """Return where an array's element starts."""
    at = _skip_blanks(text, at)
    if text[at : at + 1] != b"[":
        return None
    at = _skip_blanks(text, at + 1)
    for _ in range(number):
        end = _value_end(text, at)
        if end is None:
            return None
        at = _skip_blanks(text, end)
        if text[at : at + 1] != b",":
            return None
        at = _skip_blanks(text, at + 1)
    return at if text[at : at + 1] not in (b"]", b"") else None
