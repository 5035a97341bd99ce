"""Reports stability and the arguments of probes for ``-v``, and checks the minimum stability of ``-x amin``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from probekit.cli.errors import ScriptError
from probekit.cli.prototypes import ArgumentTypes
from probekit.cli.sources import Compiled
from probekit.consumer.text.strings import escape_controls
from probekit.enabling.ecb import Matching
from probekit.ir import ops
from probekit.ir.ops import Clause
from probekit.lang.attributes import STABLE, Attributes, parse_attributes, weaker, weakest
from probekit.output.probe_list import STABILITY, argument_lines, attribute_lines
from probekit.providers.api import Probe

__all__ = ("check_attributes", "stability_text")

_MOST_SHOWN = 50


def stability_text(name: str, clauses: Sequence[Clause], matching: Matching, types: ArgumentTypes) -> str:
    """Return the report as dtrace prints it.

    ``name``: the source's name in messages. ``clauses``: the source's clauses. ``types``: finds argument types.
    """
    return "".join(f"{line}\n" for line in _lines(name, clauses, matching, types))


def _lines(name: str, clauses: Sequence[Clause], matching: Matching, types: ArgumentTypes) -> Iterator[str]:
    numbers = {clause.index for clause in clauses}
    probes = [ecb.probe for ecb in matching.ecbs if numbers.intersection(ecb.clauses)]
    yield ""
    yield f"Stability attributes for {name.replace(chr(39), '')}:"
    yield ""
    yield "\tMinimum Probe Description Attributes"
    yield from attribute_lines(weakest([_probe_attributes(probe) for probe in probes]))
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
"""The attributes of built-in variables whose type is defined by the kernel."""


def _statement_attributes(clauses: Sequence[Clause]) -> Attributes:
    named = {
        op.name for clause in clauses for block in clause.blocks for op in block.ops if isinstance(op, ops.LoadBuiltin)
    }
    return weakest([STABLE, *(_UNSTABLE[name] for name in named if name in _UNSTABLE)])


def check_attributes(minimum: str, compiled: Compiled, matching: Matching, *, errtags: bool) -> None:
    """Raise :class:`ScriptError` for a program with a clause that is less stable than ``-x amin``."""
    wanted = parse_attributes(minimum)
    if wanted is None:
        return
    for source, clauses in compiled.by_source():
        for clause in clauses:
            probes = [_probe_attributes(ecb.probe) for ecb in matching.ecbs if clause.index in ecb.clauses]
            has = weakest([*probes, _statement_attributes([clause])])
            if weaker(has, wanted):
                tag = "[D_ATTR_MIN] " if errtags else ""
                message = f"attributes {'/'.join(has)} are less than the minimum, {'/'.join(wanted)}"
                raise ScriptError(f"{source.failed}: {tag}line {clause.line}: {message}")
