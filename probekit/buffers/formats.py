"""Parse ``printf()`` format strings at compile time. The consumer fills in the values.

"%-5d|%s\\n"   ->   Conversion("-", 5, None, "", "d"), "|", Conversion("", None, None, "", "s"), "\\n"
"""

from __future__ import annotations

from probekit.records import record

__all__ = ("MAX_WIDTH", "Conversion", "Format", "PrintfFormatError", "parse_format")

MAX_WIDTH = 4096
"""The largest width or precision that a format may have."""

_POINTER_WIDTH = 16


@record
class Conversion:
    """One ``%`` conversion of a format."""

    flags: str
    """The flags that hold, each one of ``#0-+ '@``. Of ``0`` and ``-`` only the last one holds."""
    width: int | None
    """The minimum width in characters; None when none is given. ``?`` gives 16, the width of a pointer."""
    precision: int | None
    """The precision; None when none is given or an argument gives it."""
    length: str
    """The length modifier as written, such as ``ll``. The consumer ignores it: the argument's own type decides."""
    letter: str
    """The conversion's letter, such as ``d``."""
    star_width: bool = False
    """True when an argument gives the width (``*``)."""
    star_precision: bool = False
    """True when an argument gives the precision (``.*``)."""


@record
class Format:
    """A parsed format."""

    text: str
    """The format as it is written."""
    parts: tuple[str | Conversion, ...]
    """Literal text and conversions, in order."""

    @property
    def conversions(self) -> tuple[Conversion, ...]:
        """The conversions alone."""
        return tuple(part for part in self.parts if isinstance(part, Conversion))


class PrintfFormatError(ValueError):
    """A format string is not valid."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.offset = offset
        """Index of the character where the error begins."""


_FLAGS = frozenset("#+ '@")
_LENGTHS = frozenset("hlLw")


def parse_format(text: str) -> Format:
    """Parse a format string. Raises :class:`PrintfFormatError`.

    Any letter is accepted; the compiler checks whether it exists and fits its argument.
    """
    parts: list[str | Conversion] = []
    literal: list[str] = []
    done = 0
    while (at := text.find("%", done)) >= 0:
        literal.append(text[done:at])
        if text.startswith("%%", at):
            literal.append("%")
            done = at + 2
            continue
        if joined := "".join(literal):
            parts.append(joined)
        literal = []
        conversion, done = _conversion(text, at)
        parts.append(conversion)
    literal.append(text[done:])
    if joined := "".join(literal):
        parts.append(joined)
    return Format(text, tuple(parts))


def _conversion(text: str, start: int) -> tuple[Conversion, int]:
    """Return the conversion that begins at ``start``, and the index after it.

    Flags, width and length may be in any order, as in DTrace.
    """
    flags = length = ""
    width: int | None = None
    precision: int | None = None
    stars = [False, False]
    dot = digits = False
    at = start + 1
    while at < len(text):
        c = text[at]
        if c == "0" and not dot and not digits:
            flags = flags.replace("-", "") + "0"
        elif c.isascii() and c.isdecimal():
            end = at
            while end < len(text) and text[end].isascii() and text[end].isdecimal():
                end += 1
            number = _number(text, start, at, end)
            precision, width = (number, width) if dot else (precision, number)
            digits, at = True, end
            continue
        elif c in _FLAGS:
            flags += c
        elif c == "-":
            flags = flags.replace("0", "") + "-"
        elif c == "*":
            if stars[dot]:
                raise PrintfFormatError(
                    f"{text[start : at + 1]!r} has more than one * for a {'precision' if dot else 'width'}", start
                )
            stars[dot] = True
        elif c == ".":
            if dot:
                raise PrintfFormatError(f"{text[start : at + 1]!r} has more than one .", start)
            dot, digits, precision = True, False, 0
        elif c == "?":
            width = _POINTER_WIDTH
        elif c in _LENGTHS:
            length += c
        elif c == "$":
            raise PrintfFormatError(f"{text[start : at + 1]!r}: positional arguments are not supported", start)
        elif c.isascii() and c.isalpha():
            star_width, star_precision = stars
            precision = None if star_precision else precision
            return Conversion(flags, width, precision, length, c, star_width, star_precision), at + 1
        else:
            break
        at += 1
    raise PrintfFormatError(f"{text[start : start + 8]!r} is not a conversion", start)


def _number(text: str, start: int, first: int, end: int) -> int:
    if end - first > 9 or int(text[first:end]) > MAX_WIDTH:
        raise PrintfFormatError(f"{text[start:end][:24]!r}: width or precision above {MAX_WIDTH}", start)
    return int(text[first:end])
