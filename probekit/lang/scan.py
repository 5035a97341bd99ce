"""Prepare a script for the lexer: comments and control lines become blanks, options are read.

Offsets do not move, so every later span points into the text as written.

    #pragma D option quiet          ->  (blank line)   options: quiet
    BEGIN /* start */ { }           ->  BEGIN             { }
"""

from __future__ import annotations

import re

from probekit.lang.diagnostics import refuse
from probekit.lang.source import MAX_SOURCE, NOWHERE, Source, Span
from probekit.records import record

__all__ = ("Option", "Pragma", "Scanned", "scan")


@record
class Option:
    """``#pragma D option name=value``."""

    name: str
    value: str
    """Empty when none was written."""
    span: Span


@record
class Pragma:
    """``#pragma D attributes|binding|depends_on ...``."""

    words: tuple[str, ...]
    """Its words; the first is the kind."""
    span: Span


@record
class Scanned:
    """What the scan found."""

    text: str
    """The script with blanks, as long as the original."""
    options: tuple[Option, ...]
    pragmas: tuple[Pragma, ...] = ()


_PIECE = re.compile(
    r"""
      (?P<comment> /\*.*?\*/ )
    | (?P<open> /\* )
    | (?P<string> "(?:[^"\\\n]|\\[^\n])*" )
    | (?P<char> '(?:[^'\\\n]|\\[^\n])*' )
    | (?P<quote> ["'] )
    | (?P<control> ^[ \t]*\#[^\n]* )
    """,
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)
_NOT_NEWLINE = re.compile(r"[^\n]")
_PRAGMA = re.compile(r"\s*#\s*(?P<word>\w+)?\s*(?P<rest>.*?)\s*$", re.DOTALL)
_OPTION = re.compile(r"D\s+option\s+(?:(?P<name>[^\s=\"0-9][^\s=\"]*)(?:=(?P<value>\S*))?|=\S*)$")
_LINE = re.compile(r'[0-9]{1,9}(\s+"[^"]*")?(\s+[0-9]+)*')
_CONTROL_WORDS = ("define", "elif", "else", "endif", "if", "ifdef", "ifndef", "include", "undef")


def scan(source: Source) -> Scanned:
    """Blank out everything that the grammar does not know. Raises :class:`Refusal`."""
    text = source.text
    if len(text) > MAX_SOURCE:
        raise refuse("D_SYNTAX", NOWHERE, f"script of {len(text)} characters is longer than {MAX_SOURCE}")
    if (at := text.find("\0")) >= 0:
        raise refuse("D_SYNTAX", Span(at, at + 1), "NUL character in the script")
    out: list[str] = []
    options: list[Option] = []
    pragmas: list[Pragma] = []
    done = 0
    for piece in _PIECE.finditer(text):
        span = Span(piece.start(), piece.end())
        match piece.lastgroup:
            case "comment":
                _check_comment(text, span)
            case "control":
                for found in _control(text, span):
                    if isinstance(found, Option):
                        options.append(found)
                    else:
                        pragmas.append(found)
            case "open":
                raise refuse("D_SYNTAX", span, "comment is not closed")
            case "quote":
                raise _open_quote(text, span)
            case _:
                continue  # strings and characters stay; a comment cannot begin inside them
        out.append(text[done : span.start])
        out.append(_NOT_NEWLINE.sub(" ", text[span.start : span.end]))
        done = span.end
    out.append(text[done:])
    return Scanned("".join(out), tuple(options), tuple(pragmas))


def _check_comment(text: str, span: Span) -> None:
    inner = text.find("/*", span.start + 2, span.end)
    # D comments do not nest. The "/*/" that opens a comment is not a second "/*".
    if inner >= 0 and inner + 2 < span.end:
        raise refuse("D_SYNTAX", Span(inner, inner + 2), "/* inside a comment: D comments do not nest")


def _open_quote(text: str, span: Span) -> Exception:
    what, tag = ("string", "D_STR_NL") if text[span.start] == '"' else ("character constant", "D_CHR_NL")
    return refuse(tag, span, f"{what} is not closed on its line")


def _control(text: str, span: Span) -> list[Option | Pragma]:
    line = text[span.start : span.end]
    start = span.start + len(line) - len(line.lstrip())
    span = Span(start, start + len(line.strip()))
    if line.lstrip().startswith("#!"):
        return []
    found = _PRAGMA.match(line)
    word, rest = (found["word"] or "", found["rest"]) if found else ("", "")
    if word == "pragma":
        return _pragma(rest, span)
    if word == "error":
        raise refuse("D_PRAGERR", span, f"#error: {rest}")
    if word == "line" and _LINE.fullmatch(rest) is None:
        raise refuse("D_PRAGMA_MALFORM", span, '#line takes a number, and may take a "file"')
    if word in ("", "ident", "line") or word.isdigit():
        return []  # "#", "#ident ..." and the line marks of cpp, which Source reads
    if word in _CONTROL_WORDS:
        raise refuse("D_PRAGCTL_INVAL", span, f"#{word} needs the C preprocessor: run probekit with -C")
    raise refuse("D_PRAGCTL_INVAL", span, f"unknown control directive #{word}")


def _pragma(rest: str, span: Span) -> list[Option | Pragma]:
    words = rest.split(maxsplit=2)
    if words[:1] == ["error"]:
        raise refuse("D_PRAGERR", span, f"#pragma error: {rest[5:].strip()}")
    if words[:1] != ["D"]:
        return []  # another compiler's pragma
    match words[1:2]:
        case ["option"]:
            found = _OPTION.match(rest)
            if found is None:
                raise refuse("D_PRAGMA_MALFORM", span, "#pragma D option takes name or name=value")
            return [Option(found["name"] or "", found["value"] or "", span)]
        case ["attributes" | "binding" | "depends_on" as what]:
            return [Pragma((what, *rest.split()[2:]), span)]
        case ["error"]:
            raise refuse("D_PRAGERR", span, f"#pragma D error: {' '.join(words[2:])}")
        case ["ident" | "line"]:
            return []
        case _:
            raise refuse("D_PRAGMA_INVAL", span, f"unknown pragma: {rest}")
