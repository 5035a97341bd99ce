"""The stub of every site: inline increments, or the call of a thunk; laid out behind the shared code.

Sites with the same clauses share a thunk, so code grows with clauses, and only
one small stub with sites.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from probekit.buffers.actions import Exit
from probekit.codegen.context import Context
from probekit.codegen.costs import calibration_text
from probekit.codegen.image import Image, ThunkKey, build_image
from probekit.codegen.inline import inline_aggregation, inline_bodies, inline_body_size, inline_increment
from probekit.codegen.reg_alloc import ProbeKind
from probekit.codegen.thunk import CALL_BODY_SIZE, call_body
from probekit.enabling.sites import EnabledSite
from probekit.guest.tracepoints import CALL_ENTRY_SIZE, TracepointProbe, call_table, caller_code
from probekit.ir.ops import Aggregate, Clause, Program
from probekit.isa.assemble import assemble
from probekit.patch.detours import compose, site_edit, stub_shape
from probekit.patch.edits import Edit
from probekit.patch.hooks import HOOK_PREFIX_SIZE, HOOK_SUFFIX_SIZE, Called, Hook, MarkerHook, hook_stub
from probekit.patch.sites import JUMP_SIZE, ExitSite, InsnSite, Site, may_trap

__all__ = ("BuiltCode", "Calibrations", "StubPlan", "build_code", "code_size", "plan_stubs")

_PUSHFQ, _POPFQ = b"\x9c", b"\x9d"  # pushfq; popfq: flags are alive between two instructions
_INT3 = b"\xcc"  # int3
_EMPTY: ThunkKey = ("entry", ())
"""A thunk with no clauses, for its time to be taken."""


@dataclass(frozen=True, slots=True)
class StubPlan:
    """How each site is served. ``inline``: by site index, the aggregations to count in, or None for a thunk call."""

    inline: tuple[tuple[int, ...] | None, ...]
    thunks: frozenset[ThunkKey]


class Calibrations(NamedTuple):
    """Addresses of the functions that take the time of what leads to a clause, and of an inline increment."""

    thunk: int
    inline: int


@dataclass(frozen=True, slots=True)
class BuiltCode:
    """All executable bytes, and what leads to them: ``edits`` of text, ``hooks`` that the kernel is told of.
    ``markers``: each with the function that it is to call.

    By site address: ``stubs`` of the sites of INT3; ``copies``: where the copy of an instruction site begins.
    ``caller``, ``table``: addresses of the routine that tells the kernel, and of the room for that routine's table.
    ``calibrations``: where clauses are measured.
    """

    code: bytes
    edits: tuple[Edit, ...]
    hooks: tuple[TracepointProbe, ...]
    markers: tuple[tuple[MarkerHook, int], ...]
    stubs: dict[int, int]
    copies: dict[int, int]
    image: Image
    caller: int
    table: int
    calibrations: Calibrations | None


def _kind(site: EnabledSite) -> ProbeKind:
    match site.probe.kind:
        case "watch" | "begin" | "end" | "error" | "tick":
            raise AssertionError("no code serves such a probe")
        case kind:
            return kind if site.call is None else "sysend"


def _exits(clause: Clause) -> bool:
    return clause.record is not None and any(isinstance(action, Exit) for action in clause.record.actions)


def plan_stubs(program: Program, sites: Sequence[EnabledSite], context: Context) -> StubPlan:
    """Decide for every site. A site is inline only when all its clauses are single increments.

    Increments do not look at the activity word, so there are none beside a clause that sets it by ``exit()``.
    """
    exits = any(_exits(program.clauses[number]) for number in {n for site in sites for n in site.clauses})
    # Neither may they where clauses call into the kernel, which would count there what the probes themselves do.
    single = {c.index: None if exits or context.services else inline_aggregation(c, context) for c in program.clauses}
    thunks: set[ThunkKey] = set()
    if context.layout.costs is not None:
        # What an aggregation holds is how often its clause was inline: it must have no other.
        users = Counter(agg for clause in program.clauses for agg in _aggregated(clause))
        single = {number: None if agg is None or users[agg] > 1 else agg for number, agg in single.items()}
        thunks.add(_EMPTY)
    decided: dict[tuple[int, ...], tuple[int, ...] | None] = {}
    inline: list[tuple[int, ...] | None] = []
    for site in sites:
        if site.clauses not in decided:
            aggs = [single[number] for number in site.clauses]
            decided[site.clauses] = tuple(a for a in aggs if a is not None) if None not in aggs else None
        # Whose firing it is must be looked at first in a function that several system calls end in.
        choice = decided[site.clauses] if site.call is None else None
        inline.append(choice)
        if choice is None:
            thunks.add((_kind(site), site.clauses))
    return StubPlan(tuple(inline), frozenset(thunks))


def _aggregated(clause: Clause) -> set[int]:
    return {op.agg for block in clause.blocks for op in block.ops if isinstance(op, Aggregate)}


def _calibrations(image: Image, context: Context, addr: int) -> tuple[bytes, Calibrations | None]:
    """The functions that take times, at ``addr``; nothing where nothing is measured."""
    costs = context.layout.costs
    if costs is None:
        return b"", None
    first = assemble(calibration_text(f"push 0; call {image.thunks[_EMPTY]:#x}"), addr)
    second = assemble(calibration_text(inline_increment(costs.spare, context)), addr + len(first))
    return first + second, Calibrations(addr, addr + len(first))


def _around(site: Site | Called, body_size: int) -> tuple[int, int]:
    """Bytes of a site's stub: before the body, and altogether."""
    if isinstance(site, Called):
        return HOOK_PREFIX_SIZE, HOOK_PREFIX_SIZE + body_size + HOOK_SUFFIX_SIZE
    shape = stub_shape(site, body_size)
    return shape.prefix_size, shape.total_size


def code_size(program: Program, sites: Sequence[EnabledSite], plan: StubPlan, context: Context, near: int) -> int:
    """An upper bound of the bytes that :func:`build_code` makes. ``near``: any address near guest text."""
    image = build_image(program, plan.thunks, context, near)
    bodies = {aggs: inline_body_size(len(aggs), context) for aggs in set(plan.inline) if aggs is not None}
    around = sum(_around(site.site, 2)[1] for site in sites)  # a body may keep the flags
    hooks = sum(isinstance(site.site, Hook) for site in sites)
    room = len(caller_code()) + 8 + CALL_ENTRY_SIZE * hooks if hooks else 0
    room += len(_calibrations(image, context, near)[0])
    return len(image.code) + 64 + room + around + sum(CALL_BODY_SIZE if a is None else bodies[a] for a in plan.inline)


def build_code(
    program: Program, sites: Sequence[EnabledSite], plan: StubPlan, context: Context, addr: int
) -> BuiltCode:
    """Everything for ``addr``: the shared code, then the stub of every place. Several probes at one place share it."""
    image = build_image(program, plan.thunks, context, addr)
    timing, calibrations = _calibrations(image, context, addr + len(image.code))
    code = bytearray(image.code + timing)
    edits: list[Edit] = []
    hooks: list[TracepointProbe] = []
    markers: list[tuple[MarkerHook, int]] = []
    stubs: dict[int, int] = {}
    copies: dict[int, int] = {}
    bodies = _Bodies(plan, context, image)
    for members in _places(sites):
        place = members[-1].site
        stub_addr = addr + len(code)
        if len(members) == 1 and not isinstance(place, Called | InsnSite) and len(place.old) >= JUMP_SIZE:
            # Nearly every place is such a one, and there may be 90,000 of them.
            body = bodies.of(members[0], stub_addr + (_around(place, 0)[0] if isinstance(place, ExitSite) else 0))
            code += compose(place, stub_addr, body)
            edits.append(site_edit(place, stub_addr))
            continue
        before = b""
        for member in members[:-1]:
            if type(member.site) is not type(place):
                before += bodies.of(member, stub_addr + len(before))
        place_addr = stub_addr + len(before)
        body, body_addr = b"", place_addr + _around(place, 0)[0]
        for member in members:
            if type(member.site) is type(place):
                body += bodies.of(member, body_addr + len(body))
        code += before
        if isinstance(place, Called):
            code += hook_stub(body)
            if isinstance(place, Hook):
                hooks.append(TracepointProbe(place.addr, stub_addr))
            else:
                markers.append((place, stub_addr))
            continue
        code += compose(place, place_addr, body)
        edits.append(site_edit(place, stub_addr))
        if may_trap(place):
            stubs[place.addr] = stub_addr
        if isinstance(place, InsnSite):
            copies[place.addr] = place_addr + len(body)
    caller = addr + len(code)
    table = -(-(caller + len(caller_code())) // 8) * 8
    if hooks:
        code += caller_code().ljust(table - caller, _INT3) + call_table(hooks)
    return BuiltCode(
        bytes(code), tuple(edits), tuple(hooks), tuple(markers), stubs, copies, image, caller, table, calibrations
    )


def _places(sites: Sequence[EnabledSite]) -> Iterable[Sequence[EnabledSite]]:
    """The sites at each address. Where one is an entry or exit, the place has its form, and it comes last."""
    if len({site.site.addr for site in sites}) == len(sites):
        return ((site,) for site in sites)
    at: dict[int, list[EnabledSite]] = {}
    for site in sites:
        at.setdefault(site.site.addr, []).append(site)
    return [sorted(members, key=lambda member: not isinstance(member.site, InsnSite)) for members in at.values()]


class _Bodies:
    """What stands in a stub for one probe."""

    def __init__(self, plan: StubPlan, context: Context, image: Image) -> None:
        self._inline = plan.inline
        self._thunks = image.thunks
        self._made = {aggs: inline_bodies(aggs, context) for aggs in set(plan.inline) if aggs is not None}

    def of(self, site: EnabledSite, addr: int) -> bytes:
        """The body for ``addr``."""
        aggs = self._inline[site.number]
        if aggs is None:
            return call_body(site.number, addr, self._thunks[_kind(site), site.clauses])
        body = self._made[aggs](site.number)
        return _PUSHFQ + body + _POPFQ if isinstance(site.site, InsnSite) else body
