"""Reads ``-n -f -m -P -i -s`` and ``-L``, and compiles them as one program in the order of the command line.

Each source can use the global variables and aggregations of the sources before it, as in dtrace(1). A line mark before
each source keeps its own line numbers:

    -n 'BEGIN { x = 1; }' -s end.d   ->   BEGIN { x = 1; }
                                          # 1
                                          END { trace(x); }
"""

from __future__ import annotations

import errno
import os
import re
import sys
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from probekit.cli.cpp import preprocess
from probekit.cli.errors import ScriptError
from probekit.ir.build import compile_program
from probekit.ir.ops import Clause, Program
from probekit.lang.diagnostics import CompileError
from probekit.lang.kernelside import KernelSource
from probekit.lang.source import Source, Span
from probekit.probe.names import ProbeDescription
from probekit.records import record, replaced
from probekit.session.options import OptionError, Options, set_option

CanMatch = Callable[[ProbeDescription], bool]
"""Returns whether a probe description can match any probe."""

__all__ = ("CanMatch", "Compiled", "ProgramText", "compile_sources", "pragma_options", "read_sources")

_CROPPED = re.compile(r"[{/;]")
_BARE_END = re.compile(r"[^};\s]\s*\Z")
_COMMENT = re.compile(r"/\*(?:[^*]|\*(?!/))*\*/")
_COMMENTS_AT_END = re.compile(r"(?:\s|/\*(?:[^*]|\*(?!/))*\*/)*\Z")
_FEWER_FIELDS = {"f": ":", "m": "::", "P": ":::", "i": ""}


@record
class ProgramText:
    """The text of one of the command line's programs."""

    text: str
    name: str
    """Its name in messages: ``description 'x'``, ``script 'x.d'``."""
    spec: str
    """Its text or file name on the command line, for messages about a failure."""
    filename: str | None = None
    """The script's file; None for a text on the command line itself."""
    library: bool = False
    """Whether it comes from a directory of ``-L``."""

    @property
    def failed(self) -> str:
        """The beginning of a message about a failure."""
        if self.library:
            return f"failed to compile library file {self.spec}"
        if self.filename is not None:
            return f"failed to compile script {self.spec}"
        return f"invalid probe specifier {self.spec}"


@record
class Compiled:
    """The compiled program of a command line, and its sources."""

    program: Program
    sources: tuple[ProgramText, ...]
    """The sources that it was compiled from, libraries first."""
    counts: tuple[int, ...]
    """How many of its clauses come from each source."""

    def by_source(self) -> Iterator[tuple[ProgramText, tuple[Clause, ...]]]:
        """Yield each source with its clauses. Libraries without clauses are left out."""
        begin = 0
        for source, count in zip(self.sources, self.counts, strict=True):
            if count or not source.library:
                yield source, self.program.clauses[begin : begin + count]
            begin += count


def read_sources(programs: Sequence[tuple[str, str]], options: Options) -> list[ProgramText]:
    """Return the sources in order: libraries, then the command line's. Raises :class:`ScriptError`.

    ``programs``: (letter, text) of ``-n -f -m -P -i -s``.
    """
    sources = [source for directory in options.libdir for source in _library(directory)]
    for letter, text in programs:
        sources.append(_script(text, options) if letter == "s" else _specifier(letter, text))
    return sources


def _library(directory: str) -> list[ProgramText]:
    try:
        files = sorted(path for path in Path(directory).iterdir() if path.suffix == ".d")
        texts = [(path, path.read_text(encoding="utf-8", errors="replace")) for path in files]
    except OSError as error:
        raise ScriptError(f"failed to open library directory {directory}: {error.strerror}") from error
    return [ProgramText(text, f"library '{path}'", str(path), str(path), library=True) for path, text in texts]


def _script(name: str, options: Options) -> ProgramText:
    try:
        data = _standard_input() if name == "-" else Path(name).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise ScriptError(f"failed to open {name}: {getattr(error, 'strerror', error)}") from error
    text = data.decode("utf-8", "replace")
    if options.cpp:
        text = preprocess(text, name, options)
    return ProgramText(text, f"script '{name}'", name, name)


def _standard_input() -> bytes:
    """Read standard input. Raises OSError when it is closed."""
    if sys.stdin is None:
        raise OSError(errno.EBADF, "standard input is closed")
    return sys.stdin.buffer.read()


def _specifier(letter: str, text: str) -> ProgramText:
    """Return the source of ``-n -f -m -P -i``: ``-P fbt`` is ``fbt:::``, ``-m ext4`` is ``:ext4::``."""
    cropped = _CROPPED.search(text)
    end = cropped.start() if cropped is not None else len(text)
    head, body = text[:end], text[end:]
    if letter != "n":
        descriptions = [part.strip() for part in head.split(",")]
        if letter == "i" and not all(part.isdecimal() for part in descriptions):
            raise ScriptError(f"invalid probe specifier {text}: not a probe ID")
        head = ",".join(part + _FEWER_FIELDS[letter] for part in descriptions) + (" " if body else "")
    return ProgramText(_closed(head + body), f"description '{text[:end]}'", text)


def _closed(text: str) -> str:
    """Give a bare probe an empty body: if another source follows, it would else be read as a list of two probes."""
    bare = _COMMENTS_AT_END.sub("", text)
    if not _BARE_END.search(bare):
        return text
    last = _COMMENT.sub("", bare[max(bare.rfind("}"), bare.rfind(";")) + 1 :])
    # After a predicate the braces are required, so none are added; an open brace means that there is a clause.
    return text if "/" in last or "{" in last else bare + "{}"


def compile_sources(
    sources: Sequence[ProgramText],
    args: Sequence[str],
    options: Options,
    target: int | None,
    kernel: KernelSource | None = None,
    can_match: CanMatch | None = None,
) -> Compiled:
    """Compile all sources as one program. Raises :class:`ScriptError` about the first that cannot be compiled.

    ``target``: the process ID of ``-c`` or ``-p``. ``kernel``: types and symbols of the guest. ``can_match``: as in
    :func:`probekit.ir.build.compile_program`.
    """
    libraries = [source for source in sources if source.library]
    own = [source for source in sources if not source.library]
    if not own:
        raise ScriptError("there is no program")

    def compile_first(count: int) -> Compiled:
        """Compile the libraries and the first ``count`` sources of the command line."""
        part = own[:count]
        text, starts = _joined([*libraries, *part])
        try:
            program = compile_program(
                text,
                filename=part[-1].filename,
                allow_bare=False,
                args=(part[-1].filename or "probekit", *args),
                macros=_macros(target),
                default_args=options.defaultargs,
                unused_args=options.argref or count < len(own),
                allow_empty=options.empty,
                frames={"stack": options.stackframes, "ustack": options.ustackframes},
                string_size=options.strsize,
                kernel=kernel,
                can_match=None if options.zdefs else can_match,
                libraries=len(_joined(libraries)[0]),
                parts=starts[len(libraries) + 1 :],
            )
        except CompileError as error:
            if error.part + 1 < count:
                compile_first(error.part + 1)  # later sources do not matter for an error in an earlier one
            source = own[error.part]
            fault = _own_fault(error, source, starts[len(libraries) + error.part]).text(errtags=options.errtags)
            raise ScriptError(f"{source.failed}: {fault}", needs_kernel=error.needs_kernel) from error
        return Compiled(program, (*libraries, *own[:count]), _counts(program, starts[len(libraries) :], len(libraries)))

    return compile_first(len(own))


def _counts(program: Program, starts: Sequence[int], libraries: int) -> tuple[int, ...]:
    """Count the clauses of each source. Clauses of libraries belong to the first source of the command line."""
    ends = [bisect_left(program.clauses, start, key=lambda clause: clause.start) for start in starts[1:]]
    return (0,) * libraries + tuple(end - begin for begin, end in pairwise((0, *ends, len(program.clauses))))


def _macros(target: int | None) -> dict[str, int]:
    values = {
        "pid": os.getpid(),
        "ppid": os.getppid(),
        "pgid": os.getpgid(0),
        "sid": os.getsid(0),
        "uid": os.getuid(),
        "euid": os.geteuid(),
        "gid": os.getgid(),
        "egid": os.getegid(),
        "target": target or 0,
    }
    values["projid"] = values["taskid"] = 0
    return values


def _own_fault(error: CompileError, source: ProgramText, offset: int) -> CompileError:
    """Return the same error with places in the source, which begins at ``offset`` of the compiled text."""
    moved = [
        replaced(d, span=Span(max(d.span.start - offset, 0), max(d.span.end - offset, 0))) for d in error.diagnostics
    ]
    return CompileError(moved, Source(source.text, source.filename))


def _joined(sources: Sequence[ProgramText]) -> tuple[str, list[int]]:
    """Return the text that is compiled, and the offset at which each source begins in it."""
    text = ""
    starts: list[int] = []
    for number, source in enumerate(sources):
        text += "\n# 1\n" if number else ""
        starts.append(len(text))
        text += source.text
    return text, starts


def pragma_options(compiled: Compiled, options: Options) -> Options:
    """Return ``options`` with the options that the program sets. Raises :class:`ScriptError` for an invalid one."""
    for name, value in compiled.program.options:
        try:
            options = set_option(options, name, value, "program")
        except OptionError as error:
            source, line = _pragma_place(name, value, compiled.sources)
            head = f"[D_PRAGMA_OPTSET] line {line}: " if options.errtags else f"line {line}: "
            tag = "" if options.errtags else " [D_PRAGMA_OPTSET]"
            raise ScriptError(f"{source.failed}: {head}{error.message}{tag}", hint=error.hint) from error
    return options


def _pragma_place(name: str, value: str, sources: Sequence[ProgramText]) -> tuple[ProgramText, int]:
    """Return the source that sets an option, and the line."""
    pragma = re.compile(rf"^[ \t]*#[ \t]*pragma\s+D\s+option\s+{re.escape(name)}\b.*{re.escape(value)}", re.MULTILINE)
    for source in sources:
        found = pragma.search(source.text)
        if found is not None:
            text = Source(source.text)
            return source, text.named_line(text.place(found.start())[0])
    return sources[-1], 1
