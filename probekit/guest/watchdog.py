"""Build a timer in the guest that turns our clauses off when the host process has gone.

The host increments a word in the guest (the *heartbeat*) about once a second. Each
second a timer in the guest compares it with its last value. When it has not changed
five times, the timer's function sets the activity word, so that every clause returns at
once. The timer goes on, and clears the activity word when the heartbeat is back::

    words   u64 heartbeat | u64 seen | u64 missed      then the struct hrtimer

The function starts its own timer again, as hrtimer callbacks may do, so nothing
else in the guest is changed. ``hrtimer_cancel`` waits for a callback that is running,
and is called before the memory is freed.

``hrtimer_setup`` (kernel commit 908a1d775422, v6.13) replaced ``hrtimer_init``
and also takes the function.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from probekit.guest.safepoint import SafePoint
from probekit.isa.assemble import assemble
from probekit.kernel.c_types import CStruct

__all__ = (
    "HEARTBEAT",
    "SILENT",
    "WATCHDOG_SIZE",
    "Watchdog",
    "WatchdogServices",
    "find_watchdog_services",
    "watchdog_code",
)

SILENT = 2
"""What the activity word holds when the watchdog has silenced the clauses.

1 is written by everybody else: ``exit()`` in the guest, a full ring, the host.
"""

WATCHDOG_SIZE = 160
"""Bytes that :func:`watchdog_code` needs at most."""

HEARTBEAT, _SEEN, _MISSED, _TIMER = 0, 8, 16, 24  # byte offsets in the watchdog's memory
_PERIOD_NS = 1_000_000_000
_MAX_MISSED = 5  # looks without a heartbeat until the clauses are silenced
_MONOTONIC = 1
_REL_HARD = 0x1 | 0x8  # HRTIMER_MODE_REL_HARD, include/linux/hrtimer.h: in the interrupt itself, on any kernel


class Watchdog(NamedTuple):
    """One watchdog in the guest."""

    words: int
    """Address of its memory, which must be zero at first."""
    function: int
    """Address of its :func:`watchdog_code`."""

    @property
    def timer(self) -> int:
        """Address of its ``struct hrtimer``."""
        return self.words + _TIMER


@dataclass(frozen=True, slots=True)
class WatchdogServices:
    """Starts and stops a watchdog, by the kernel's functions for timers."""

    init: int
    """Address of ``hrtimer_setup`` or ``hrtimer_init``."""
    setup: bool
    """Whether ``init`` is ``hrtimer_setup``, which takes the timer's function too."""
    start: int
    """Address of ``hrtimer_start_range_ns``."""
    cancel: int
    """Address of ``hrtimer_cancel``."""
    size: int
    """Bytes of ``struct hrtimer``."""
    function: int
    """Offset of ``function`` in it."""
    base: int
    """Offset of ``base`` in it, which is 0 until the timer is set up."""

    @property
    def memory(self) -> int:
        """How many bytes of data memory a watchdog needs."""
        return -(-(_TIMER + self.size) // 64) * 64

    def start_watching(self, point: SafePoint, watchdog: Watchdog, write: Callable[[int, bytes], None]) -> None:
        """Set the timer up and start it. ``write``: writes guest data memory."""
        if self.setup:
            point.call(self.init, watchdog.timer, watchdog.function, _MONOTONIC, _REL_HARD)
        else:
            point.call(self.init, watchdog.timer, _MONOTONIC, _REL_HARD)
            write(watchdog.timer + self.function, watchdog.function.to_bytes(8, "little"))
        point.call(self.start, watchdog.timer, _PERIOD_NS, 0, _REL_HARD)

    def stop_watching(self, point: SafePoint, watchdog: Watchdog, read: Callable[[int, int], bytes]) -> None:
        """Stop the timer, and wait for its function if that is running. ``read``: reads guest memory."""
        if any(read(watchdog.timer + self.base, 8)):  # else it was never set up
            point.call(self.cancel, watchdog.timer)


def find_watchdog_services(find: Callable[[str], int | None], timer: CStruct | None) -> WatchdogServices | None:
    """Look the functions up by name. Returns None when one is missing, or ``struct hrtimer`` is not known."""
    setup, init = find("hrtimer_setup"), find("hrtimer_init")
    start, cancel = find("hrtimer_start_range_ns"), find("hrtimer_cancel")
    first = setup if setup is not None else init
    if first is None or start is None or cancel is None or timer is None:
        return None
    return WatchdogServices(
        init=first,
        setup=setup is not None,
        start=start,
        cancel=cancel,
        size=timer.size,
        function=timer.field("function").offset,
        base=timer.field("base").offset,
    )


def watchdog_code(addr: int, *, words: int, activity: int, start: int) -> bytes:
    """Assemble ``enum hrtimer_restart function(struct hrtimer *)`` for ``addr``.

    ``words``: address of the watchdog's memory; ``activity``: of the activity word; ``start``: of
    ``hrtimer_start_range_ns``. Returns at most :data:`WATCHDOG_SIZE` bytes.
    """
    return assemble(
        f"""
            endbr64
            movabs rax, {words:#x}
            movabs r8, {activity:#x}
            mov rcx, qword ptr [rax + {HEARTBEAT}]
            cmp rcx, qword ptr [rax + {_SEEN}]
            mov qword ptr [rax + {_SEEN}], rcx
            jne alive
            inc qword ptr [rax + {_MISSED}]
            cmp qword ptr [rax + {_MISSED}], {_MAX_MISSED}
            jb again
            xor eax, eax
            mov edx, {SILENT}
            jmp change
        alive:
            mov qword ptr [rax + {_MISSED}], 0
            mov eax, {SILENT}
            xor edx, edx
        change:
            lock cmpxchg qword ptr [r8], rdx
        again:
            sub rsp, 8
            mov esi, {_PERIOD_NS}
            xor edx, edx
            mov ecx, {_REL_HARD}
            call {start:#x}
            add rsp, 8
            xor eax, eax
            ret
        """,
        addr,
    )
