"""``printf()`` format strings, parsed once at compile time and rendered by the consumer."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ("Conversion", "Format")


@dataclass(frozen=True, slots=True)
class Conversion:
    """One ``%`` conversion. ``flags``: of ``#0-+ '``; ``width``/``precision``: None unless given; ``letter``: the verb.

    ``star_width``/``star_precision``: taken from an argument. ``length``: ``h hh l ll L`` as written (no effect: the
    argument's own type decides).
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
