"""Parse and match probe names and descriptions, as D writes them: ``provider:module:function:name``.

A :class:`ProbeName` names one probe. A :class:`ProbeDescription` is a pattern:
each field is a glob (``*``, ``?``, ``[...]``, ``[!...]``, ``\\`` escapes) and an
empty field matches everything. Missing fields are missing on the left:
``sys_read:entry`` is function and name (DTrace guide, chapter "D Program Structure").
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from probekit.records import record

__all__ = ("DescriptionError", "ProbeDescription", "ProbeName", "glob_regex", "has_wildcard", "is_glob")

_GLOB_CHARS = frozenset("*?[\\")


class DescriptionError(ValueError):
    """A probe description with more than four fields."""

    def __init__(self, text: str) -> None:
        super().__init__(f"probe description has more than four fields: {text}")
        self.text: str = text
        """The description as it is written."""


class ProbeName(NamedTuple):
    """The full name of one probe."""

    provider: str
    module: str
    function: str
    name: str

    def __str__(self) -> str:
        return f"{self.provider}:{self.module}:{self.function}:{self.name}"


@record
class ProbeDescription:
    """A pattern over probe names."""

    provider: str = ""
    module: str = ""
    function: str = ""
    name: str = ""
    probe_id: int | None = None
    """Set when an integer was written instead of names."""

    @classmethod
    def parse(cls, text: str) -> ProbeDescription:
        """Read ``a:b:c:d``, right-aligned; a bare integer is a probe ID. Raises :class:`DescriptionError`."""
        if text.isdecimal():
            return cls(probe_id=int(text))
        fields = text.split(":")
        if len(fields) > 4:
            raise DescriptionError(text)
        provider, module, function, name = [""] * (4 - len(fields)) + fields
        return cls(provider, module, function, name)

    def __str__(self) -> str:
        if self.probe_id is not None:
            return str(self.probe_id)
        return f"{self.provider}:{self.module}:{self.function}:{self.name}"

    def matches(self, probe: ProbeName) -> bool:
        """Tell whether every field matches. A probe ID never matches here: the registry looks IDs up."""
        return self.probe_id is None and all(
            not pattern or glob_regex(pattern).fullmatch(field) is not None
            for pattern, field in (
                (self.provider, probe.provider),
                (self.module, probe.module),
                (self.function, probe.function),
                (self.name, probe.name),
            )
        )


def is_glob(pattern: str) -> bool:
    """Tell whether the pattern may match more than its own text: it is empty or has a glob character."""
    return not pattern or any(c in _GLOB_CHARS for c in pattern)


def has_wildcard(description: ProbeDescription) -> bool:
    """Tell whether a field has a glob character. An empty field, which matches everything, is not counted."""
    fields = (description.provider, description.module, description.function, description.name)
    return any(c in _GLOB_CHARS for field in fields for c in field)


@lru_cache(maxsize=4096)
def glob_regex(pattern: str) -> re.Pattern[str]:
    """Return the pattern as a regular expression. An unclosed ``[`` stands for itself."""
    out: list[str] = []
    i = 0
    while i < len(pattern):
        c = pattern[i]
        i += 1
        if c == "*":
            out.append(".*")
        elif c == "?":
            out.append(".")
        elif c == "\\" and i < len(pattern):
            out.append(re.escape(pattern[i]))
            i += 1
        elif c == "[":
            # A "]" that comes first is a member of the class.
            end = pattern.find("]", i + 2 if pattern[i : i + 1] == "!" else i + 1)
            out.append(re.escape(c) if end < 0 else _class_regex(pattern[i:end]))
            i = i if end < 0 else end + 1
        else:
            out.append(re.escape(c))
    return re.compile("".join(out), re.DOTALL)


def _class_regex(inside: str) -> str:
    """Return the text between brackets as a regular expression that matches one character."""
    negate = inside.startswith("!")
    body = inside[1:] if negate else inside
    members: list[str] = []
    i = 0
    while i < len(body):
        if body[i + 1 : i + 2] == "-" and i + 2 < len(body):
            low, high = body[i], body[i + 2]
            if low <= high:  # a reversed range such as [z-a] has no members, as fnmatch(3) has it
                members.append(f"{re.escape(low)}-{re.escape(high)}")
            i += 3
        else:
            members.append(re.escape(body[i]))
            i += 1
    if not members:
        return "." if negate else "(?!)"
    return f"[{'^' if negate else ''}{''.join(members)}]"
