"""Runtime options: one table for ``-x``, ``#pragma D option`` and the environment's ``DTRACE_OPT_*``.

Values have DTrace's suffixes: sizes ``k m g t``, times ``ns us ms s m h d`` and
``hz``, booleans as words. An option that is not in the table is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from probekit.errors import ProbekitError

__all__ = ("OPTIONS", "OptionError", "Options", "apply_options", "environment_options")


class OptionError(ProbekitError):
    """An option that does not exist or a value that it does not take. ``name``; ``value``."""

    def __init__(self, message: str, *, name: str, value: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.name = name
        self.value = value


@dataclass(frozen=True, slots=True)
class Options:
    """``aggsize``, ``bufsize``: bytes a CPU. ``switchrate_ns``: how often rings are read at least.

    ``safepoint_ns``: limit for reaching a place where guest functions may be called. ``quiet``: only explicit output.
    ``zdefs``: descriptions may match nothing. ``errtags``: tags in compile errors.
    """

    aggsize: int = 1 << 20
    bufsize: int = 1 << 20
    switchrate_ns: int = 1_000_000_000
    safepoint_ns: int = 20_000_000_000
    quiet: bool = False
    zdefs: bool = False
    errtags: bool = False
    defaultargs: bool = False


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
    **dict.fromkeys(("", "yes", "enable", "enabled", "true", "on", "set", "1"), True),
    **dict.fromkeys(("no", "disable", "disabled", "false", "off", "unset", "0"), False),
}
_NUMBER = re.compile(r"(\d{1,15})([a-z]*)")


def _size(text: str) -> int:
    """``4m`` in bytes."""
    match = _NUMBER.fullmatch(text.lower())
    if match is None or match[2] not in _SIZES:
        raise ValueError("a size such as 512k or 4m")
    return int(match[1]) * _SIZES[match[2]]


def _time(text: str) -> int:
    """``10hz`` or ``100ms`` in nanoseconds; a bare number is hz, as DTrace has it."""
    match = _NUMBER.fullmatch(text.lower())
    if match is None or int(match[1]) == 0:
        raise ValueError("a rate or time such as 10hz or 100ms")
    if match[2] in ("", "hz"):
        return 1_000_000_000 // int(match[1])
    if match[2] not in _TIMES:
        raise ValueError("a rate or time such as 10hz or 100ms")
    return int(match[1]) * _TIMES[match[2]]


def _boolean(text: str) -> bool:
    try:
        return _BOOLEANS[text.lower()]
    except KeyError:
        raise ValueError("yes or no") from None


@dataclass(frozen=True, slots=True)
class OptionInfo:
    """``field``: of :class:`Options`; ``parse``: text to value, ValueError says what is wanted; ``least``/``most``."""

    field: str
    parse: Callable[[str], int | bool]
    least: int = 0
    most: int = 1 << 62


OPTIONS: Mapping[str, OptionInfo] = {
    "aggsize": OptionInfo("aggsize", _size, 4096, 1 << 28),
    "bufsize": OptionInfo("bufsize", _size, 4096, 1 << 28),
    "defaultargs": OptionInfo("defaultargs", _boolean),
    "errtags": OptionInfo("errtags", _boolean),
    "quiet": OptionInfo("quiet", _boolean),
    "safepoint": OptionInfo("safepoint_ns", _time, 1_000_000),
    "switchrate": OptionInfo("switchrate_ns", _time, 1_000_000, 60_000_000_000),
    "zdefs": OptionInfo("zdefs", _boolean),
}


def apply_options(options: Options, settings: Iterable[tuple[str, str]]) -> Options:
    """``options`` with each ``(name, value)`` applied in order. Raises :class:`OptionError`."""
    for name, value in settings:
        info = OPTIONS.get(name)
        if info is None:
            known = ", ".join(sorted(OPTIONS))
            raise OptionError(f"there is no option {name!r}", name=name, value=value, hint=f"options are {known}")
        try:
            parsed = info.parse(value)
        except ValueError as error:
            raise OptionError(f"option {name} takes {error}, not {value!r}", name=name, value=value) from None
        if not isinstance(parsed, bool) and not info.least <= parsed <= info.most:
            raise OptionError(f"option {name} cannot be {value}", name=name, value=value)
        change: dict[str, Any] = {info.field: parsed}
        options = replace(options, **change)
    return options


def environment_options(environ: Mapping[str, str]) -> list[tuple[str, str]]:
    """``DTRACE_OPT_name=value`` of the environment, for options that exist."""
    prefix = "DTRACE_OPT_"
    found = ((key.removeprefix(prefix).lower(), value) for key, value in environ.items() if key.startswith(prefix))
    return [(name, value) for name, value in found if name in OPTIONS]


assert {info.field for info in OPTIONS.values()} == {f.name for f in fields(Options)}, "every option has its field"
