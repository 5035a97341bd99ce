"""Several instructions under one jump, where a single one has no room for it.

    55             push rbp                 e9 ....        jmp stub
    48 89 e5       mov rbp, rsp       ->
    41 54          push r12                 90             nop, which nothing reaches

    stub: body; push rbp; mov rbp, rsp; push r12; nop; nop; jmp back

Right only where nothing ever begins in the middle: no branch lands there, of the
function itself (every one of them must be known), of its cold part or of any other
function, no static key, no exception fix-up, no call returns there; and, at the
moment of writing, no thread stands there (``inner`` of the site says where that
is). The host looks at every processor and at every task's stack for that.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable

from probekit.isa.decode import decode_one, scan_flow
from probekit.isa.relocate import RelocateError, relocate
from probekit.patch.insns import FunctionInsns
from probekit.patch.sites import JUMP_SIZE, InsnSite, TextFacts

__all__ = ("as_trap", "jump_window", "side_entries")

_NEAR = 1 << 28


def side_entries(functions: Iterable[tuple[int, bytes]], starts: frozenset[int]) -> tuple[int, ...]:
    """Where direct jumps out of functions land that is no function's start. ``functions``: ``(address, bytes)``."""
    found: set[int] = set()
    for addr, code in functions:
        found.update(leave.target for leave in scan_flow(code, addr).exits if leave.target not in starts)
    found.discard(0)
    return tuple(sorted(found))


def jump_window(found: FunctionInsns, offset: int, facts: TextFacts) -> InsnSite | str:
    """The instruction at ``offset`` and as many behind it as a jump needs; or why that cannot be, as a clause."""
    if facts.side_entries is None or not found.jumps_known:
        return "not every jump that may land there is known"
    run: list[InsnSite] = []
    size = 0
    while size < JUMP_SIZE:
        site = found.sites.get(offset + size)
        if site is None:
            return f"the instruction at offset {offset + size} cannot be moved, or the function ends there"
        run.append(site)
        size += len(site.old)
    start = found.addr + offset
    if bisect_left(found.targets, start + size) - bisect_right(found.targets, start) > 0:
        return f"a branch lands inside its {size} bytes"
    if any(site.addr in facts.faulting for site in run):
        return "a fault in it is handled by its address"
    if any(decode_one(site.old, site.addr).target == start for site in run):
        return "it jumps back to where it begins"
    old = b"".join(site.old for site in run)
    try:
        relocate(old, start, start ^ _NEAR)
    except RelocateError as error:
        return error.reason
    return InsnSite(start, old, found.addr, False, len(run[0].old) if len(run) > 1 else 0)


def as_trap(site: InsnSite) -> InsnSite:
    """The same probe by INT3 at its first instruction alone."""
    return InsnSite(site.addr, site.old[: site.first or len(site.old)], site.func_addr, True)
