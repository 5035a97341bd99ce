r"""Strings that come from the guest: decoded without ever failing, escaped for a terminal, or as ``%S`` prints them.

decode(b"bash\0garbage")      -> 'bash'
decode(b"\xff!")              -> '\\xff!'      not UTF-8: the byte, spelled out
escape_controls("\x1b[2J")    -> '\\x1b[2J'    cannot drive the terminal
c_escape("a\tb")              -> 'a\\tb'       what %S prints
"""

from __future__ import annotations

import re

__all__ = ("c_escape", "decode", "escape_controls")

# What can drive a terminal or reorder a line: C0, DEL, C1, line separators, directional overrides, lone surrogates.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

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
    """The text up to the first NUL; bytes that are not UTF-8 appear as ``\\xNN``."""
    return data.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")


def escape_controls(text: str) -> str:
    """The text with every control character spelled out, ``\\xNN`` or ``\\uNNNN``."""
    return _CONTROLS.sub(_spell, text)


def _spell(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def c_escape(text: str) -> str:
    """The text as a C string literal would spell it: letters for the usual escapes, octal for the rest."""
    return "".join(_c_char(c) for c in text)


def _c_char(c: str) -> str:
    if c in _C_ESCAPES:
        return _C_ESCAPES[c]
    if " " <= c <= "~":
        return c
    return "".join(f"\\{byte:03o}" for byte in c.encode("utf-8", "surrogatepass"))
