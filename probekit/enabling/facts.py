"""What the engines need to know of one guest, gathered once after attaching."""

from __future__ import annotations

from dataclasses import dataclass

from probekit.codegen.context import TaskOffsets
from probekit.guest.candidates import CallPlaces
from probekit.guest.linux import LinuxServices

__all__ = ("GuestFacts",)


@dataclass(frozen=True, slots=True)
class GuestFacts:
    """``cpu_offsets``: per-CPU base of each possible CPU, by CPU number. ``online``: those that run now.

    ``places``: where guest functions may be called.
    ``task``: None when the kernel has no types. ``clock``: ``ktime_get_mono_fast_ns`` or None.
    ``preemptible``: kernel code may lose its CPU between two instructions.
    ``tsc_khz``: time stamp counter ticks a millisecond, 0 when unknown.
    """

    services: LinuxServices
    places: CallPlaces
    cpu_offsets: dict[int, int]
    online: tuple[int, ...]
    task: TaskOffsets | None
    clock: int | None
    preemptible: bool
    tsc_khz: int
