r"""Decodes strings from the guest, which never fails, and escapes them for a terminal or for ``%S``.

decode(b"bash\0garbage")      -> 'bash'
decode(b"\xff!")              -> '\udcff!'     not UTF-8: the byte goes through as it is
escape_controls("\x1b[2J")    -> '\\x1b[2J'    cannot drive the terminal
c_escape("a\tb")              -> 'a\\tb'       what %S prints
padded("\xe9", 3)             -> ' \xe9'       columns count bytes
"""

from __future__ import annotations

import re

__all__ = ("c_escape", "cut", "decode", "escape_controls", "padded", "raw_byte", "spell_surrogates")

# These can control a terminal or reorder a line: C0, DEL, C1, line separators, directional overrides, lone surrogates.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

_SURROGATES = re.compile("[\ud800-\udfff]")
_RAW = 0xDC00  # what "surrogateescape" adds to a byte

_C_ESCAPES = {
    "\0": "\\0",
    "\a": "\\a",
    "\b": "\\b",
    "\t": "\\t",
    "\n": "\\n",
    "\v": "\\v",
    "\f": "\\f",
    "\r": "\\r",
    '"': '\\"',
    "\\": "\\\\",
}


def decode(data: bytes) -> str:
    """Return the text up to the first NUL. Bytes that are not UTF-8 become surrogates; output has the bytes again."""
    return data.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def padded(text: str, width: int, *, left: bool = False) -> str:
    """Return the text in a column of ``width`` bytes, as C's ``%10s`` or (``left``) ``%-10s`` has it."""
    size = len(text) if text.isascii() else len(_SURROGATES.sub("?", text).encode())
    blanks = " " * (width - size)
    return text + blanks if left else blanks + text


def cut(text: str, size: int) -> str:
    """Return the first ``size`` bytes of the text, as C's ``%.10s`` has it. A character may be cut in two."""
    if text.isascii():
        return text[:size]
    return text.encode("utf-8", "surrogateescape")[:size].decode("utf-8", "surrogateescape")


def spell_surrogates(text: str) -> str:
    """Spell out bytes that were not UTF-8, as ``\\xNN``."""
    return _SURROGATES.sub(_spell, text)


def raw_byte(code: int) -> str:
    """Return a character that is written as the byte ``code``."""
    return chr(code) if code < 0x80 else chr(_RAW + code)


def escape_controls(text: str) -> str:
    """Spell out every control character, as ``\\xNN`` or ``\\uNNNN``."""
    return _CONTROLS.sub(_spell, text)


def _spell(match: re.Match[str]) -> str:
    code = ord(match.group())
    if _RAW + 0x80 <= code <= _RAW + 0xFF:
        code -= _RAW
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def c_escape(text: str) -> str:
    """Spell the text as a C string literal does: letters for the usual escapes, octal for the rest."""
    return "".join(_c_char(c) for c in text)


def _c_char(c: str) -> str:
    if c in _C_ESCAPES:
        return _C_ESCAPES[c]
    if " " <= c <= "~":
        return c
    raw = bytes((ord(c) - _RAW,)) if _RAW < ord(c) <= _RAW + 0xFF else c.encode("utf-8", "surrogatepass")
    return "".join(f"\\{byte:03o}" for byte in raw)
