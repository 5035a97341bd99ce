"""``-n -f -m -P -i -s`` and ``-L`` into one program, compiled together in the order of the command line.

Each sees the global variables and aggregations of those before it, as in
dtrace(1). A mark before each keeps line numbers its own:

    -n 'BEGIN { x = 1; }' -s end.d   ->   BEGIN { x = 1; }
                                          # 1
                                          END { trace(x); }
"""

from __future__ import annotations

import os
import re
import sys
from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

from probekit.cli.cpp import preprocess
from probekit.cli.errors import ScriptError
from probekit.ir.build import compile_program
from probekit.ir.ops import Program
from probekit.lang.diagnostics import CompileError
from probekit.lang.kernelside import KernelSource
from probekit.lang.source import Source as Text
from probekit.lang.source import Span
from probekit.probe.names import ProbeDescription
from probekit.records import record, replaced
from probekit.session.options import OptionError, Options, set_option

CanMatch = Callable[[ProbeDescription], bool]

__all__ = ("CanMatch", "Compiled", "ProgramText", "compile_sources", "pragma_options", "read_sources")

_CROPPED = re.compile(r"[{/;]")
_BARE_END = re.compile(r"[^};\s]\s*\Z")
_COMMENT = re.compile(r"/\*(?:[^*]|\*(?!/))*\*/")
_COMMENTS_AT_END = re.compile(r"(?:\s|/\*(?:[^*]|\*(?!/))*\*/)*\Z")
_FEWER_FIELDS = {"f": ":", "m": "::", "P": ":::", "i": ""}


@record
class ProgramText:
    """One of the command line's programs. ``what``: as messages name it; ``filename``: None from the command line.

    ``spec``: as it was given, for messages; ``library``: of ``-L``, in which clauses have no business.
    """

    text: str
    what: str
    spec: str
    filename: str | None = None
    library: bool = False

    @property
    def failed(self) -> str:
        """How a message about a failure begins."""
        if self.library:
            return f"failed to compile library file {self.spec}"
        if self.filename is not None:
            return f"failed to compile script {self.spec}"
        return f"invalid probe specifier {self.spec}"


@record
class Compiled:
    """The program, and how many of its clauses come from each source."""

    program: Program
    counts: tuple[int, ...]


def read_sources(programs: Sequence[tuple[str, str]], options: Options) -> list[ProgramText]:
    """The sources in order: libraries, then the command line's. Raises :class:`ScriptError`."""
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
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise ScriptError(f"failed to open {name}: {getattr(error, 'strerror', error)}") from error
    text = data.decode("utf-8", "replace")
    if options.cpp:
        text = preprocess(text, name, options)
    return ProgramText(text, f"script '{name}'", name, name)


def _specifier(letter: str, text: str) -> ProgramText:
    """``-P fbt`` is ``fbt:::``, ``-m ext4`` is ``:ext4::``, ``-f vfs_read`` is ``vfs_read:``."""
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
    """A bare probe followed by another source would read as a list of two: give it its empty body."""
    bare = _COMMENTS_AT_END.sub("", text)
    if not _BARE_END.search(bare):
        return text
    last = _COMMENT.sub("", bare[max(bare.rfind("}"), bare.rfind(";")) + 1 :])
    # With a predicate the braces may not be left out; braces that were opened are a clause.
    return text if "/" in last or "{" in last else bare + "{}"


def compile_sources(
    sources: Sequence[ProgramText],
    args: Sequence[str],
    options: Options,
    target: int | None,
    kernel: KernelSource | None = None,
    can_match: CanMatch | None = None,
) -> Compiled:
    """One program of all sources. ``target``: the process of ``-c`` or ``-p``; ``kernel``: the guest's.

    ``can_match``: as of :func:`probekit.ir.build.compile_program`.
    Raises :class:`ScriptError` about the first that cannot be compiled.
    """
    libraries = [source for source in sources if source.library]
    own = [source for source in sources if not source.library]
    if not own:
        raise ScriptError("there is no program")
    text, starts = _joined([*libraries, *own])
    try:
        program = compile_program(
            text,
            filename=own[-1].filename,
            allow_bare=False,
            args=(own[-1].filename or "probekit", *args),
            macros=_macros(target),
            default_args=options.defaultargs,
            unused_args=options.argref,
            allow_empty=options.empty,
            frames={"stack": options.stackframes, "ustack": options.ustackframes},
            string_size=options.strsize,
            kernel=kernel,
            can_match=None if options.zdefs else can_match,
            libraries=len(_joined(libraries)[0]),
            parts=starts[len(libraries) + 1 :],
        )
    except CompileError as error:
        source = own[error.part]
        fault = _own_fault(error, source, starts[len(libraries) + error.part]).text(errtags=options.errtags)
        raise ScriptError(f"{source.failed}: {fault}", needs_kernel=error.needs_kernel) from error
    ends = [bisect_left(program.clauses, start, key=lambda clause: clause.start) for start in (*starts[1:], len(text))]
    return Compiled(program, tuple(end - begin for begin, end in pairwise((0, *ends))))


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
    """The same faults, placed in the source itself, which begins at ``offset`` of what was compiled."""
    moved = [
        replaced(d, span=Span(max(d.span.start - offset, 0), max(d.span.end - offset, 0))) for d in error.diagnostics
    ]
    return CompileError(moved, Text(source.text, source.filename))


def _joined(sources: Sequence[ProgramText]) -> tuple[str, list[int]]:
    """The text that is compiled, and where each source begins in it."""
    text = ""
    starts: list[int] = []
    for number, source in enumerate(sources):
        text += "\n# 1\n" if number else ""
        starts.append(len(text))
        text += source.text
    return text, starts


def pragma_options(compiled: Compiled, sources: Sequence[ProgramText], options: Options) -> Options:
    """``options`` with those that the program sets. Raises :class:`ScriptError` where one is wrong."""
    for name, value in compiled.program.options:
        try:
            options = set_option(options, name, value, "program")
        except OptionError as error:
            source, line = _pragma_place(name, value, sources)
            head = f"[D_PRAGMA_OPTSET] line {line}: " if options.errtags else f"line {line}: "
            tag = "" if options.errtags else " [D_PRAGMA_OPTSET]"
            raise ScriptError(f"{source.failed}: {head}{error.message}{tag}", hint=error.hint) from error
    return options


def _pragma_place(name: str, value: str, sources: Sequence[ProgramText]) -> tuple[ProgramText, int]:
    pragma = re.compile(rf"^[ \t]*#[ \t]*pragma\s+D\s+option\s+{re.escape(name)}\b.*{re.escape(value)}", re.MULTILINE)
    for source in sources:
        found = pragma.search(source.text)
        if found is not None:
            text = Text(source.text)
            return source, text.named_line(text.place(found.start())[0])
    return sources[-1], 1
