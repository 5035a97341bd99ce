"""Replace macro variables: ``$1`` and ``$$1``, ``$pid``, ``$target`` and others.

``$name`` stands for an integer, ``$1`` for the token that the argument spells (an integer, a word, a quoted
string), and ``$$1`` for the argument as a string. In a probe description they are replaced as text.

    probekit -n 'BEGIN /$target/ { trace($$1); }' hello
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from probekit.lang.diagnostics import Diagnostic, did_you_mean, refuse
from probekit.lang.source import NOWHERE, Span
from probekit.records import fresh, record

__all__ = ("MacroUses", "Macros", "expand_text", "expand_token")

_IN_TEXT = re.compile(r"\$\$?(?:[0-9]+|[a-zA-Z_][0-9a-zA-Z_]*)")
_INTEGER = re.compile(r"[-+]?[0-9]\w*")
_LONGEST = 72  # characters of an integer; no 64-bit integer needs more
_WORD = re.compile(r"[a-zA-Z_][0-9a-zA-Z_]*")


@record
class Macros:
    """The values of macro variables."""

    args: tuple[str, ...] = ()
    """The script's arguments; the first is ``$0``."""
    values: Mapping[str, int] = fresh(dict)
    """``pid`` ... ``target``, without the dollar sign."""
    default_args: bool = False
    """The option ``defaultargs``: an argument that was not given is 0 or ""."""
    unused: bool = False
    """The option ``argref``: an argument that the script never uses is no fault."""


class MacroUses:
    """Records which arguments a script refers to."""

    def __init__(self) -> None:
        self.used: set[int] = set()
        self.first_default: int | None = None
        """The offset of the first argument that was not given, for which the option ``defaultargs`` had a value."""

    def unused(self, macros: Macros) -> list[Diagnostic]:
        """Return a fault for each argument that the script never uses, except ``$0``."""
        if macros.default_args or macros.unused:
            return []
        return [
            Diagnostic("D_MACRO_UNUSED", NOWHERE, f"extraneous argument '{arg}' (${i} is not referenced)")
            for i, arg in enumerate(macros.args)
            if i and i not in self.used
        ]


def expand_token(text: str, span: Span, macros: Macros, uses: MacroUses) -> list[tuple[str, str]]:
    """Return the tokens (terminal, text) that a macro variable stands for. Raises :class:`Refusal`."""
    value = _value(text, span, macros, uses)
    if text.startswith("$$"):
        return [("STRING", _quoted(value))]
    if _INTEGER.fullmatch(value):
        if len(value) > _LONGEST or (value.lstrip("+-").isdecimal() and int(value.lstrip("+-")) >> 64):
            raise refuse("D_MACRO_OFLOW", span, f"{text} stands for an integer that does not fit in 64 bits")
        signs = {"-": [("MINUS", "-")], "+": []}.get(value[0], [])
        return [*signs, ("INT", value.lstrip("+-"))]
    if _WORD.fullmatch(value):
        return [("IDENT", value)]
    if len(value) > 1 and value.startswith('"') and value.endswith('"'):
        value = value[1:-1]
    return [("STRING", _quoted(value))]


_BARE = re.compile(r'\\.|[\n"\\]', re.DOTALL)


def _quoted(value: str) -> str:
    """Write an argument as a string constant: escapes in it stay, and what would end the constant is escaped."""
    return f'"{_BARE.sub(lambda m: m[0] if len(m[0]) > 1 and m[0][1] != chr(10) else _ESCAPES[m[0][-1]], value)}"'


_ESCAPES = {"\n": "\\n", '"': '\\"', "\\": "\\\\"}


def expand_text(text: str, span: Span, macros: Macros, uses: MacroUses) -> str:
    """Replace the macro variables in a probe description. Raises :class:`Refusal`."""
    return _IN_TEXT.sub(lambda m: _value(m[0], span, macros, uses), text) if "$" in text else text


def _value(text: str, span: Span, macros: Macros, uses: MacroUses) -> str:
    name = text.lstrip("$")
    if name.isdecimal():
        number = int(name[:9])
        if number < len(macros.args):
            uses.used.add(number)
            return macros.args[number]
        if not macros.default_args:
            raise refuse("D_MACRO_UNDEF", span, f"macro argument {text} is not defined")
        uses.first_default = span.start if uses.first_default is None else min(uses.first_default, span.start)
        return "" if text.startswith("$$") else "0"
    if name not in macros.values:
        raise refuse("D_MACRO_UNDEF", span, f"macro variable {text} is not defined", did_you_mean(name, macros.values))
    return str(macros.values[name])
