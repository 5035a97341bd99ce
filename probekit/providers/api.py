"""Probes, and the contract of a provider."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from probekit.probe.names import ProbeDescription, ProbeName

__all__ = ("Function", "Probe", "ProbeKind", "Provider")

ProbeKind = Literal["entry", "return", "begin", "end", "error", "tick"]


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the guest kernel. ``module``: as D shows it (``vmlinux`` for the kernel itself).

    ``aliases``: other names of the same address, which match too; ``cold``: ranges split off by the compiler.
    """

    addr: int
    size: int
    name: str
    module: str
    aliases: tuple[str, ...] = ()
    cold: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Probe:
    """One probe. ``function``: where it is in the guest; None for probes that the host fires itself.

    ``period_ns``: of a timed probe, else 0.
    """

    id: int
    name: ProbeName
    kind: ProbeKind
    function: Function | None = None
    period_ns: int = 0


class Provider(Protocol):
    """Publishes probes. ``name`` is a fixed provider name."""

    @property
    def name(self) -> str: ...

    def match(self, description: ProbeDescription) -> Iterator[Probe]:
        """Every probe that the description names, in ID order."""
        ...

    def by_id(self, probe_id: int) -> Probe | None: ...
