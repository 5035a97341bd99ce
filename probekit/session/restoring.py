"""Restores the guest at the end of a run, however it ends, or takes what is left of a guest that is gone."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from probekit.errors import GuestGone, ProbekitError, TargetLost
from probekit.session.run_state import RunState

if TYPE_CHECKING:
    from probekit.enabling.api import Drained
    from probekit.session.guest_tracing import GuestTracing

__all__ = ("Restoring",)


class Restoring:
    """Restores the guest of one run. All of it may be done again, and does nothing then."""

    def __init__(
        self,
        guest: GuestTracing | None,
        state: RunState,
        stats: MutableMapping[str, float | int],
        *,
        keep: Callable[[int, int], None],
        turn: Callable[[], AbstractContextManager[object]],
        over: Callable[[], object],
    ) -> None:
        """``guest``: the guest's part of the run; None for a run without a guest.

        ``keep``: receives the index and last value of each global integer. ``turn``: keeps other threads from the
        guest. ``over``: is called when the guest is restored, or when that has failed.
        """
        self._guest = guest
        self._state = state
        self._stats = stats
        self._keep = keep
        self._turn = turn
        self._over = over

    def restore(self) -> tuple[Drained | None, list[str]]:
        """Restore the guest. Returns its last records, and a message for each failure."""
        if self._guest is None:
            return None, []
        try:
            with self._turn():
                # exit() ends tracing on all CPUs at once, and not when the sites are restored.
                drained, problems = self._guest.disable(self._keep, silence=self._state.exit_called)
        finally:
            self._over()
        self._stats.update(self._guest.stats)
        return drained, problems

    def salvage(self, lost: GuestGone | TargetLost) -> tuple[Drained | None, list[str]]:
        """Take what is left of a guest that is gone. Returns the same as :meth:`restore`."""
        return self._guest.salvage(lost, self._keep) if self._guest is not None else (None, [])

    def restore_after(self, error: BaseException) -> None:
        """Restore the guest after an error. Each further failure becomes a note on that error.

        When ``error`` only means that the reader stopped early (GeneratorExit), an error of restoring is raised.
        """
        try:
            _, problems = self.restore()
        except Exception as second:
            if isinstance(error, GeneratorExit):
                raise
            problems = [f"restoring the guest failed too: {_reason(second)}"]
        for problem in problems:
            error.add_note(problem)


def _reason(error: Exception) -> str:
    return error.message if isinstance(error, ProbekitError) else f"{type(error).__name__}: {error}"
