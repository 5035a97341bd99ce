"""Define probes, and the contract of a provider."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, get_args

from probekit.probe.names import ProbeDescription, ProbeName

if TYPE_CHECKING:
    from probekit.kernel.markers import Marker
    from probekit.kernel.tracepoints import Tracepoint

__all__ = (
    "CALL_KINDS",
    "ENTRY_KINDS",
    "GUEST_KINDS",
    "KERNEL_MODULE",
    "Function",
    "Probe",
    "ProbeKind",
    "Provider",
    "WatchedRange",
)

KERNEL_MODULE = "vmlinux"
"""D's name for the kernel itself as a module."""

GuestKind = Literal["entry", "return", "syscall", "sysret", "instruction", "tracepoint", "marker", "watch"]

ProbeKind = GuestKind | Literal["begin", "end", "error", "tick"]

ENTRY_KINDS: tuple[ProbeKind, ...] = ("entry", "syscall")
"""Probes at a function's entry; ``return`` and ``sysret`` are where it returns."""

CALL_KINDS: tuple[ProbeKind, ...] = ("syscall", "sysret")
"""Probes of system calls."""

GUEST_KINDS: tuple[ProbeKind, ...] = get_args(GuestKind)
"""Probes that fire in the guest; the host fires the others itself."""


class Function(NamedTuple):
    """A function of the guest kernel.

    It is a tuple, as probes and their names are, because a script may name all 90,000.
    """

    addr: int
    size: int
    """Bytes."""
    name: str
    module: str
    """As D shows it: ``vmlinux`` for the kernel itself."""
    aliases: tuple[str, ...] = ()
    """Other names of the same address, which match too."""
    cold: tuple[tuple[int, int], ...] = ()
    """``(start, end)`` of parts that the compiler split off (``name.cold``)."""


class WatchedRange(NamedTuple):
    """A range of guest memory, and the accesses to it that fire the probe."""

    addr: int
    size: int
    """Bytes."""
    access: Literal["read", "write"]


class Probe(NamedTuple):
    """One probe."""

    id: int
    name: ProbeName
    kind: ProbeKind
    function: Function | None = None
    """The function that it is in; None for a probe that is in none."""
    period_ns: int = 0
    """The period of a timed probe in nanoseconds, else 0."""
    offset: int = 0
    """The offset of an instruction probe from the function's start, in bytes."""
    tracepoint: Tracepoint | None = None
    """The tracepoint of a ``tracepoint`` probe."""
    watched: WatchedRange | None = None
    """The memory of a ``mem`` probe."""
    marker: Marker | None = None
    """The marker of a ``marker`` probe."""
    others: tuple[Function, ...] = ()
    """More functions that it is in: those of a system call for 32-bit and x32 programs."""

    @property
    def functions(self) -> tuple[Function, ...]:
        """All functions that it is in."""
        return () if self.function is None else (self.function, *self.others)

    @property
    def in_guest(self) -> bool:
        """Whether it fires in the guest."""
        return self.kind in GUEST_KINDS


class Provider(Protocol):
    """Publishes probes."""

    @property
    def name(self) -> str:
        """The first field of its probes' names."""
        ...

    def match(self, description: ProbeDescription) -> Iterator[Probe]:
        """Yield every probe that the description names, in ID order."""
        ...

    def by_id(self, probe_id: int) -> Probe | None:
        """Return the probe with this ID, or None."""
        ...
