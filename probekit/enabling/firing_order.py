"""Decide which of several probes at one place fires first. Both engines ask here.

A system call begins before its function does and ends after it, and an instruction is inside its function. So the
outer probe comes first where something begins, and last where it ends. DTrace 2.0.7 on Linux does the same, whatever
the order of the clauses::

    syscall entry, fbt entry, kinst      at a function's first instruction
    kinst, fbt return, syscall return    at an instruction that returns

Clauses of one probe run in the order of the program.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from probekit.providers.api import GuestKind, ProbeKind

if TYPE_CHECKING:
    from probekit.enabling.sites import EnabledSite

__all__ = ("by_address",)

_ORDER: tuple[GuestKind, ...] = ("syscall", "entry", "instruction", "return", "sysret", "tracepoint", "marker", "watch")
"""Kinds of probes as they fire at one place. The last three share none with others; each of them is a place alone."""

_RANK: dict[ProbeKind, int] = {kind: rank for rank, kind in enumerate(_ORDER)}


def by_address(sites: Sequence[EnabledSite]) -> dict[int, list[EnabledSite]]:
    """Return the sites at each address, those of one address in the order in which their probes fire.

    Probes of one kind keep the order that they have in ``sites``, which is that of their IDs.
    """
    found: dict[int, list[EnabledSite]] = {}
    for site in sites:
        found.setdefault(site.site.addr, []).append(site)
    if len(found) == len(sites):  # nearly always; there may be 90,000
        return found
    for members in found.values():
        if len(members) > 1:
            members.sort(key=lambda member: _RANK[member.probe.kind])
    return found
