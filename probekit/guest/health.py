"""Notice that the guest rebooted, panicked or was shut down.

The gdb stub does not report a reset, and no panic while nobody waits for a stop.
:class:`LivenessMonitor` reads the kernel's tick counter in the shared RAM file,
which costs the guest nothing. The guest is stopped for a closer look only when
the counter has not changed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from probekit.errors import GuestError, GuestGone, TargetError, UnsupportedError
from probekit.target.api import Target

__all__ = (
    "LivenessMonitor",
    "check_events",
    "check_status",
    "has_panicked",
    "panic_error",
    "reboot_error",
    "resume_unless_dead",
)

ReadMany = Callable[[Sequence[tuple[int, int]]], list[bytes | None]]

_DEAD = {
    "shutdown": "the guest has shut down or panicked",
    "guest-panicked": "the guest's kernel has panicked",
    "internal-error": "the hypervisor met an internal error and stopped the guest",
}
_CONSOLE = "nothing can be restored in it; its console tells what happened"
_EVENTS = {
    "RESET": "the guest was rebooted while it was traced",
    "SHUTDOWN": _DEAD["shutdown"],
    "GUEST_PANICKED": _DEAD["guest-panicked"],
}
_INTERVAL = 2.0  # seconds between two looks


def has_panicked(find: Callable[[str], int | None], read_many: ReadMany) -> bool:
    """Return whether the guest's kernel has panicked. ``find``: symbol to address.

    ``panic_cpu`` holds the number of the CPU that panicked first, and -1 until then (kernel/panic.c).
    """
    where = find("panic_cpu")
    if where is None:
        return False
    (data,) = read_many([(where, 4)])
    return data is not None and data != b"\xff\xff\xff\xff"


def panic_error() -> GuestGone:
    """Return the error for a kernel that has panicked, which can be neither traced nor restored."""
    return GuestGone(_DEAD["guest-panicked"], hint=_CONSOLE)


def reboot_error() -> GuestGone:
    """Return the error for a guest where another kernel runs, or none, than the one that was traced."""
    return GuestGone(
        "the guest was rebooted while it was traced",
        hint="nothing is left to restore in the new kernel; attach again",
        intact=False,  # the new kernel may have been here for seconds
    )


def check_status(target: Target) -> None:
    """Raise :class:`GuestGone` when the stopped guest will never run again."""
    try:
        status = target.monitor("info status")
    except (UnsupportedError, TargetError):
        return  # a stub without a monitor does not say
    for word, meaning in _DEAD.items():
        if f"({word})" in status:
            raise GuestGone(meaning, hint=_CONSOLE)


def resume_unless_dead(target: Target) -> None:
    """Let a stopped guest run, unless it has shut down or panicked."""
    if not target.running:
        with suppress(GuestGone):
            check_status(target)
            target.resume()


def check_events(events: Iterable[Mapping[str, Any]]) -> None:
    """Raise :class:`GuestGone` when one of these QMP events says that the guest rebooted, shut down or panicked."""
    for event in events:
        meaning = _EVENTS.get(str(event.get("event")))
        if meaning is not None:
            raise GuestGone(meaning, hint="nothing is left to restore in it; attach again when it is up")


def _unknown() -> None:
    """Return None: nobody can read the tick counter."""


class LivenessMonitor:
    """Tells every two seconds whether the guest must be stopped for a look at it."""

    def __init__(
        self,
        ticks: Callable[[], int | None],
        same_boot: Callable[[], bool],
        panicked: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
        stopped_ticks: Callable[[], int | None] = _unknown,
    ) -> None:
        """Begin the first two seconds.

        ``ticks``: returns the guest's tick counter, or None when it cannot be read without a stop.
        ``same_boot``: whether the kernel in memory is still the one that we know; called with the guest stopped.
        ``panicked``: whether the kernel has panicked, after which its counter may still run; called when ticks could
        be read, or with the guest stopped.
        ``stopped_ticks``: the tick counter, called with the guest stopped.
        """
        self._ticks = ticks
        self._same_boot = same_boot
        self._panicked = panicked
        self._clock = clock
        self._stopped_ticks = stopped_ticks
        self._last: int | None = None
        self.ticking = False
        """Whether the counter had moved on when it was read last, so that the guest ran until then or nearly."""
        self._newest = 0
        self._went_back = False
        self._next = clock() + _INTERVAL

    def due(self) -> bool:
        """Return whether a look with the guest stopped is needed: the counter did not move, or the kernel panicked."""
        if self._clock() < self._next:
            return False
        self._next = self._clock() + _INTERVAL
        now = self._ticks()
        # A kernel that was booted anew begins to count from the start.
        self.ticking = now is not None and (self._last is None or now > self._last)
        self._last = now
        self._note(now)
        return not self.ticking or self._went_back or self._panicked()

    def take_ticking(self) -> bool:
        """Return whether the guest was seen to tick since the last call."""
        ticking, self.ticking = self.ticking, False
        return ticking

    def _note(self, ticks: int | None) -> None:
        """Notice that time went backwards."""
        if ticks is not None:
            self._went_back = self._went_back or ticks < self._newest
            self._newest = ticks

    def look(self) -> None:
        """Look at the stopped guest. Raises :class:`GuestGone` when it was rebooted, or has panicked.

        Raises another :class:`GuestError` when it is in an earlier state than it was.
        """
        if not self._same_boot():
            raise reboot_error()
        if self._panicked():
            raise panic_error()
        self._note(self._stopped_ticks())
        if self._went_back:
            raise GuestError(
                "a snapshot of the guest was loaded while it was traced",
                hint="what was counted since the snapshot is lost; attach again",
            )
