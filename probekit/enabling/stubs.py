"""The stub of every site: inline increments, or the call of a thunk; laid out behind the shared code.

Sites with the same clauses share a thunk, so code grows with clauses, and only
one small stub with sites.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from probekit.buffers.actions import Exit
from probekit.codegen.context import Context, ProbeKind
from probekit.codegen.image import Image, ThunkKey, build_image
from probekit.codegen.inline import inline_aggregation, inline_body, inline_body_size
from probekit.codegen.thunk import CALL_BODY_SIZE, call_body
from probekit.enabling.sites import EnabledSite
from probekit.ir.ops import Clause, Program
from probekit.patch.detours import compose, site_edit, stub_shape
from probekit.patch.edits import Edit

__all__ = ("StubPlan", "build_code", "code_size", "plan_stubs")


@dataclass(frozen=True, slots=True)
class StubPlan:
    """How each site is served. ``inline``: by site index, the aggregations to count in, or None for a thunk call."""

    inline: tuple[tuple[int, ...] | None, ...]
    thunks: frozenset[ThunkKey]


def _kind(site: EnabledSite) -> ProbeKind:
    return "entry" if site.probe.kind == "entry" else "return"


def _exits(clause: Clause) -> bool:
    return clause.record is not None and any(isinstance(action, Exit) for action in clause.record.actions)


def plan_stubs(program: Program, sites: Sequence[EnabledSite], context: Context) -> StubPlan:
    """Decide for every site. A site is inline only when all its clauses are single increments.

    Increments do not look at the activity word, so there are none beside a clause that sets it by ``exit()``.
    """
    exits = any(_exits(program.clauses[number]) for number in {n for site in sites for n in site.clauses})
    single = {c.index: None if exits else inline_aggregation(c, context) for c in program.clauses}
    decided: dict[tuple[int, ...], tuple[int, ...] | None] = {}
    inline: list[tuple[int, ...] | None] = []
    thunks: set[ThunkKey] = set()
    for site in sites:
        if site.clauses not in decided:
            aggs = [single[number] for number in site.clauses]
            decided[site.clauses] = tuple(a for a in aggs if a is not None) if None not in aggs else None
        choice = decided[site.clauses]
        inline.append(choice)
        if choice is None:
            thunks.add((_kind(site), site.clauses))
    return StubPlan(tuple(inline), frozenset(thunks))


def _sizes(sites: Sequence[EnabledSite], plan: StubPlan, context: Context) -> list[tuple[int, int]]:
    """``(prefix, total)`` bytes of every stub."""
    known: dict[int, int] = {}
    sizes: list[tuple[int, int]] = []
    for site, aggs in zip(sites, plan.inline, strict=True):
        if aggs is None:
            body = CALL_BODY_SIZE
        else:
            if len(aggs) not in known:
                known[len(aggs)] = inline_body_size(len(aggs), context)
            body = known[len(aggs)]
        shape = stub_shape(site.site, body)
        sizes.append((shape.prefix_size, shape.total_size))
    return sizes


def code_size(program: Program, sites: Sequence[EnabledSite], plan: StubPlan, context: Context, near: int) -> int:
    """An upper bound of the bytes that :func:`build_code` makes. ``near``: any address near guest text."""
    image = build_image(program, plan.thunks, context, near)
    return len(image.code) + 64 + sum(total for _, total in _sizes(sites, plan, context))


def build_code(
    program: Program, sites: Sequence[EnabledSite], plan: StubPlan, context: Context, addr: int
) -> tuple[bytes, list[Edit], Image]:
    """All executable bytes for ``addr``, and the edits that lead every site to its stub."""
    image = build_image(program, plan.thunks, context, addr)
    code = bytearray(image.code)
    edits: list[Edit] = []
    for site, aggs, (prefix, _) in zip(sites, plan.inline, _sizes(sites, plan, context), strict=True):
        stub_addr = addr + len(code)
        if aggs is None:
            body = call_body(site.index, stub_addr + prefix, image.thunks[_kind(site), site.clauses])
        else:
            body = inline_body(aggs, site.index, context)
        code += compose(site.site, stub_addr, body)
        edits.append(site_edit(site.site, stub_addr))
    return bytes(code), edits, image
