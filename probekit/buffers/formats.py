"""``printf()`` format strings, parsed once at compile time and rendered by the consumer.

"%-5d|%s\\n"   ->   Conversion("-", 5, None, "", "d"), "|", Conversion("", None, None, "", "s"), "\\n"
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ("MAX_WIDTH", "Conversion", "Format", "FormatError", "parse_format")

MAX_WIDTH = 4096
"""The largest width or precision that a format may ask for."""

_POINTER_WIDTH = 16


@dataclass(frozen=True, slots=True)
class Conversion:
    """One ``%`` conversion. ``flags``: of ``#0-+ '@``; ``width``/``precision``: None unless given.

    ``letter``: the verb. ``star_width``/``star_precision``: taken from an argument. The width ``?`` is a pointer's
    (16). ``length``: ``h hh l ll L w`` as written (no effect: the argument's own type decides).
    """

    flags: str
    width: int | None
    precision: int | None
    length: str
    letter: str
    star_width: bool = False
    star_precision: bool = False


@dataclass(frozen=True, slots=True)
class Format:
    """A parsed format. ``parts``: literal text and conversions in order; ``text``: as written."""

    text: str
    parts: tuple[str | Conversion, ...]

    @property
    def conversions(self) -> tuple[Conversion, ...]:
        """The conversions alone."""
        return tuple(part for part in self.parts if isinstance(part, Conversion))


class FormatError(ValueError):
    """A format string that means nothing. ``offset``: where in it."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.offset = offset


_CONVERSION = re.compile(
    r"%(?P<flags>[#0\-+ '@]*)(?P<position>[0-9]+\$)?(?P<late>[#0\-+ '@]*)"
    r"(?P<width>[0-9]+|\*|\?)?(?:\.(?P<precision>[0-9]+|\*|))?"
    r"(?P<length>hh|h|ll|l|L|w)?(?P<letter>[A-Za-z%])"
)


def parse_format(text: str) -> Format:
    """Read a format string. Raises :class:`FormatError`; which letters and types fit is the compiler's affair."""
    parts: list[str | Conversion] = []
    literal: list[str] = []
    done = 0
    while (at := text.find("%", done)) >= 0:
        literal.append(text[done:at])
        found = _CONVERSION.match(text, at)
        if found is None:
            raise FormatError(f"{text[at : at + 8]!r} is not a conversion", at)
        done = found.end()
        if found["letter"] == "%":
            literal.append("%")
            continue
        if joined := "".join(literal):
            parts.append(joined)
        literal = []
        parts.append(_conversion(found))
    literal.append(text[done:])
    if joined := "".join(literal):
        parts.append(joined)
    return Format(text, tuple(parts))


def _conversion(found: re.Match[str]) -> Conversion:
    if found["position"]:
        raise FormatError(f"{found[0]!r}: positional arguments are not implemented yet", found.start())
    width, precision = found["width"], found["precision"]
    return Conversion(
        flags=found["flags"] + found["late"],
        width=_POINTER_WIDTH if width == "?" else None if width in (None, "*") else _number(width, found),
        precision=None if precision in (None, "*") else _number(precision or "0", found),
        length=found["length"] or "",
        letter=found["letter"],
        star_width=width == "*",
        star_precision=precision == "*",
    )


def _number(digits: str, found: re.Match[str]) -> int:
    if len(digits) > 9 or int(digits) > MAX_WIDTH:
        raise FormatError(f"{found[0][:24]!r}: width or precision above {MAX_WIDTH}", found.start())
    return int(digits)
