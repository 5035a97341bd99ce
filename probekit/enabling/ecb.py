"""Match a program's probe descriptions: which clauses are enabled at which probes."""

from __future__ import annotations

from dataclasses import dataclass

from probekit.ir.ops import Program
from probekit.probe.names import ProbeDescription
from probekit.providers.api import Probe
from probekit.providers.registry import Registry

__all__ = ("Ecb", "Matching", "match_program")


@dataclass(frozen=True, slots=True)
class Ecb:
    """One probe and the clauses enabled at it, in program order."""

    probe: Probe
    clauses: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Matching:
    """All ECBs of a program, by probe ID. ``unmatched``: descriptions without a probe, with their clause."""

    ecbs: tuple[Ecb, ...]
    unmatched: tuple[tuple[int, ProbeDescription], ...]

    def of_kind(self, *kinds: str) -> tuple[Ecb, ...]:
        """The ECBs whose probe is of one of these kinds."""
        return tuple(ecb for ecb in self.ecbs if ecb.probe.kind in kinds)


def match_program(program: Program, registry: Registry) -> Matching:
    """Expand every description. A clause is enabled once at a probe, however many of its descriptions match."""
    probes: dict[int, Probe] = {}
    clauses: dict[int, dict[int, None]] = {}
    unmatched: list[tuple[int, ProbeDescription]] = []
    for clause in program.clauses:
        for description in clause.probes:
            found = False
            for probe in registry.match(description):
                found = True
                probes[probe.id] = probe
                clauses.setdefault(probe.id, {})[clause.index] = None
            if not found:
                unmatched.append((clause.index, description))
    ecbs = tuple(Ecb(probes[number], tuple(clauses[number])) for number in sorted(probes))
    return Matching(ecbs, tuple(unmatched))
