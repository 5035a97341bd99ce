"""Hold what the engines need to know of one guest. :mod:`probekit.guest.find_facts` finds it once, after attaching."""

from __future__ import annotations

from dataclasses import dataclass, field

from probekit.guest.call_points import CallPoints
from probekit.guest.grace_period import GraceServices
from probekit.guest.linux import LinuxServices
from probekit.guest.module_refs import ModuleRefs
from probekit.guest.offsets import KernelServices, TaskOffsets
from probekit.guest.stack_search import StackSearch
from probekit.guest.tracepoints import TracepointServices
from probekit.guest.trap_registration import TrapFacts
from probekit.guest.watchdog import WatchdogServices

__all__ = ("GuestFacts",)


@dataclass(frozen=True, slots=True)
class GuestFacts:
    """The facts of one guest. A field is None where the guest's kernel has no such thing."""

    services: LinuxServices
    """Functions of the kernel that allocate, protect and free memory, and wait for readers."""
    call_points: CallPoints
    """Where guest functions may be called."""
    cpu_offsets: dict[int, int]
    """Per-CPU base of each possible CPU, by CPU number."""
    online: tuple[int, ...]
    """Numbers of the CPUs that run now."""
    task: TaskOffsets | None
    """None when the kernel has no type information."""
    clock: int | None
    """Address of ``ktime_get_mono_fast_ns``, None where the kernel lacks it."""
    preemptible: bool
    """Whether the scheduler may take the CPU from kernel code between any two instructions."""
    module_refs: ModuleRefs | None
    """Takes references to modules; None where modules cannot be unloaded."""
    modules: dict[str, int]
    """Address of each module's ``struct module``, by its name."""
    grace: GraceServices | None
    """Begins a wait for readers; None where the wait has to be a guest call."""
    tracepoints: TracepointServices | None
    """Registers probes of tracepoints; None for a kernel without tracepoints."""
    watchdog: WatchdogServices | None
    """Starts the watchdog; None where the kernel's timers are not known."""
    tsc_khz: int
    """Ticks of the time stamp counter per millisecond, 0 when unknown."""
    stack_search: StackSearch
    """Finds tasks that are inside our code or will return to it."""
    ram: int = 0
    """Bytes of memory that the kernel manages, 0 when unknown."""
    tsc_shared: bool = False
    """Whether the time stamp counter is the same on every CPU."""
    traps: TrapFacts | None = None
    """How the kernel handles INT3; None where our INT3 cannot be handled."""
    kernel: KernelServices = field(default_factory=KernelServices)
    """Functions of the kernel that clauses may call."""
