"""Start the watchdog of one enabling in the guest, and send it the host's heartbeat.

:mod:`probekit.enabling.registrations` stops it before its memory is given back.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from probekit.enabling.registrations import Registrations
from probekit.guest.memory import DataMemory
from probekit.guest.safepoint import SafePoint
from probekit.guest.watchdog import HEARTBEAT, SILENT, Watchdog, WatchdogServices, watchdog_code
from probekit.patch.edits import TextMemory
from probekit.patch.journal_payloads import TIMER, Registration

__all__ = ("Heartbeat",)

_INTERVAL = 1.0  # seconds from one heartbeat to the next


class Heartbeat:
    """Starts the guest's watchdog and sends it heartbeats."""

    def __init__(
        self,
        services: WatchdogServices,
        watchdog: Watchdog,
        *,
        activity: int,
        memory: DataMemory,
        registrations: Registrations,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare, but start nothing yet.

        ``activity``: address of the activity word. ``memory``: accesses our data memory while the guest runs.
        """
        self._services = services
        self._watchdog = watchdog
        self._activity = activity
        self._memory = memory
        self._registrations = registrations
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
        self._registrations.add([Registration(TIMER, tuple(watchdog))])
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
        """Send a heartbeat, and let clauses run again if the watchdog has silenced them.

        This is called before the first probe is live, as the host may have been too busy to send heartbeats. Such a
        timeout is not counted.
        """
        self._last = self._clock()
        self._write_beat()
        if int.from_bytes(self._memory.read(self._activity, 8), "little") == SILENT:
            self._memory.write(self._activity, bytes(8))

    def _write_beat(self) -> None:
        self._beats += 1
        self._memory.write(self._watchdog.words + HEARTBEAT, self._beats.to_bytes(8, "little"))
