"""One enabling's watchdog: started, and told again and again that the host is there.

It is stopped by :mod:`probekit.enabling.guest_engine.registrations`, before its memory goes.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from probekit.enabling.guest_engine.registrations import TIMER, Registered
from probekit.guest.memory import DataMemory
from probekit.guest.safepoint import SafePoint
from probekit.guest.watchdog import HEARTBEAT, SILENT, Watchdog, WatchdogServices, watchdog_code
from probekit.patch.edits import TextMemory
from probekit.patch.journal_state import Registration

__all__ = ("Heart",)

_EVERY = 1.0  # seconds


class Heart:
    """``activity``: address of the word that silences the clauses. ``silenced``: how often they were found so."""

    def __init__(
        self,
        services: WatchdogServices,
        dog: Watchdog,
        *,
        activity: int,
        memory: DataMemory,
        registered: Registered,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._services = services
        self._dog = dog
        self._activity = activity
        self._memory = memory
        self._registered = registered
        self._clock = clock
        self._beats = 0
        self._last = clock()
        self.silenced = 0

    def start(self, point: SafePoint, text: TextMemory) -> None:
        """Write the function and start the timer. The log has it before."""
        dog, services = self._dog, self._services
        code = watchdog_code(dog.function, words=dog.words, activity=self._activity, start=services.start)
        text.write_many([(dog.function, code)])
        self._registered.add([Registration(TIMER, tuple(dog))])
        services.start_watching(point, dog, self._memory.write)

    def beat(self) -> None:
        """Tell it that we are there, if it is time to; notice whether it had given us up."""
        now = self._clock()
        if now - self._last < _EVERY:
            return
        self._last = now
        if int.from_bytes(self._memory.read(self._activity, 8), "little") == SILENT:
            self.silenced += 1
        self._tell()

    def wake(self) -> None:
        """Before the first probe goes live: what was said of a host that was busy until now does not count."""
        self._last = self._clock()
        self._tell()
        if int.from_bytes(self._memory.read(self._activity, 8), "little") == SILENT:
            self._memory.write(self._activity, bytes(8))

    def _tell(self) -> None:
        self._beats += 1
        self._memory.write(self._dog.words + HEARTBEAT, self._beats.to_bytes(8, "little"))
