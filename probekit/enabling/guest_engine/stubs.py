"""Build the stub of every site: inline increments, or the call of a thunk. Stubs are placed after the shared code.

Sites with the same clauses share a thunk, so each clause adds at most one thunk, and
each site adds one small stub.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from probekit.buffers.actions import Exit
from probekit.codegen.context import CodegenContext
from probekit.codegen.costs import calibration_text
from probekit.codegen.image import CodeImage, ThunkKey, build_image
from probekit.codegen.inline import inline_aggregation, inline_bodies, inline_body_size, inline_increment
from probekit.codegen.reg_alloc import FiringKind
from probekit.codegen.thunk import CALL_BODY_SIZE, call_body
from probekit.enabling.firing_order import by_address
from probekit.enabling.sites import EnabledSite
from probekit.errors import InternalError
from probekit.guest.tracepoints import CALL_ENTRY_SIZE, TracepointProbe, call_table, caller_code
from probekit.interruption import until_interrupted
from probekit.ir.ops import Clause, Program, UpdateAgg
from probekit.isa.assemble import assemble
from probekit.patch.detours import compose_stub, site_edit, stub_shape
from probekit.patch.edits import Edit
from probekit.patch.hooks import HOOK_PREFIX_SIZE, HOOK_SUFFIX_SIZE, Hook, MarkerHook, TracepointHook, hook_stub
from probekit.patch.sites import JUMP_SIZE, ExitSite, InsnSite, Site, may_need_trap

__all__ = ("BuiltCode", "Calibrations", "StubPlan", "build_code", "code_size", "plan_stubs")

_PUSHFQ, _POPFQ = b"\x9c", b"\x9d"  # pushfq; popfq: flags are in use between two instructions
_INT3 = b"\xcc"  # int3
_EMPTY: ThunkKey = ("entry", ())
"""A thunk without clauses, whose time is measured."""


@dataclass(frozen=True, slots=True)
class StubPlan:
    """How each site runs its clauses."""

    inline: tuple[tuple[int, ...] | None, ...]
    """By site number: the aggregations that the stub counts in, or None when it calls a thunk."""
    thunks: frozenset[ThunkKey]
    """The thunks that are called."""


class Calibrations(NamedTuple):
    """Addresses of the functions that measure the time of a firing without its clauses."""

    thunk: int
    """Address of the function that measures the call of an empty thunk."""
    inline: int
    """Address of the function that measures an inline increment."""


@dataclass(frozen=True, slots=True)
class BuiltCode:
    """All executable bytes, and the edits and registrations that lead to them."""

    code: bytes
    edits: tuple[Edit, ...]
    """The jumps and INT3s to write into guest text."""
    tracepoint_probes: tuple[TracepointProbe, ...]
    """The functions to register with tracepoints."""
    markers: tuple[tuple[MarkerHook, int], ...]
    """Markers, each with the address of the function that it will call."""
    stubs: dict[int, int]
    """Addresses of the stubs of INT3 sites, by the site's address."""
    copies: dict[int, int]
    """Addresses of the copies of probed instructions, by the site's address."""
    image: CodeImage
    """The shared code."""
    caller: int
    """Address of the routine that registers many tracepoint probes; see :class:`BatchRoutine`."""
    table: int
    """Address of the memory for that routine's table."""
    calibrations: Calibrations | None
    """None where clauses are not measured."""


def _kind(site: EnabledSite) -> FiringKind:
    match site.probe.kind:
        case "watch" | "begin" | "end" | "error" | "tick":
            raise InternalError(f"a {site.probe.kind} probe has a site in the guest engine")
        case "syscall" if site.compat:
            return "syscall32"
        case kind:
            return kind if site.call is None else "sysend"


def _exits(clause: Clause) -> bool:
    return clause.record is not None and any(isinstance(action, Exit) for action in clause.record.actions)


def plan_stubs(program: Program, sites: Sequence[EnabledSite], context: CodegenContext) -> StubPlan:
    """Decide for every site how it runs its clauses. A site is inline only when all its clauses are single increments.

    Increments do not look at the activity word, so there are none in a program where a clause calls ``exit()``.
    """
    exits = any(_exits(program.clauses[number]) for number in {n for site in sites for n in site.clauses})
    # Nor where clauses call into the kernel: inline increments would also count the kernel functions of those calls.
    single = {c.index: None if exits or context.services else inline_aggregation(c, context) for c in program.clauses}
    thunks: set[ThunkKey] = set()
    if context.layout.costs is not None:
        # The sum of an aggregation tells how often its clause ran inline, so only one clause may use it.
        users = Counter(agg for clause in program.clauses for agg in _aggregated(clause))
        single = {number: None if agg is None or users[agg] > 1 else agg for number, agg in single.items()}
        thunks.add(_EMPTY)
    decided: dict[tuple[int, ...], tuple[int, ...] | None] = {}
    inline: list[tuple[int, ...] | None] = []
    for site in sites:
        if site.clauses not in decided:
            aggs = [single[number] for number in site.clauses]
            decided[site.clauses] = tuple(a for a in aggs if a is not None) if None not in aggs else None
        # Where several system calls end in one function, a thunk must first check which of them this is.
        choice = decided[site.clauses] if site.call is None else None
        inline.append(choice)
        if choice is None:
            thunks.add((_kind(site), site.clauses))
    return StubPlan(tuple(inline), frozenset(thunks))


def _aggregated(clause: Clause) -> set[int]:
    return {op.agg for block in clause.blocks for op in block.ops if isinstance(op, UpdateAgg)}


def _calibrations(image: CodeImage, context: CodegenContext, addr: int) -> tuple[bytes, Calibrations | None]:
    """Assemble the functions that measure times, for ``addr``; empty when clauses are not measured."""
    costs = context.layout.costs
    if costs is None:
        return b"", None
    first = assemble(calibration_text(f"push 0; call {image.thunks[_EMPTY]:#x}"), addr)
    second = assemble(calibration_text(inline_increment(costs.spare, context)), addr + len(first))
    return first + second, Calibrations(addr, addr + len(first))


def _around(site: Site | Hook, body_size: int) -> tuple[int, int]:
    """Return how many bytes a site's stub has before the body, and in total."""
    if isinstance(site, Hook):
        return HOOK_PREFIX_SIZE, HOOK_PREFIX_SIZE + body_size + HOOK_SUFFIX_SIZE
    shape = stub_shape(site, body_size)
    return shape.prefix_size, shape.total_size


def code_size(
    program: Program, sites: Sequence[EnabledSite], plan: StubPlan, context: CodegenContext, near: int
) -> int:
    """Return an upper bound of the bytes that :func:`build_code` makes. ``near``: any address near guest text."""
    image = build_image(program, plan.thunks, context, near)
    bodies = {aggs: inline_body_size(len(aggs), context) for aggs in set(plan.inline) if aggs is not None}
    around = sum(_around(site.site, 2)[1] for site in sites)  # a body may keep the flags
    hooks = sum(isinstance(site.site, TracepointHook) for site in sites)
    room = len(caller_code()) + 8 + CALL_ENTRY_SIZE * hooks if hooks else 0
    room += len(_calibrations(image, context, near)[0])
    return len(image.code) + 64 + room + around + sum(CALL_BODY_SIZE if a is None else bodies[a] for a in plan.inline)


def build_code(
    program: Program, sites: Sequence[EnabledSite], plan: StubPlan, context: CodegenContext, addr: int
) -> BuiltCode:
    """Build all code for ``addr``: the shared code, then the stubs. Sites at one address share a stub."""
    image = build_image(program, plan.thunks, context, addr)
    timing, calibrations = _calibrations(image, context, addr + len(image.code))
    code = bytearray(image.code + timing)
    edits: list[Edit] = []
    tracepoint_probes: list[TracepointProbe] = []
    markers: list[tuple[MarkerHook, int]] = []
    stubs: dict[int, int] = {}
    copies: dict[int, int] = {}
    bodies = _Bodies(plan, context, image)
    for members in until_interrupted(by_address(sites).values()):
        main = _main(members)
        stub_addr = addr + len(code)
        if len(members) == 1 and not isinstance(main, Hook | InsnSite) and len(main.old) >= JUMP_SIZE:
            # Nearly every site is of this form, and there may be 90,000 of them.
            body = bodies.of(members[0], stub_addr + (_around(main, 0)[0] if isinstance(main, ExitSite) else 0))
            code += compose_stub(main, stub_addr, body)
            edits.append(site_edit(main, stub_addr))
            continue
        before, body = bodies.of_all(members, main, stub_addr)
        main_addr = stub_addr + len(before)
        code += before
        if isinstance(main, Hook):
            code += hook_stub(body)
            if isinstance(main, TracepointHook):
                tracepoint_probes.append(TracepointProbe(main.addr, stub_addr))
            else:
                markers.append((main, stub_addr))
            continue
        code += compose_stub(main, main_addr, body)
        edits.append(site_edit(main, stub_addr))
        if may_need_trap(main):
            stubs[main.addr] = stub_addr
        if isinstance(main, InsnSite):
            copies[main.addr] = main_addr + len(body)
    caller = addr + len(code)
    table = -(-(caller + len(caller_code())) // 8) * 8
    if tracepoint_probes:
        code += caller_code().ljust(table - caller, _INT3) + call_table(tracepoint_probes)
    return BuiltCode(
        code=bytes(code),
        edits=tuple(edits),
        tracepoint_probes=tuple(tracepoint_probes),
        markers=tuple(markers),
        stubs=stubs,
        copies=copies,
        image=image,
        caller=caller,
        table=table,
        calibrations=calibrations,
    )


def _main(members: Sequence[EnabledSite]) -> Site | Hook:
    """Return the site that decides the form of the stub of these, which have one address: an entry or exit, if any."""
    return next((m.site for m in members if not isinstance(m.site, InsnSite)), members[0].site)


class _Bodies:
    """Makes the part of a stub that runs the clauses of one probe."""

    def __init__(self, plan: StubPlan, context: CodegenContext, image: CodeImage) -> None:
        self._inline = plan.inline
        self._thunks = image.thunks
        self._made = {aggs: inline_bodies(aggs, context) for aggs in set(plan.inline) if aggs is not None}

    def of(self, site: EnabledSite, addr: int) -> bytes:
        """Return the body of one site for ``addr``."""
        aggs = self._inline[site.number]
        if aggs is None:
            return call_body(site.number, addr, self._thunks[_kind(site), site.clauses])
        body = self._made[aggs](site.number)
        return _PUSHFQ + body + _POPFQ if isinstance(site.site, InsnSite) else body

    def of_all(self, members: Sequence[EnabledSite], main: Site | Hook, stub_addr: int) -> tuple[bytes, bytes]:
        """Return the bodies of all sites at one address, whose stub at ``stub_addr`` has the form of ``main``.

        The first result goes before the stub proper, the second inside it as its body. The bodies are in the order of
        ``members``. Inside the stub of a conditional jump those run that fire when the jump is taken; instructions
        fire in any case, and before it.
        """
        outside = [m for m in members if isinstance(main, ExitSite) and not isinstance(m.site, ExitSite)]
        before, body = b"", b""
        for site in outside:
            before += self.of(site, stub_addr + len(before))
        body_addr = stub_addr + len(before) + _around(main, 0)[0]
        for site in members[len(outside) :]:
            body += self.of(site, body_addr + len(body))
        return before, body
