"""Defines the runtime options of ``-x``, ``#pragma D option``, ``setopt()`` and the environment's ``DTRACE_OPT_*``.

Values have DTrace's forms: sizes ``k m g t``, times ``ns us ms s m h d`` and ``hz``, booleans as words. An option of
D that has no meaning here is accepted without effect. It is refused, with its name, when a script could rely on it.

    apply_options(Options(), [("bufsize", "4m")]).bufsize  ->  4194304
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from probekit.errors import InternalError, ProbekitError
from probekit.lang.attributes import parse_attributes
from probekit.records import record, replaced

__all__ = (
    "AGGSIZE",
    "OPTIONS",
    "EngineName",
    "OptionError",
    "OptionSource",
    "Options",
    "apply_options",
    "environment_options",
    "set_option",
)

EngineName = Literal["guest", "stop"]
"""Which engine runs the clauses of guest probes: ``--engine``."""

OptionSource = Literal["command", "program", "runtime"]
"""Where an option is set: ``-x`` or the environment, ``#pragma D option``, ``setopt()``."""

_BAD_NAME = "Invalid option name"
_BAD_VALUE = "Invalid value for specified option"
_BAD_CONTEXT = "Option cannot be used from within a D program"
_TOO_LATE = "Option cannot be set while tracing is active"


class OptionError(ProbekitError):
    """An option does not exist, or does not take this value."""

    def __init__(self, message: str, *, name: str, value: str, reason: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.name = name
        """The option's name, as the user wrote it."""
        self.value = value
        """Its value, as the user wrote it."""
        self.reason = reason
        """The cause of the error, in DTrace's words."""


AGGSIZE = 1 << 20
"""The default of ``aggsize``, in bytes."""


@record
class Options:
    """The values of all options that have an effect.

    Options without a docstring mean what the DTrace guide says in its chapter "Options".
    """

    aggsize: int = AGGSIZE
    """Bytes of each aggregation's table on each CPU."""
    aggsortkey: bool = False
    aggsortkeypos: int = 0
    aggsortpos: int = 0
    aggsortrev: bool = False
    aggzoom: bool = False
    amin: str = ""
    argref: bool = False
    bufpolicy: Literal["switch", "fill", "ring"] = "switch"
    bufsize: int = 1 << 20
    """Bytes of each CPU's ring of records."""
    cpp: bool = False
    cppargs: tuple[str, ...] = ()
    cpphdrs: bool = False
    cpppath: str = "cpp"
    defaultargs: bool = False
    define: tuple[str, ...] = ()
    destructive: bool = False
    droptags: bool = False
    dynvarsize: int = 1 << 20
    """Bytes for the variables of threads and the elements of associative arrays."""
    empty: bool = False
    errtags: bool = False
    flowindent: bool = False
    incdir: tuple[str, ...] = ()
    libdir: tuple[str, ...] = ()
    kinstjump: bool = False
    """Whether kinst probes may replace several instructions by a jump where one alone is too short for it."""
    maxoverhead: int = 0
    """Percent of the guest's CPU time that clauses may take; 0 for no limit."""
    nspec: int = 1
    oformat: str = "text"
    quiet: bool = False
    rawbytes: bool = False
    safepoint_ns: int = 20_000_000_000
    """Nanoseconds to wait for a place where guest functions may be called."""
    quiesce_ns: int = 10_000_000_000
    """Nanoseconds to wait at the end until no task is inside our code."""
    stages: bool = False
    """Whether functions are patched in stages while the guest runs, instead of in one pause."""
    scratchsize: int = 1 << 16
    specsize: int = 32 << 10
    """Bytes of each speculation on each CPU."""
    stackframes: int = 20
    stackindent: int = 14
    stdc: str = "a"
    strsize: int = 256
    switchrate_ns: int | None = None
    """Nanoseconds from one reading of the records to the next; None to read them as they come."""
    undef: tuple[str, ...] = ()
    ustackframes: int = 100
    zdefs: bool = False


_SIZES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_TIMES = {
    **dict.fromkeys(("ns", "nsec"), 1),
    **dict.fromkeys(("us", "usec"), 1_000),
    **dict.fromkeys(("ms", "msec"), 1_000_000),
    **dict.fromkeys(("s", "sec"), 1_000_000_000),
    **dict.fromkeys(("m", "min"), 60_000_000_000),
    **dict.fromkeys(("h", "hour"), 3_600_000_000_000),
    **dict.fromkeys(("d", "day"), 86_400_000_000_000),
}
_BOOLEANS = {
    **dict.fromkeys(("", "yes", "enable", "enabled", "true", "on", "set"), True),
    **dict.fromkeys(("no", "disable", "disabled", "false", "off", "unset"), False),
}
_NUMBER = re.compile(r"(0x[0-9a-f]{1,16}|\d{1,20})([a-z]*)")


def _integer(digits: str) -> int:
    """Read an integer as strtoull(3) does: hexadecimal, octal or decimal."""
    if digits.startswith("0x"):
        return int(digits, 16)
    return int(digits, 8) if digits.startswith("0") else int(digits)


def _parts(text: str) -> tuple[int, str]:
    match = _NUMBER.fullmatch(text.lower())
    if match is None:
        raise ValueError(text)
    return _integer(match[1]), match[2]


def _size(text: str) -> int:
    """Return ``4m`` in bytes."""
    number, suffix = _parts(text)
    if suffix not in _SIZES:
        raise ValueError(text)
    return number * _SIZES[suffix]


def _size_or_unlimited(text: str) -> int:
    return 0 if text == "unlimited" else _size(text)


def _count(text: str) -> int:
    """Return a number; a word that means yes counts as 1, a word that means no as 0."""
    if text.lower() in _BOOLEANS:
        return int(_BOOLEANS[text.lower()])
    number, suffix = _parts(text)
    if suffix:
        raise ValueError(text)
    return number


def _percent(text: str) -> int:
    """Return 5 for ``5`` or ``5%``."""
    return _count(text.removesuffix("%"))


def _time(text: str) -> int:
    """Return ``10hz`` or ``100ms`` in nanoseconds; a number without a unit is in hz, as in DTrace."""
    number, suffix = _parts(text)
    if suffix in ("", "hz"):
        return 1_000_000_000 // number if number else 0
    if suffix not in _TIMES:
        raise ValueError(text)
    return number * _TIMES[suffix]


def _boolean(text: str) -> bool:
    word = text.lower()
    return _BOOLEANS[word] if word in _BOOLEANS else bool(_count(text))


def _text(text: str) -> str:
    if not text:
        raise ValueError(text)
    return text


def _version(text: str) -> str:
    """Return a version of D that can be had: 1.13 or 2.0. Earlier ones lack names that cannot be taken away here."""
    match = re.fullmatch(r"(\d{1,4})\.(\d{1,4})(?:\.\d{1,4})?", text)
    if match is None or (int(match[1]), int(match[2])) not in ((1, 13), (2, 0)):
        raise ValueError(text)
    return text


def _attributes(text: str) -> str:
    if parse_attributes(text) is None:
        raise ValueError(text)
    return text


def _ignored(text: str) -> str:
    return text


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(text)
        return text

    return parse


@record
class OptionInfo:
    """How one option is parsed, and where it may be set."""

    field: str | None
    """The field of :class:`Options` that it sets; None when it is accepted without effect."""
    parse: Callable[[str], int | bool | str]
    """Turns text into a value. Raises ValueError for text that the option does not take."""
    least: int = 0
    """The smallest number that the option takes."""
    most: int = 1 << 62
    """The largest number that the option takes."""
    many: bool = False
    """Whether it may be given several times; its values are then collected."""
    where: Literal["any", "start", "command"] = "any"
    """Where it may be set. ``start``: not by ``setopt()``; ``command``: only by the command line."""
    refused: str = ""
    """Why the option is refused; empty for an option that is available."""


def _own(parse: Callable[[str], int | bool | str], *names: str, **rest: Any) -> dict[str, OptionInfo]:
    """Declare options whose value is the field of the same name in :class:`Options`."""
    return {name: OptionInfo(name, parse, **rest) for name in names}


def _accepted(parse: Callable[[str], int | bool | str], *names: str, **rest: Any) -> dict[str, OptionInfo]:
    """Declare options that are checked and then have no effect here."""
    return {name: OptionInfo(None, parse, **rest) for name in names}


_INTEGER_REGISTERS = 8
"""DTrace's compiler has this many integer registers unless ``iregs`` says more; here it has what the CPU has."""

OPTIONS: Mapping[str, OptionInfo] = {
    # Options for the form of the output may be set at any time.
    **_own(_boolean, "aggsortkey", "aggsortrev", "aggzoom", "flowindent", "quiet", "rawbytes"),
    **_own(_count, "aggsortkeypos", "aggsortpos", "stackindent", most=4096),
    "agghist": OptionInfo(None, _boolean, refused="values are shown as numbers: use quantize() for bars"),
    "aggpack": OptionInfo(None, _boolean, refused="histograms are shown one bucket a line"),
    "encoding": OptionInfo(None, _ignored, refused="it says how aggpack draws, which is not available"),
    # Records are always in order of time, and addresses in user programs are never shown as symbols.
    **_accepted(_boolean, "quietresize", "noresolve", "temporal"),
    # Rates and sizes must be set before tracing starts.
    "switchrate": OptionInfo("switchrate_ns", _time, 0, 3_600_000_000_000),
    "quiesce": OptionInfo("quiesce_ns", _time, 1_000_000, where="start"),
    "safepoint": OptionInfo("safepoint_ns", _time, 1_000_000, where="start"),
    **_accepted(_time, "aggrate", "cleanrate", "statusrate"),
    **_own(_size, "aggsize", "bufsize", "dynvarsize", "scratchsize", "specsize", most=1 << 40, where="start"),
    **_own(_size, "strsize", least=1, most=1 << 20, where="start"),
    **_own(_boolean, "kinstjump", "stages", where="start"),
    **_own(_count, "nspec", most=1 << 16, where="start"),
    **_own(_percent, "maxoverhead", most=100, where="start"),
    **_own(_count, "stackframes", "ustackframes", most=4096, where="start"),
    **_accepted(_count, "maxframes", "jstackframes", "printsize", "pcapsize", where="start"),
    **_accepted(_size, "jstackstrsize", where="start"),
    **_own(_one_of("switch", "fill", "ring"), "bufpolicy", where="start"),
    **_accepted(_one_of("auto", "manual"), "bufresize", where="start"),
    # All CPUs are traced: the first one alone is what a host without a guest has, and no other can be chosen.
    **_accepted(_count, "cpu", most=0, where="start"),
    **_accepted(_size_or_unlimited, "lockmem", where="start"),
    **_own(_boolean, "destructive", where="start"),
    "grabanon": OptionInfo(None, _boolean, where="start", refused="there is no anonymous tracing of a guest"),
    # Options of the compiler.
    **_own(_boolean, "argref", "defaultargs", "droptags", "empty", "errtags", "zdefs", where="start"),
    **_accepted(_boolean, "knodefs", "nolibs", "pspec", "unodefs", "verbose", where="start"),
    **_accepted(_count, "disasm", "pgmax", "tree", where="start"),
    **_own(_one_of("a", "c", "s", "t"), "stdc", where="start"),
    **_accepted(_version, "version", where="start"),
    **_own(_text, "libdir", many=True, where="start"),
    **_own(_boolean, "cpp", "cpphdrs", where="command"),
    **_accepted(_boolean, "core", where="command"),
    **_own(_text, "cpppath", where="command"),
    **_own(_text, "cppargs", "define", "incdir", "undef", many=True, where="command"),
    **_own(_attributes, "amin", where="start"),
    **_own(_one_of("text", "json"), "oformat", where="command"),
    **_accepted(_ignored, "ctfpath", "ctypes", "debug", "dtypes", "tregs", where="start"),
    **_accepted(_count, "iregs", least=_INTEGER_REGISTERS, where="start"),
    **_accepted(_ignored, "kdefs", "udefs", "late", "lazyload", "ldpath", "linkmode", "linktype", where="start"),
    **_accepted(_ignored, "linknommap", "aggpercpu", "preallocate", "strip", "syslibdir", "sysslice", where="start"),
    **_accepted(_ignored, "btfpath", "cppstd", "evaltime", "modpath", "objcopypath", "procfspath", where="start"),
    **_accepted(_ignored, "useruregs", "verifier", "bpflog", "bpflogsize", where="start"),
}


def set_option(options: Options, name: str, value: str, source: OptionSource = "command") -> Options:
    """Return ``options`` with one option changed. Raises :class:`OptionError`.

    ``value``: empty when the user wrote none.
    """
    info = OPTIONS.get(name)
    if info is None:
        raise _refused(name, value, _BAD_NAME, source)
    if info.refused:
        raise _refused(name, value, info.refused, source)
    if source == "runtime" and info.where != "any":
        raise _refused(name, value, _TOO_LATE, source)
    if source == "program" and info.where == "command":
        raise _refused(name, value, _BAD_CONTEXT, source)
    try:
        parsed = info.parse(value)
    except ValueError:
        raise _refused(name, value, _BAD_VALUE, source) from None
    if not isinstance(parsed, bool | str) and not info.least <= parsed <= info.most:
        raise _refused(name, value, _BAD_VALUE, source)
    if info.field is None:
        return options
    change: dict[str, Any] = {info.field: (*getattr(options, info.field), parsed) if info.many else parsed}
    return replaced(options, **change)


def _refused(name: str, value: str, reason: str, source: OptionSource) -> OptionError:
    """Return the error in dtrace's words."""
    if source == "command":
        message = f"failed to set -x {name}: {reason}"
    else:
        message = f"failed to set option '{name}'" + (f" to '{value}'" if value else "") + f": {reason}"
    hint = _close(name) if reason == _BAD_NAME else ""
    return OptionError(message, name=name, value=value, reason=reason, hint=hint)


def _close(name: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name[:64], OPTIONS, n=1)
    return f"did you mean {close[0]}?" if close else ""


def apply_options(options: Options, settings: Iterable[tuple[str, str]], source: OptionSource = "command") -> Options:
    """Return ``options`` with each ``(name, value)`` set in order. Raises :class:`OptionError`."""
    for name, value in settings:
        options = set_option(options, name, value, source)
    return options


def environment_options(environ: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return ``(name, value)`` for each ``DTRACE_OPT_name=value`` of the environment whose option exists."""
    prefix = "DTRACE_OPT_"
    found = ((key.removeprefix(prefix).lower(), value) for key, value in environ.items() if key.startswith(prefix))
    return [(name, value) for name, value in found if name in OPTIONS]


if {i.field for i in OPTIONS.values() if i.field} != set(Options.__annotations__):
    raise InternalError("the table of options and the fields of Options differ")
