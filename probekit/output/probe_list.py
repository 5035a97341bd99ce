"""Writes the probes of ``-l`` as a table or as JSON; with ``-v`` also their types, and refusals with the reason.

ID   PROVIDER            MODULE                          FUNCTION NAME
 7        fbt           vmlinux                          vfs_read entry

     Argument Types
             args[0]: struct file *
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from probekit.consumer.events import ProbeIdentity
from probekit.consumer.text.strings import escape_controls
from probekit.output.json_lines import Json, dump, probe_json
from probekit.probe.names import ProbeName

__all__ = (
    "LISTING_HEADER",
    "STABILITY",
    "ListedProbe",
    "Refused",
    "argument_lines",
    "attribute_lines",
    "listing_json",
    "listing_text",
)

LISTING_HEADER = f"{'ID':>5} {'PROVIDER':>10} {'MODULE':>17} {'FUNCTION':>33} NAME"


@dataclass(frozen=True, slots=True)
class ListedProbe:
    """One probe of the table."""

    probe: ProbeIdentity
    arguments: tuple[str, ...] | None = None
    """The C types of ``args[]``, in order; None when they are not known."""
    stability: tuple[str, str, str] = ("Unstable", "Unstable", "Unknown")
    """The stability of its name and of its data, and its dependency class."""
    notes: tuple[str, ...] = ()
    """Other lines about it, such as how its site is patched."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A probe that matches, but cannot be enabled."""

    name: ProbeName
    reason: str
    """Why it cannot be enabled, in one sentence."""


def listing_text(
    probes: Iterable[ListedProbe], refused: Iterable[Refused] = (), *, verbose: bool = False
) -> Iterator[str]:
    """Yield the lines of the table, without line ends. Names come from the guest; control characters are escaped."""
    yield LISTING_HEADER
    for listed in probes:
        yield _line(str(listed.probe.id), listed.probe.name)
        if verbose:
            yield from _details(listed)
    for refusal in refused:
        yield _line("-", refusal.name)
        yield f"\t\tnot available: {escape_controls(refusal.reason)}"


def _line(number: str, name: ProbeName) -> str:
    provider, module, function, last = map(escape_controls, (name.provider, name.module, name.function, name.name))
    return f"{number:>5} {provider:>10} {module:>17} {function:>33} {last}"


STABILITY: Mapping[str, tuple[str, str, str]] = {
    "": ("Private", "Private", "Unknown"),
    "dtrace": ("Stable", "Stable", "Common"),
    "profile": ("Evolving", "Evolving", "Common"),
    "fbt": ("Private", "Private", "ISA"),
    "kinst": ("Private", "Private", "ISA"),
    "syscall": ("Private", "Private", "ISA"),
    "tracepoint": ("Private", "Private", "ISA"),
    "marker": ("Evolving", "Evolving", "Common"),
}
"""The stability of names, the stability of data, and the dependency class, by provider. "" is any other provider."""

_ATTRIBUTES = ("Identifier Names:", "Data Semantics:  ", "Dependency Class:")


def attribute_lines(stability: tuple[str, str, str]) -> Iterator[str]:
    """Yield a line for each of the three attributes."""
    for label, attribute in zip(_ATTRIBUTES, stability, strict=True):
        yield f"\t\t{label} {attribute}"


def argument_lines(arguments: tuple[str, ...] | None) -> Iterator[str]:
    """Yield a line for each type of ``args[]``. They come from the guest, so control characters are escaped."""
    match arguments:
        case None:
            yield "Unknown"
        case ():
            yield "None"
        case _:
            for i, argument in enumerate(arguments):
                yield f"args[{i}]: {escape_controls(argument)}"


def _details(listed: ListedProbe) -> Iterator[str]:
    """Yield the lines that dtrace prints with ``-v``: attributes of the probe and its arguments, types, notes."""
    for title in ("Probe Description Attributes", "Argument Attributes"):
        yield ""
        yield f"\t{title}"
        yield from attribute_lines(listed.stability)
    yield ""
    yield "\tArgument Types"
    yield from (f"\t\t{line}" for line in argument_lines(listed.arguments))
    if listed.notes:
        yield ""
        yield "\tNotes"
        for note in listed.notes:
            yield f"\t\t{escape_controls(note)}"
    yield ""


def listing_json(probes: Iterable[ListedProbe], refused: Iterable[Refused] = ()) -> Iterator[str]:
    """Yield one JSON object for each line, with the line end."""
    for listed in probes:
        entry: Json = {"type": "listing", "id": listed.probe.id, "probe": probe_json(listed.probe.name)}
        if listed.arguments is not None:
            entry["args"] = list(listed.arguments)
        if listed.notes:
            entry["notes"] = list(listed.notes)
        yield dump(entry)
    for refusal in refused:
        yield dump({"type": "refused", "probe": probe_json(refusal.name), "reason": refusal.reason})
