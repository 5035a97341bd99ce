"""Parses the command line with getopt(3), as dtrace does. Letters mean the same as there; long options are new.

Options and arguments may be mixed; ``--`` ends the options. Repeatable ones keep their order across letters:
``-n A -s F -n B`` is three programs in that order.
"""

from __future__ import annotations

import getopt
from collections.abc import Callable
from typing import Any

from probekit.cli.help import RECOVER_HELP, RECOVER_USAGE, TRACE_HELP, TRACE_USAGE
from probekit.records import record, replaced

__all__ = ("Arguments", "HelpWanted", "UsageError", "parse")


class UsageError(Exception):
    """The command line is malformed."""

    def __init__(self, message: str, usage: str = "") -> None:
        super().__init__(message)
        self.usage = usage
        """The usage lines to show with the message, or empty."""


class HelpWanted(Exception):
    """``--help`` was given. ``str()`` of it is the text to print."""


@record
class Arguments:
    """The parsed command line. Fields without a docstring hold the long option of that name: see :mod:`.help`."""

    programs: tuple[tuple[str, str], ...] = ()
    """(letter, text) of ``-n -f -m -P -i -s``, in order."""
    options: tuple[tuple[str, str], ...] = ()
    """(name, value) of ``-x`` and of the letters that stand for an option, in order."""
    args: tuple[str, ...] = ()
    """The values of ``$1``, ``$2`` ..."""
    list: bool = False
    """``-l``."""
    compile_only: bool = False
    """``-e``."""
    version: bool = False
    """``-V``."""
    verbose: bool = False
    """``-v``."""
    disasm: bool = False
    """``-S``."""
    output: str | None = None
    """The file of ``-o``; None for standard output."""
    json: bool = False
    command: str | None = None
    """``-c``."""
    pid: str | None = None
    """``-p``."""
    engine: str = "guest"
    remote: str | None = None
    """``-r``."""
    symbols: str | None = None
    ram: str | None = None
    qmp: str | None = None
    no_cache: bool = False
    timeout: float = 5.0


Change = Callable[[Arguments, str], dict[str, Any]]
"""Returns the fields of the arguments that an option changes, from the arguments so far and the option's value."""


def _flag(name: str) -> Change:
    return lambda arguments, value: {name: True}


def _text(name: str) -> Change:
    return lambda arguments, value: {name: value}


def _option(name: str) -> Change:
    return lambda arguments, value: {"options": (*arguments.options, (name, value))}


def _program(letter: str) -> Change:
    return lambda arguments, value: {"programs": (*arguments.programs, (letter, value))}


def _x(arguments: Arguments, value: str) -> dict[str, Any]:
    name, _, setting = value.partition("=")
    return {"options": (*arguments.options, (name, setting))}


def _engine(arguments: Arguments, value: str) -> dict[str, Any]:
    if value not in ("guest", "stop"):
        raise UsageError(f"--engine is guest or stop, not {value}", TRACE_USAGE)
    return {"engine": value}


def _timeout(arguments: Arguments, value: str) -> dict[str, Any]:
    try:
        return {"timeout": float(value)}
    except ValueError:
        raise UsageError(f"--timeout takes seconds, not {value}", TRACE_USAGE) from None


def _nothing(arguments: Arguments, value: str) -> dict[str, Any]:
    return {}


def _refused(why: str) -> Change:
    def refuse(arguments: Arguments, value: str) -> dict[str, Any]:
        raise UsageError(why, TRACE_USAGE)

    return refuse


def _help(text: str) -> Change:
    def show(arguments: Arguments, value: str) -> dict[str, Any]:
        raise HelpWanted(text)

    return show


@record
class _Option:
    """How one option is parsed."""

    change: Change
    has_value: bool = False
    """Whether the option takes a value."""


_ANONYMOUS = "{} (anonymous tracing) is not available: probekit traces a guest from outside"
_USDT = "{} (user-side static probes) is not available: probekit traces a guest's kernel"

_GUEST: dict[str, _Option] = {
    "-r": _Option(_text("remote"), True),
    "--remote": _Option(_text("remote"), True),
    "--symbols": _Option(_text("symbols"), True),
    "--ram": _Option(_text("ram"), True),
    "--qmp": _Option(_text("qmp"), True),
    "--no-cache": _Option(_flag("no_cache")),
    "--timeout": _Option(_timeout, True),
    "--json": _Option(_flag("json")),
    "-v": _Option(_flag("verbose")),
}

_TRACE: dict[str, _Option] = {
    **_GUEST,
    **{f"-{letter}": _Option(_program(letter), True) for letter in "nfmPis"},
    "-x": _Option(_x, True),
    "-b": _Option(_option("bufsize"), True),
    "-C": _Option(_option("cpp")),
    "-D": _Option(_option("define"), True),
    "-U": _Option(_option("undef"), True),
    "-I": _Option(_option("incdir"), True),
    "-H": _Option(_option("cpphdrs")),
    "-X": _Option(_option("stdc"), True),
    "-L": _Option(_option("libdir"), True),
    "-q": _Option(_option("quiet")),
    "-F": _Option(_option("flowindent")),
    "-w": _Option(_option("destructive")),
    "-Z": _Option(_option("zdefs")),
    "-l": _Option(_flag("list")),
    "-e": _Option(_flag("compile_only")),
    "-V": _Option(_flag("version")),
    "-S": _Option(_flag("disasm")),
    "-o": _Option(_text("output"), True),
    "-c": _Option(_text("command"), True),
    "-p": _Option(_text("pid"), True),
    "--engine": _Option(_engine, True),
    "-3": _Option(_nothing, True),  # -32
    "-6": _Option(_nothing, True),  # -64
    "-a": _Option(_refused(_ANONYMOUS.format("-a"))),
    "-A": _Option(_refused(_ANONYMOUS.format("-A"))),
    "-h": _Option(_refused(_USDT.format("-h"))),
    "-G": _Option(_refused(_USDT.format("-G"))),
    "--help": _Option(_help(TRACE_HELP)),
}

_RECOVER: dict[str, _Option] = {**_GUEST, "--help": _Option(_help(RECOVER_HELP)), "-h": _Option(_help(RECOVER_HELP))}


def parse(argv: list[str]) -> tuple[str, Arguments]:
    """Return the command, ``trace`` or ``recover``, and its arguments.

    Raises :class:`UsageError`, and :class:`HelpWanted` for ``--help``.
    """
    if argv[:1] == ["recover"]:
        arguments = _parse(argv[1:], _RECOVER, RECOVER_USAGE)
        if arguments.args:
            raise UsageError(f"recover takes no argument {arguments.args[0]}", RECOVER_USAGE)
        return "recover", arguments
    if not argv:
        raise UsageError("nothing to do", TRACE_USAGE)
    return "trace", _parse(argv, _TRACE, TRACE_USAGE)


def _parse(argv: list[str], table: dict[str, _Option], usage: str) -> Arguments:
    short = "".join(name[1] + ":" * option.has_value for name, option in table.items() if not name.startswith("--"))
    long = [name[2:] + "=" * option.has_value for name, option in table.items() if name.startswith("--")]
    try:
        found, rest = getopt.gnu_getopt(argv, short, long)
    except getopt.GetoptError as error:
        raise UsageError(error.msg, usage) from None
    arguments = Arguments()
    for name, value in found:
        changes = table[name].change(arguments, value)
        arguments = replaced(arguments, **changes)
    return replaced(arguments, args=tuple(rest))
