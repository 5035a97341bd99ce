"""Start the watchdog of one enabling in the guest, and send it the host's heartbeat.

:mod:`probekit.enabling.registrations` stops it before its memory is given back.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from probekit.enabling.registrations import Registered
from probekit.guest.memory import DataMemory
from probekit.guest.safepoint import SafePoint
from probekit.guest.watchdog import HEARTBEAT, SILENT, Watchdog, WatchdogServices, watchdog_code
from probekit.patch.edits import TextMemory
from probekit.patch.journal_payloads import TIMER, Registration

__all__ = ("Heartbeat",)

_INTERVAL = 1.0  # seconds from one heartbeat to the next


class Heartbeat:
    """The host's side of the watchdog."""

    def __init__(
        self,
        services: WatchdogServices,
        watchdog: Watchdog,
        *,
        activity: int,
        memory: DataMemory,
        registered: Registered,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare. ``activity``: address of the activity word; ``memory``: our data memory, while the guest runs."""
        self._services = services
        self._watchdog = watchdog
        self._activity = activity
        self._memory = memory
        self._registered = registered
        self._clock = clock
        self._beats = 0
        self._last = clock()
        self.timeouts = 0
        """How often the clauses were found silenced by the watchdog."""

    def start(self, point: SafePoint, text: TextMemory) -> None:
        """Write the timer's function, write the registration to the journal, and start the timer."""
        watchdog, services = self._watchdog, self._services
        code = watchdog_code(watchdog.function, words=watchdog.words, activity=self._activity, start=services.start)
        text.write_many([(watchdog.function, code)])
        self._registered.add([Registration(TIMER, tuple(watchdog))])
        services.start_watching(point, watchdog, self._memory.write)

    def send(self) -> None:
        """Send a heartbeat if one is due, and count it when the watchdog had silenced the clauses."""
        now = self._clock()
        if now - self._last < _INTERVAL:
            return
        self._last = now
        if int.from_bytes(self._memory.read(self._activity, 8), "little") == SILENT:
            self.timeouts += 1
        self._write_beat()

    def restart(self) -> None:
        """Send a heartbeat and clear the watchdog's silence: the host may have been busy until the first probe is live.

        A silence of this kind is not counted.
        """
        self._last = self._clock()
        self._write_beat()
        if int.from_bytes(self._memory.read(self._activity, 8), "little") == SILENT:
            self._memory.write(self._activity, bytes(8))

    def _write_beat(self) -> None:
        self._beats += 1
        self._memory.write(self._watchdog.words + HEARTBEAT, self._beats.to_bytes(8, "little"))
