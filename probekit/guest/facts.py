"""What the engines need to know of one guest, gathered once after attaching."""

from __future__ import annotations

from dataclasses import dataclass, field

from probekit.guest.call_points import CallPoints
from probekit.guest.grace import GraceServices
from probekit.guest.holds import ModuleHolds
from probekit.guest.linux import LinuxServices
from probekit.guest.offsets import KernelServices, TaskOffsets
from probekit.guest.residents import Residents
from probekit.guest.tracepoints import TracepointServices
from probekit.guest.traphooks import TrapFacts
from probekit.guest.watchdog import WatchdogServices

__all__ = ("GuestFacts",)


@dataclass(frozen=True, slots=True)
class GuestFacts:
    """``cpu_offsets``: per-CPU base of each possible CPU, by CPU number. ``online``: those that run now.

    ``call_points``: where guest functions may be called.
    ``task``: None when the kernel has no types. ``clock``: ``ktime_get_mono_fast_ns`` or None.
    ``kernel``: functions of the kernel that clauses may call.
    ``preemptible``: kernel code may lose its CPU between two instructions.
    ``grace``: None where waiting for readers has to be a guest call. ``holds``: None where modules cannot be unloaded.
    ``modules``: the ``struct module`` of each by its name.
    ``tracepoints``: None for a kernel without them.
    ``watchdog``: None where the kernel's timers are not known.
    ``tsc_khz``: time stamp counter ticks a millisecond, 0 when unknown. ``tsc_shared``: it is the same on every CPU.
    ``residents``: finds tasks that sleep inside our code. ``ram``: bytes that the kernel manages, 0 when unknown.
    ``traps``: None where INT3 cannot be taken in this guest.
    """

    services: LinuxServices
    call_points: CallPoints
    cpu_offsets: dict[int, int]
    online: tuple[int, ...]
    task: TaskOffsets | None
    clock: int | None
    preemptible: bool
    holds: ModuleHolds | None
    modules: dict[str, int]
    grace: GraceServices | None
    tracepoints: TracepointServices | None
    watchdog: WatchdogServices | None
    tsc_khz: int
    residents: Residents
    ram: int = 0
    tsc_shared: bool = False
    traps: TrapFacts | None = None
    kernel: KernelServices = field(default_factory=KernelServices)
