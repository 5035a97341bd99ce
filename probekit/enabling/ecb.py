"""Match a program's probe descriptions: which clauses are enabled at which probes."""

from __future__ import annotations

from typing import NamedTuple

from probekit.ir.ops import Program
from probekit.probe.names import ProbeDescription
from probekit.providers.api import GUEST_KINDS, Probe
from probekit.providers.registry import Registry
from probekit.records import record

__all__ = ("Ecb", "Matching", "match_program")


class Ecb(NamedTuple):
    """One probe and the clauses enabled at it, in program order."""

    probe: Probe
    clauses: tuple[int, ...]


@record
class Matching:
    """All ECBs of a program, by probe ID. ``unmatched``: descriptions without a probe, with their clause."""

    ecbs: tuple[Ecb, ...]
    unmatched: tuple[tuple[int, ProbeDescription], ...]

    def of_kind(self, *kinds: str) -> tuple[Ecb, ...]:
        """The ECBs whose probe is of one of these kinds."""
        return tuple(ecb for ecb in self.ecbs if ecb.probe.kind in kinds)

    def in_guest(self) -> tuple[Ecb, ...]:
        """The ECBs whose probes fire in the guest."""
        return self.of_kind(*GUEST_KINDS)


def match_program(program: Program, registry: Registry) -> Matching:
    """Expand every description. A clause is enabled once at a probe, however many of its descriptions match."""
    probes: dict[int, Probe] = {}
    clauses: dict[int, tuple[int, ...]] = {}
    unmatched: list[tuple[int, ProbeDescription]] = []
    for clause in program.clauses:
        alone = (clause.index,)
        for description in clause.probes:
            found = False
            for probe in registry.match(description):
                found = True
                number = probe[0]
                before = clauses.get(number)
                if before is None:
                    probes[number] = probe
                    clauses[number] = alone
                elif before[-1] != clause.index:
                    clauses[number] = before + alone
            if not found:
                unmatched.append((clause.index, description))
    ecbs = tuple([Ecb(probes[number], clauses[number]) for number in sorted(probes)])
    return Matching(ecbs, tuple(unmatched))
