"""Hold a script's text, and find places in it.

A :class:`Span` is a pair of offsets. Lines and columns are computed only for display.

    Source("a\\nbc").place(3)  ->  (2, 2)
"""

from __future__ import annotations

import re
from bisect import bisect_right
from functools import lru_cache

from probekit.records import record

_MARK = re.compile(r"^[ \t]*#[ \t]*(?:line[ \t]+)?([0-9]{1,9})\b[^\n]*$", re.MULTILINE)
_INCLUDE = re.compile(r"^[ \t]*#[ \t]*[0-9]{1,9}[ \t]+\"[^\"\n]*\"[ \t]+([12])\b", re.MULTILINE)

__all__ = ("MAX_SOURCE", "NOWHERE", "Source", "Span")

MAX_SOURCE = 4 << 20
"""The longest script, in characters."""


@record
class Span:
    """A range of a script's text."""

    start: int
    """Offset of the first character."""
    end: int
    """Offset after the last one."""

    def to(self, other: Span) -> Span:
        """Return the span from the start of this one to the end of the other."""
        return Span(self.start, other.end)


NOWHERE = Span(0, 0)
"""For a fault that has no place."""


@record
class Source:
    """One script."""

    text: str
    name: str | None = None
    """Its file, or None for a program from the command line."""

    def place(self, offset: int) -> tuple[int, int]:
        """Return line and column of an offset in the text as it is, both counted from 1."""
        starts = _line_starts(self.text)
        line = bisect_right(starts, offset)
        return line, offset - starts[line - 1] + 1

    def named_line(self, line: int) -> int:
        """Return the number that ``#line`` or a line mark of the C preprocessor gives to a line."""
        marks = _line_marks(self.text)
        index = bisect_right(marks, (line, 1 << 62)) - 1
        return line if index < 0 else marks[index][1] + line - marks[index][0]

    def included(self, offset: int) -> bool:
        """Tell whether an offset lies in a file that the C preprocessor included."""
        marks = [m[1] for m in _INCLUDE.finditer(self.text, 0, offset)]
        return marks.count("1") > marks.count("2")

    def line(self, number: int) -> str:
        """Return the text of line ``number``, without its newline."""
        starts = _line_starts(self.text)
        start = starts[number - 1]
        end = starts[number] - 1 if number < len(starts) else len(self.text)
        return self.text[start:end]

    def slice(self, span: Span) -> str:
        """Return the text of a span."""
        return self.text[span.start : span.end]


@lru_cache(maxsize=2)
def _line_starts(text: str) -> tuple[int, ...]:
    """Return the offset of each line."""
    return (0, *(i + 1 for i, c in enumerate(text) if c == "\n"))


@lru_cache(maxsize=2)
def _line_marks(text: str) -> tuple[tuple[int, int], ...]:
    """Return, for each ``#line`` and line mark of cpp, the line after it and the number that it gives that line."""
    starts = _line_starts(text)
    return tuple((bisect_right(starts, m.start(1)) + 1, int(m[1])) for m in _MARK.finditer(text))
