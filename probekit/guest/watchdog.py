"""A timer in the guest that silences our clauses when the host has gone.

The host adds to a word in the guest every second or so. A high-resolution timer
of the guest's own looks at it; when it has stood still for some looks, the
timer's function sets the activity word, so that every clause returns at once.
It goes on looking: a host that was only away for a while is heard again::

    words   u64 heartbeat | u64 seen | u64 missed      then the struct hrtimer

The function may start its own timer anew (hrtimer callbacks are allowed to), so
nothing else of the guest is changed. ``hrtimer_cancel`` waits for a callback
that runs, and is called before the memory is given back.

Names: ``hrtimer_init`` until it was replaced by ``hrtimer_setup`` (kernel commit
908a1d775422, v6.13), which is told the function as well.
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
"""What the activity word holds when the watchdog has silenced the clauses. 1 is the host's own ``exit()``."""

WATCHDOG_SIZE = 160
"""Bytes that :func:`watchdog_code` needs at most."""

HEARTBEAT, _SEEN, _MISSED, _TIMER = 0, 8, 16, 24
_PERIOD_NS = 1_000_000_000
_PATIENCE = 5  # looks
_MONOTONIC = 1
_REL_HARD = 0x1 | 0x8  # HRTIMER_MODE_REL_HARD, include/linux/hrtimer.h: in the interrupt itself, on any kernel


class Watchdog(NamedTuple):
    """One of them. ``words``: its memory, zeroed; ``function``: the address of :func:`watchdog_code`."""

    words: int
    function: int

    @property
    def timer(self) -> int:
        """The ``struct hrtimer``."""
        return self.words + _TIMER


@dataclass(frozen=True, slots=True)
class WatchdogServices:
    """Functions of the guest's timers, and what ``struct hrtimer`` is like. Every call needs a :class:`SafePoint`.

    ``setup``: ``init`` takes the function too. ``function``, ``base``: offsets in the struct of ``size`` bytes.
    """

    init: int
    setup: bool
    start: int
    cancel: int
    size: int
    function: int
    base: int

    @property
    def memory(self) -> int:
        """Bytes of data memory that a watchdog needs."""
        return -(-(_TIMER + self.size) // 64) * 64

    def start_watching(self, point: SafePoint, dog: Watchdog, write: Callable[[int, bytes], None]) -> None:
        """Set the timer up and start it. ``write``: to guest data memory."""
        if self.setup:
            point.call(self.init, dog.timer, dog.function, _MONOTONIC, _REL_HARD)
        else:
            point.call(self.init, dog.timer, _MONOTONIC, _REL_HARD)
            write(dog.timer + self.function, dog.function.to_bytes(8, "little"))
        point.call(self.start, dog.timer, _PERIOD_NS, 0, _REL_HARD)

    def stop_watching(self, point: SafePoint, dog: Watchdog, read: Callable[[int, int], bytes]) -> None:
        """Stop it for good, behind its function if that runs just now. ``read``: guest memory."""
        if any(read(dog.timer + self.base, 8)):  # or it was never set up, and there is nothing to wait for
            point.call(self.cancel, dog.timer)


def find_watchdog_services(find: Callable[[str], int | None], timer: CStruct | None) -> WatchdogServices | None:
    """By name; None on a kernel without them, or whose ``struct hrtimer`` is not known."""
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
    """``enum hrtimer_restart function(struct hrtimer *)`` for ``addr``. ``start``: ``hrtimer_start_range_ns``."""
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
            cmp qword ptr [rax + {_MISSED}], {_PATIENCE}
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
