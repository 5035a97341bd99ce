"""Compute what D's subroutines on strings and paths give: pure functions on bytes.

cleanpath(b"/a//b/../c")   ->  b"/a/c"
substr(b"abcdef", -3, 2)   ->  b"de"
"""

from __future__ import annotations

import re

from probekit.errors import InternalError

__all__ = ("basename", "cleanpath", "dirname", "index", "lltostr", "rindex", "strtok", "strtoll", "substr")


def basename(path: bytes) -> bytes:
    """Return what basename(3) does: trailing slashes do not count."""
    if not path:
        return b"."
    stripped = path.rstrip(b"/")
    return stripped.rpartition(b"/")[2] if stripped else b"/"


def dirname(path: bytes) -> bytes:
    """Return what dirname(3) does."""
    stripped = path.rstrip(b"/")
    if not stripped:
        return b"/" if path else b"."
    head, slash, _ = stripped.rpartition(b"/")
    if not slash:
        return b"."
    return head.rstrip(b"/") or b"/"


def cleanpath(path: bytes) -> bytes:
    """Take out ``//``, ``/./`` and ``/../``, without looking at any file system. A trailing ``/.`` stays."""
    out = bytearray()
    at = 0
    while at < len(path):
        if path[at] != 0x2F:
            out.append(path[at])
            at += 1
        elif path.startswith((b"//", b"/./"), at):
            at += 1 if path[at + 1] == 0x2F else 2
        elif path.startswith(b"/../", at) or path[at:] == b"/..":
            del out[max(out.rfind(b"/"), 0) :]
            at += 3
            if at == len(path):
                out += b"/"
        else:
            out.append(0x2F)
            at += 1
    return bytes(out)


def index(text: bytes, part: bytes, start: int = 0) -> int:
    """Return the first place of ``part`` from ``start`` on, -1 when there is none."""
    return text.find(part, min(max(start, 0), len(text)))


def rindex(text: bytes, part: bytes, start: int | None = None) -> int:
    """Return the last place of ``part`` at or before ``start``, -1 when there is none."""
    if start is None:
        return text.rfind(part)
    if start < 0:
        return -1 if part else 0
    return text.rfind(part, 0, start + len(part))


def substr(text: bytes, start: int, length: int | None = None) -> bytes:
    """Return the part from ``start`` on.

    A negative ``start`` counts from the end; where that is before the string, the bytes before it count too. A negative
    ``length`` leaves out as many bytes at the end. None: up to the end.
    """
    size = len(text)
    left = size + max(-start, 0) if length is None else length
    if start < 0:
        start += size
        if start < 0 < start + left:
            left += start
            start = 0
    if start >= size or start < 0:
        return b""
    if left < 0:
        left += size - start
    return text[start : start + left] if left > 0 else b""


_DIGITS = b"0123456789abcdefghijklmnopqrstuvwxyz"


def lltostr(value: int, base: int) -> bytes:
    """Return a number in a base of 2 to 36. Only base 10 is signed; bases 8 and 16 have the prefixes of C."""
    number = abs(value) if base == 10 else value & ((1 << 64) - 1)
    out = bytearray()
    while number:
        number, digit = divmod(number, base)
        out.append(_DIGITS[digit])
    out.reverse()
    if base == 16:
        return b"0x" + (bytes(out) or b"0")
    if base == 8:
        return b"0" + bytes(out)
    return (b"-" if base == 10 and value < 0 else b"") + (bytes(out) or b"0")


_NUMBER = re.compile(rb"[ \t\n\v\f\r]*([-+]?)([0-9a-zA-Z]*)")


def strtoll(text: bytes, base: int) -> int:
    """Return what strtoll(3) does for a base of 2 to 36: the first character that is no digit ends the number."""
    found = _NUMBER.match(text)
    if found is None:
        raise InternalError("the pattern of a number, which matches any string, did not match")
    digits = found[2].lower()
    if base == 16 and digits.startswith(b"0x"):
        digits = digits[2:]
    number = 0
    for byte in digits:
        digit = _DIGITS.index(byte)
        if digit >= base:
            break
        number = number * base + digit
    number = min(number, (1 << 63) - 1 + (found[1] == b"-"))
    return -number if found[1] == b"-" else number


def strtok(text: bytes, delimiters: bytes) -> tuple[bytes, bytes | None] | None:
    """Return the first token and what follows it (None: nothing follows), or None when there is no token."""
    start = next((i for i, byte in enumerate(text) if byte not in delimiters), None)
    if start is None:
        return None
    end = next((i for i in range(start, len(text)) if text[i] in delimiters), None)
    if end is None:
        return text[start:], None
    return text[start:end], text[end + 1 :]
