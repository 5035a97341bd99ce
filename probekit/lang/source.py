"""A script's text, and the places in it.

A :class:`Span` is a pair of offsets; lines and columns are worked out only when
something is shown.

    Source("a\\nbc").place(3)  ->  (2, 2)
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass, field

from probekit.records import record

_MARK = re.compile(r"^[ \t]*#[ \t]*(?:line[ \t]+)?([0-9]{1,9})\b[^\n]*$", re.MULTILINE)
_INCLUDE = re.compile(r"^[ \t]*#[ \t]*[0-9]{1,9}[ \t]+\"[^\"\n]*\"[ \t]+([12])\b", re.MULTILINE)

__all__ = ("MAX_SOURCE", "NOWHERE", "Source", "Span")

MAX_SOURCE = 4 << 20
"""The longest script accepted, in characters."""


@record
class Span:
    """Offsets ``start`` (inclusive) to ``end`` (exclusive) in a source's text."""

    start: int
    end: int

    def to(self, other: Span) -> Span:
        """From the start of this one to the end of the other."""
        return Span(self.start, other.end)


NOWHERE = Span(0, 0)


@dataclass(frozen=True)
class Source:
    """One script. ``name``: its file, or None for a program from the command line."""

    text: str
    name: str | None = None
    _starts: tuple[int, ...] = field(init=False, repr=False, compare=False)
    _marks: tuple[tuple[int, int], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        starts = [0]
        starts.extend(i + 1 for i, c in enumerate(self.text) if c == "\n")
        object.__setattr__(self, "_starts", tuple(starts))
        # (the line behind a mark, what the mark says it is)
        marks = [(bisect_right(starts, m.start(1)) + 1, int(m[1])) for m in _MARK.finditer(self.text)]
        object.__setattr__(self, "_marks", tuple(marks))

    def place(self, offset: int) -> tuple[int, int]:
        """Line and column of an offset, both from 1: those of the text as it is."""
        line = bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1

    def named_line(self, line: int) -> int:
        """The number that ``#line`` and the C preprocessor's marks give a line."""
        index = bisect_right(self._marks, (line, 1 << 62)) - 1
        return line if index < 0 else self._marks[index][1] + line - self._marks[index][0]

    def included(self, offset: int) -> bool:
        """True in a file that the C preprocessor put in: between a mark that enters it and the one that leaves it."""
        marks = [m[1] for m in _INCLUDE.finditer(self.text, 0, offset)]
        return marks.count("1") > marks.count("2")

    def line(self, number: int) -> str:
        """The text of line ``number``, without its newline."""
        start = self._starts[number - 1]
        end = self._starts[number] - 1 if number < len(self._starts) else len(self.text)
        return self.text[start:end]

    def slice(self, span: Span) -> str:
        """The text of a span."""
        return self.text[span.start : span.end]
