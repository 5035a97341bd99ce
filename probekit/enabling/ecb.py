"""Match a program's probe descriptions to probes: decide which clauses are enabled at which probes."""

from __future__ import annotations

from typing import NamedTuple

from probekit.interruption import until_interrupted
from probekit.ir.ops import Program
from probekit.probe.names import ProbeDescription
from probekit.providers.api import GUEST_KINDS, Probe
from probekit.providers.registry import Registry
from probekit.records import record

__all__ = ("Ecb", "Matching", "match_program")


class Ecb(NamedTuple):
    """An enabling control block: one probe and the clauses enabled at it."""

    probe: Probe
    clauses: tuple[int, ...]
    """Numbers of the clauses, in program order."""


@record
class Matching:
    """Which clauses of a program are enabled at which probes."""

    ecbs: tuple[Ecb, ...]
    """In order of the probes' IDs."""
    unmatched: tuple[tuple[int, ProbeDescription], ...]
    """Descriptions that match no probe, each with the number of its clause."""

    def of_kind(self, *kinds: str) -> tuple[Ecb, ...]:
        """Return the ECBs whose probe is of one of these kinds."""
        return tuple(ecb for ecb in self.ecbs if ecb.probe.kind in kinds)

    def in_guest(self) -> tuple[Ecb, ...]:
        """Return the ECBs whose probes fire in the guest."""
        return self.of_kind(*GUEST_KINDS)


def match_program(program: Program, registry: Registry) -> Matching:
    """Match every description. A clause is enabled once at a probe, however many of its descriptions match."""
    probes: dict[int, Probe] = {}
    clauses: dict[int, tuple[int, ...]] = {}
    unmatched: list[tuple[int, ProbeDescription]] = []
    for clause in program.clauses:
        only_this = (clause.index,)
        for description in clause.probes:
            found = False
            for probe in until_interrupted(registry.match(description)):
                found = True
                number = probe[0]
                before = clauses.get(number)
                if before is None:
                    probes[number] = probe
                    clauses[number] = only_this
                elif before[-1] != clause.index:
                    clauses[number] = before + only_this
            if not found:
                unmatched.append((clause.index, description))
    ecbs = tuple([Ecb(probes[number], clauses[number]) for number in sorted(probes)])
    return Matching(ecbs, tuple(unmatched))
