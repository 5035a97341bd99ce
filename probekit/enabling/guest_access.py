"""The ways of one enabling to its guest: memory while it stands still, pauses, guest calls, and the log of it all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from probekit.enabling.api import EngineLog
from probekit.guest.facts import GuestFacts
from probekit.guest.memory import PauseClock
from probekit.guest.safepoint import SafePoint
from probekit.patch.edits import TextMemory
from probekit.records import record
from probekit.target.api import Target

__all__ = ("GuestAccess",)


@record
class GuestAccess:
    """``text``: guest memory while the guest is stopped. ``log``: hears of everything before it is done.

    ``patience``: seconds to wait for a place where guest functions may be called; ``cancelled``: asked meanwhile.
    """

    target: Target
    text: TextMemory
    facts: GuestFacts
    log: EngineLog
    clock: PauseClock
    patience: float
    cancelled: Callable[[], bool]

    def safe_point(self, *, ending: bool = False) -> SafePoint:
        """Where guest functions may be called. ``ending``: on the way back, which nobody can cancel."""
        return SafePoint(
            self.target,
            self.facts.call_points,
            log=self.log,
            timeout=self.patience,
            cancelled=_never if ending else self.cancelled,
            clock=self.clock,
        )

    @contextmanager
    def calls(self) -> Iterator[SafePoint]:
        """A safe point; the guest runs on behind it, and stays stopped behind an error."""
        with self.safe_point() as point:
            yield point
        self.target.resume()


def _never() -> bool:
    return False
