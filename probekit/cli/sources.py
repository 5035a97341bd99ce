"""``-n`` and ``-s`` into one program: each is compiled, their clauses run in the order of the command line.

Global variables and aggregations are shared, as in dtrace(1).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from probekit.errors import ProbekitError
from probekit.ir.build import compile_program
from probekit.ir.ops import Program
from probekit.lang.diagnostics import CompileError, Diagnostic
from probekit.lang.source import Source as Text
from probekit.lang.source import Span

__all__ = ("ScriptError", "Source", "compile_sources", "read_sources")


class ScriptError(ProbekitError):
    """A script that cannot be compiled or read; the message is complete."""


@dataclass(frozen=True, slots=True)
class Source:
    """One ``-n`` or ``-s``. ``what``: as messages name it."""

    text: str
    what: str
    filename: str | None

    @property
    def failed(self) -> str:
        """How a message about a failure begins."""
        if self.filename is not None:
            return f"failed to compile script {self.filename}"
        return f"invalid probe specifier {self.text}"


def read_sources(names: Sequence[str], scripts: Sequence[str]) -> list[Source]:
    """The sources in order: all of ``-n``, then all of ``-s``. Raises :class:`ScriptError`."""
    sources = [
        Source(text, f"description '{text.partition('{')[0].partition('/')[0].strip()}'", None) for text in names
    ]
    for name in scripts:
        try:
            data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        except OSError as error:
            raise ScriptError(f"failed to open script {name}: {error.strerror}") from error
        sources.append(Source(data.decode("utf-8", "replace"), f"script '{name}'", name))
    return sources


def compile_sources(
    sources: Sequence[Source], args: Sequence[str], *, default_args: bool, errtags: bool
) -> tuple[Program, list[int]]:
    """One program of all sources, and how many clauses each gave it. Raises :class:`ScriptError`.

    A source sees what those before it declared, as in dtrace(1), so each is compiled behind them.
    """
    before, counts = "", list[int]()
    program: Program | None = None
    for source in sources:
        program = _compile(source, before, args, default_args=default_args, errtags=errtags)
        counts.append(len(program.clauses) - sum(counts))
        before += _closed(source) + "\n"
    if program is None:
        raise AssertionError("there is no source")
    return program, counts


def _closed(source: Source) -> str:
    """A bare probe followed by another source would read as a list of two: give it its empty body."""
    text = source.text.rstrip()
    return text if text.endswith(("}", ";")) or source.filename is not None else text + " {}"


def _compile(source: Source, before: str, args: Sequence[str], *, default_args: bool, errtags: bool) -> Program:
    try:
        return compile_program(
            before + source.text,
            filename=source.filename,
            allow_bare=source.filename is None,
            args=(source.filename or "probekit", *args),
            macros={"pid": os.getpid(), "ppid": os.getppid(), "uid": os.getuid(), "euid": os.geteuid()},
            default_args=default_args,
        )
    except CompileError as error:
        own = CompileError([_moved(d, len(before)) for d in error.diagnostics], Text(source.text, source.filename))
        raise ScriptError(f"{source.failed}: {own.text(errtags=errtags)}") from error


def _moved(diagnostic: Diagnostic, offset: int) -> Diagnostic:
    """The same fault, placed in the source that begins at ``offset``."""
    span = diagnostic.span
    return replace(diagnostic, span=Span(max(span.start - offset, 0), max(span.end - offset, 0)))
