"""Put several instructions under one jump where a single one has no room for it.

    55             push rbp                 e9 ....        jmp stub
    48 89 e5       mov rbp, rsp       ->
    41 54          push r12                 90             nop, which no CPU executes

    stub: body; push rbp; mov rbp, rsp; push r12; nop; nop; jmp back

This is right only where execution never begins in the middle of these bytes:

- no branch lands there, whether of the function itself (all of them must be known), of its cold part or of another
  function, and no static key and no exception fix-up leads there
- no call returns there
- no thread is there (``InsnSite.interior``) when the jump is written: the host looks at every vCPU and every task's
  stack
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable

from probekit.interruption import until_interrupted
from probekit.isa.decode import decode_one, scan_flow
from probekit.isa.relocate import RelocateError, relocate
from probekit.patch.insn_sites import FunctionInsns
from probekit.patch.sites import JUMP_SIZE, InsnSite, TextFacts

__all__ = ("as_trap", "jump_window", "side_entries")

_TRIAL_DISTANCE = 1 << 28  # from a window to a copy that is made only to see whether one can be made


def side_entries(functions: Iterable[tuple[int, bytes]], starts: frozenset[int]) -> tuple[int, ...]:
    """Return the sorted targets of direct jumps out of functions that are no function's start.

    ``functions``: ``(address, bytes)``; ``starts``: every function's address.
    """
    found: set[int] = set()
    for addr, code in until_interrupted(functions):
        found.update(leave.target for leave in scan_flow(code, addr).exits if leave.target not in starts)
    found.discard(0)
    return tuple(sorted(found))


def jump_window(found: FunctionInsns, offset: int, facts: TextFacts) -> InsnSite | str:
    """Return the instruction at ``offset`` with as many after it as a jump needs, or why they cannot be replaced."""
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
        relocate(old, start, start ^ _TRIAL_DISTANCE)
    except RelocateError as error:
        return error.reason
    return InsnSite(start, old, found.addr, False, len(run[0].old) if len(run) > 1 else 0)


def as_trap(site: InsnSite) -> InsnSite:
    """Return the site for INT3 at the first instruction of ``site`` alone."""
    return InsnSite(site.addr, site.old[: site.first_size or len(site.old)], site.func_addr, True)
