"""Collect how one enabling reaches its guest: memory, pauses, guest calls, and the log of changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from probekit.enabling.api import EngineLog
from probekit.guest.facts import GuestFacts
from probekit.guest.memory import PauseClock
from probekit.guest.safepoint import SafePoint
from probekit.interruption import interruptible
from probekit.patch.edits import TextMemory
from probekit.records import record
from probekit.target.api import Target

__all__ = ("GuestAccess",)


def _assume_alive(_: bool) -> None:
    """Assume that the guest still runs."""


@record
class GuestAccess:
    """The objects that the parts of an engine use to reach the guest."""

    target: Target
    text: TextMemory
    """Guest memory while the guest is stopped."""
    facts: GuestFacts
    log: EngineLog
    """Receives every change before it is made."""
    clock: PauseClock
    safepoint_s: float
    """Seconds to wait for a place where guest functions may be called."""
    cancelled: Callable[[], bool]
    """Returns whether the user wants to stop. Called while we wait for a safe point."""
    alive: Callable[[bool], None] = _assume_alive
    """Raises :class:`GuestGone` when the guest is gone. Its argument: whether the guest is stopped."""

    def safe_point(self, *, ending: bool = False) -> SafePoint:
        """Return a safe point to enter. ``ending``: everything is being undone, so the user cannot cancel the wait."""
        return SafePoint(
            self.target,
            self.facts.call_points,
            log=self.log,
            timeout=self.safepoint_s,
            cancelled=_never if ending else self.cancelled,
            clock=self.clock,
            alive=self.alive,
        )

    def check_interrupted(self) -> None:
        """Raise :class:`probekit.errors.Cancelled` when the user wants to stop."""
        with self.interruptible():
            pass

    def interruptible(self) -> AbstractContextManager[None]:
        """Let the body be given up when the user wants to stop. It must not change the guest's text or call it."""
        return interruptible(self.cancelled)

    @contextmanager
    def calls(self) -> Iterator[SafePoint]:
        """Enter a safe point; let the guest run afterwards, or leave it stopped after an error."""
        with self.safe_point() as point:
            yield point
        self.target.resume()


def _never() -> bool:
    return False
