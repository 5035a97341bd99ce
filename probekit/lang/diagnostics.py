"""Collect the faults of a script as data, and render them as text in the end.

A pass that cannot go on with a construct raises :class:`Refusal`. A caller that can go on with the next construct
catches it and collects its :class:`Diagnostic`. The front end ends with one :class:`CompileError` for all of them.

    [D_IDENT_UNDEF] line 2: pd is not defined       (errtags)

    test.d:2:9: pd is not defined [D_IDENT_UNDEF]
      2 | BEGIN / pd == 7 / { }
        |         ^^
      hint: did you mean pid?
"""

from __future__ import annotations

from collections.abc import Iterable

from probekit.errors import ProbekitError
from probekit.lang.source import Source, Span
from probekit.records import record

__all__ = ("CompileError", "Diagnostic", "Refusal", "did_you_mean", "refuse", "render")

_WIDEST = 160


@record
class Diagnostic:
    """One fault of a script."""

    tag: str
    """DTrace's name for the fault."""
    span: Span
    message: str
    hints: tuple[str, ...] = ()
    """What the user may do about it."""


class Refusal(Exception):
    """A construct that cannot be compiled."""

    def __init__(self, diagnostic: Diagnostic) -> None:
        super().__init__(diagnostic.message)
        self.diagnostic = diagnostic
        """Says why."""


class CompileError(ProbekitError):
    """The script has faults."""

    exit_code = 1

    def __init__(self, diagnostics: Iterable[Diagnostic], source: Source, part: int = 0) -> None:
        self.part: int = part
        """Which script of the command line is at fault, from 0."""
        self.diagnostics: tuple[Diagnostic, ...] = tuple(diagnostics)
        """The faults."""
        self.source: Source = source
        """The text that their spans point into."""
        self.needs_kernel: bool = False
        """Whether the script was compiled without a guest and names something that a kernel may know."""
        super().__init__("\n".join(render(d, source) for d in self.diagnostics))

    def text(self, *, errtags: bool = False) -> str:
        """Render all faults as text; with ``errtags`` in DTrace's one-line form."""
        return "\n".join(render(d, self.source, errtags=errtags) for d in self.diagnostics)


def refuse(tag: str, span: Span, message: str, *hints: str) -> Refusal:
    """Make the exception for one fault, without the hints that are empty."""
    return Refusal(Diagnostic(tag, span, message, tuple(h for h in hints if h)))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a hint that names the closest known word, or an empty string."""
    from difflib import get_close_matches  # imported late: it is slow, and most scripts have no fault

    close = get_close_matches(word[:64], sorted(known), n=1, cutoff=0.7)
    return f"did you mean {close[0]}?" if close else ""


def render(diagnostic: Diagnostic, source: Source, *, errtags: bool = False) -> str:
    """Render one fault as text: in DTrace's form, or as its line with carets under the place."""
    line, column = source.place(min(diagnostic.span.start, len(source.text)))
    if errtags:
        return f"[{diagnostic.tag}] line {source.named_line(line)}: {diagnostic.message}"
    where = f"{source.name}:" if source.name else ""
    head = f"{where}{source.named_line(line)}:{column}: {diagnostic.message} [{diagnostic.tag}]"
    raw = source.line(line)
    first = max(0, column - 1 - _WIDEST // 2)  # of a very long line, only the part around the place
    shown = raw[first : first + _WIDEST]
    before, width = column - 1 - first, max(1, diagnostic.span.end - diagnostic.span.start)
    marks = " " * before + "^" * max(1, min(width, len(shown) - before))
    gutter = str(line)
    lines = [head, f"  {gutter} | {_plain(shown)}", f"  {' ' * len(gutter)} | {marks}"]
    lines.extend(f"  hint: {hint}" for hint in diagnostic.hints)
    return "\n".join(lines)


def _plain(text: str) -> str:
    # One column for each character: a tab or control character would move the caret.
    return "".join(c if c.isprintable() else " " if c == "\t" else "?" for c in text)
