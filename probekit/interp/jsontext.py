"""``json(text, "a.b[2].c")``: one value out of a JSON text, as written (strings without their quotes).

jsontext.find(b'{"a": [1, {"b": "x"}]}', b"a[1].b")   ->  b"x"
"""

from __future__ import annotations

import re

__all__ = ("find",)

_STEP = re.compile(rb"\.?([^.\[\]]+)|\[([0-9]{1,9})\]")
_SPACE = re.compile(rb"[ \t\r\n]*")
_PLAIN = re.compile(rb"[-+0-9.eE]+|true|false|null")
_STRING = re.compile(rb'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_DEEPEST = 64


def find(text: bytes, path: bytes) -> bytes:
    """The value at ``path``; empty when there is none or the text is no JSON up to there."""
    at = 0
    done = 0
    while done < len(path):
        step = _STEP.match(path, done)
        if step is None:
            return b""
        done = step.end()
        found = _member(text, at, step[1]) if step[1] is not None else _element(text, at, int(step[2]))
        if found is None:
            return b""
        at = found
    at = _skip(text, at)
    end = _end(text, at)
    if end is None or not path:
        return b""
    return text[at + 1 : end - 1] if text[at : at + 1] == b'"' else text[at:end]


def _skip(text: bytes, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found is not None else at


def _end(text: bytes, at: int) -> int | None:
    """Where the value that starts at ``at`` ends; brackets are only counted, strings are seen as such."""
    opening = text[at : at + 1]
    if opening == b'"':
        found = _STRING.match(text, at)
        return found.end() if found is not None else None
    if opening not in (b"{", b"["):
        found = _PLAIN.match(text, at)
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
        if depth > _DEEPEST:
            return None
    return None


def _member(text: bytes, at: int, name: bytes) -> int | None:
    at = _skip(text, at)
    if text[at : at + 1] != b"{":
        return None
    at = _skip(text, at + 1)
    while (key := _STRING.match(text, at)) is not None:
        at = _skip(text, key.end())
        if text[at : at + 1] != b":":
            return None
        at = _skip(text, at + 1)
        if key[1] == name:
            return at
        end = _end(text, at)
        if end is None:
            return None
        at = _skip(text, end)
        if text[at : at + 1] != b",":
            return None
        at = _skip(text, at + 1)
    return None


def _element(text: bytes, at: int, number: int) -> int | None:
    at = _skip(text, at)
    if text[at : at + 1] != b"[":
        return None
    at = _skip(text, at + 1)
    for _ in range(number):
        end = _end(text, at)
        if end is None:
            return None
        at = _skip(text, end)
        if text[at : at + 1] != b",":
            return None
        at = _skip(text, at + 1)
    return at if text[at : at + 1] not in (b"]", b"") else None
