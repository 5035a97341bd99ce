"""Stability: the report of ``-v``, with the arguments of the probes, and the minimum that ``-x amin`` asks for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from probekit.cli.errors import ScriptError
from probekit.cli.prototypes import ArgumentTypes
from probekit.cli.sources import Compiled, ProgramText
from probekit.consumer.strings import escape_controls
from probekit.enabling.ecb import Matching
from probekit.ir import ops
from probekit.ir.ops import Clause
from probekit.lang.attributes import STABLE, Attributes, least, parse_attributes, weaker
from probekit.output.listing import STABILITY, argument_lines, attribute_lines
from probekit.providers.api import Probe

__all__ = ("check_attributes", "stability_text")

_MOST_SHOWN = 50


def stability_text(what: str, clauses: Sequence[Clause], matching: Matching, types: ArgumentTypes) -> str:
    """The report as dtrace prints it. ``clauses``: this source's; ``types``: of arguments."""
    return "".join(f"{line}\n" for line in _lines(what, clauses, matching, types))


def _lines(what: str, clauses: Sequence[Clause], matching: Matching, types: ArgumentTypes) -> Iterator[str]:
    numbers = {clause.index for clause in clauses}
    probes = [ecb.probe for ecb in matching.ecbs if numbers.intersection(ecb.clauses)]
    yield ""
    yield f"Stability attributes for {what.replace(chr(39), '')}:"
    yield ""
    yield "\tMinimum Probe Description Attributes"
    yield from attribute_lines(least([_probe_attributes(probe) for probe in probes]))
    yield ""
    yield "\tMinimum Statement Attributes"
    yield from attribute_lines(_statement_attributes(clauses))
    yield ""
    for probe in probes[:_MOST_SHOWN]:
        yield f"Argument types of {escape_controls(str(probe.name))}:"
        yield from (f"\t{line}" for line in argument_lines(types(probe)))
    yield ""


def _probe_attributes(probe: Probe) -> Attributes:
    return STABILITY.get(probe.name.provider, STABILITY[""])


_UNSTABLE: dict[str, Attributes] = {"curthread": ("Stable", "Private", "Common")}
"""Built-in variables that say something about the kernel's own types."""


def _statement_attributes(clauses: Sequence[Clause]) -> Attributes:
    named = {
        op.name for clause in clauses for block in clause.blocks for op in block.ops if isinstance(op, ops.Builtin)
    }
    return least([STABLE, *(_UNSTABLE[name] for name in named if name in _UNSTABLE)])


def check_attributes(
    minimum: str, sources: Sequence[ProgramText], compiled: Compiled, matching: Matching, *, errtags: bool
) -> None:
    """Refuse a program with a clause that is less stable than ``-x amin``. Raises :class:`ScriptError`."""
    wanted = parse_attributes(minimum)
    if wanted is None:
        return
    first = 0
    for source, count in zip(sources, compiled.counts, strict=True):
        for clause in compiled.program.clauses[first : first + count]:
            probes = [_probe_attributes(ecb.probe) for ecb in matching.ecbs if clause.index in ecb.clauses]
            has = least([*probes, _statement_attributes([clause])])
            if weaker(has, wanted):
                tag = "[D_ATTR_MIN] " if errtags else ""
                message = f"attributes {'/'.join(has)} are less than the minimum, {'/'.join(wanted)}"
                raise ScriptError(f"{source.failed}: {tag}line {clause.line}: {message}")
        first += count
