"""``-v``: the stability report of a program, and the arguments of the probes that it enables."""

from __future__ import annotations

from collections.abc import Iterator

from probekit.consumer.strings import escape_controls
from probekit.enabling.ecb import Matching
from probekit.output.listing import STABILITY, attribute_lines

__all__ = ("stability_text",)

_ORDER = ("Internal", "Private", "Obsolete", "External", "Unstable", "Evolving", "Stable", "Standard")
_CLASSES = ("Unknown", "CPU", "Platform", "Group", "ISA", "Common")
_STATEMENT = ("Stable", "Stable", "Common")
_MOST_SHOWN = 50


def stability_text(what: str, clauses: set[int], matching: Matching) -> str:
    """The report as dtrace prints it. ``clauses``: the numbers of this source's clauses."""
    return "".join(f"{line}\n" for line in _lines(what, clauses, matching))


def _lines(what: str, clauses: set[int], matching: Matching) -> Iterator[str]:
    probes = [ecb.probe for ecb in matching.ecbs if clauses.intersection(ecb.clauses)]
    yield ""
    yield f"Stability attributes for {what.replace(chr(39), '')}:"
    yield ""
    yield "\tMinimum Probe Description Attributes"
    yield from attribute_lines(_least([STABILITY.get(p.name.provider, STABILITY[""]) for p in probes]))
    yield ""
    yield "\tMinimum Statement Attributes"
    yield from attribute_lines(_STATEMENT)
    yield ""
    for probe in probes[:_MOST_SHOWN]:
        yield f"Argument types of {escape_controls(str(probe.name))}:"
        yield "\tNone" if probe.function is None else "\targs are unknown; arg0 to arg9 are int64_t"
    yield ""


def _least(attributes: list[tuple[str, str, str]]) -> tuple[str, str, str]:
    if not attributes:
        return _STATEMENT
    names, data, classes = zip(*attributes, strict=True)
    return min(names, key=_ORDER.index), min(data, key=_ORDER.index), min(classes, key=_CLASSES.index)
