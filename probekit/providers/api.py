"""Probes, and the contract of a provider."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, get_args

from probekit.probe.names import ProbeDescription, ProbeName

if TYPE_CHECKING:
    from probekit.kernel.markers import Marker
    from probekit.kernel.tracepoints import Tracepoint

__all__ = ("AT_ENTRY", "GUEST_KINDS", "KERNEL_MODULE", "Function", "Probe", "ProbeKind", "Provider", "Watched")

KERNEL_MODULE = "vmlinux"
"""What D calls the kernel itself."""

GuestKind = Literal["entry", "return", "syscall", "sysret", "instruction", "tracepoint", "marker", "watch"]

ProbeKind = GuestKind | Literal["begin", "end", "error", "tick"]

AT_ENTRY: tuple[ProbeKind, ...] = ("entry", "syscall")
"""Probes at a function's entry; ``return`` and ``sysret`` are where it returns."""

GUEST_KINDS: tuple[ProbeKind, ...] = get_args(GuestKind)
"""Probes that fire in the guest; the host fires the others itself."""


class Function(NamedTuple):
    """A function of the guest kernel. ``module``: as D shows it (``vmlinux`` for the kernel itself).

    ``aliases``: other names of the same address, which match too; ``cold``: ranges split off by the compiler.
    A tuple, as probes and their names are: "everything" is 90,000 of each.
    """

    addr: int
    size: int
    name: str
    module: str
    aliases: tuple[str, ...] = ()
    cold: tuple[tuple[int, int], ...] = ()


class Watched(NamedTuple):
    """``size`` bytes of guest memory from ``addr`` on, and the accesses that count."""

    addr: int
    size: int
    access: Literal["read", "write"]


class Probe(NamedTuple):
    """One probe. ``function``, ``tracepoint`` or ``marker``: where it is in the guest; none where the host fires it.

    ``period_ns``: of a timed probe, else 0. ``offset``: of an instruction probe, from the function's start.
    ``watched``: the memory of a ``mem`` probe.
    """

    id: int
    name: ProbeName
    kind: ProbeKind
    function: Function | None = None
    period_ns: int = 0
    offset: int = 0
    tracepoint: Tracepoint | None = None
    watched: Watched | None = None
    marker: Marker | None = None

    @property
    def in_guest(self) -> bool:
        """It fires in the guest."""
        return self.kind in GUEST_KINDS


class Provider(Protocol):
    """Publishes probes. ``name`` is a fixed provider name."""

    @property
    def name(self) -> str: ...

    def match(self, description: ProbeDescription) -> Iterator[Probe]:
        """Every probe that the description names, in ID order."""
        ...

    def by_id(self, probe_id: int) -> Probe | None: ...
