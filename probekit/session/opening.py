"""Connect to a guest and find out whether it runs, by QMP, by the stub, or by what a killed probekit left behind."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from probekit.errors import TargetError
from probekit.records import record
from probekit.session.lock import Hold, Lock
from probekit.target.api import Target
from probekit.target.connect import connect
from probekit.target.machine_state import OURS, state_in

if TYPE_CHECKING:
    from probekit.target.qmp import Qmp

__all__ = ("AttachOptions", "Connection", "open_target")


def _silent(_: str) -> None:
    """Show no progress."""


@dataclass(frozen=True, slots=True)
class AttachOptions:
    """The options of :func:`attach`."""

    symbols: Path | None = None
    """An ELF, System.map or kallsyms file; None to read the symbols from the guest."""
    cache: bool = True
    """Whether to use the symbol cache on disk."""
    ram: str | None = None
    """The guest's shared RAM file; None to look for it, ``none`` to do without."""
    progress: Callable[[str], None] = _silent
    """Receives a line before each slow step."""
    answer: Callable[[str], None] = _silent
    """Receives a line for whoever sends a signal while the guest is being restored."""
    timeout: float = 5.0
    """Seconds for connecting."""
    qmp: str | None = None
    """QEMU's QMP socket, which reports resets and panics at once."""
    changes: bool = True
    """Whether the guest may be changed. If not, a lock and journals that cannot be used are no error."""


@record
class Connection:
    """A target whose machine we have stopped, and QMP where the user gave its socket."""

    target: Target
    qmp: Qmp | None

    def close(self) -> None:
        """Let the guest run unless it is paused, and close both. Raises :class:`TargetError`."""
        try:
            self.target.detach()
        finally:
            if self.qmp is not None:
                self.qmp.close()

    def let_go(self) -> None:
        """Do the same after an error, which a second one must not hide."""
        with suppress(TargetError):
            self.close()


def open_target(spec: str, options: AttachOptions, lock: Lock) -> Connection:
    """Connect to the guest at ``spec``, which stops it. ``lock``: ours for this guest.

    Raises :class:`probekit.errors.ProbekitError`, with the guest as it was.
    """
    options.progress(f"connecting to {spec}")
    qmp = _open_qmp(options)
    try:
        was_running = None if qmp is None else qmp.status() == "running"
        note = _Note(lock)
        target = connect(spec, timeout=options.timeout, was_running=was_running, note_hold=note)
    except BaseException:
        if qmp is not None:
            qmp.close()
        raise
    opened = Connection(target, qmp)
    try:
        if target.paused and _stopped_by_a_killed_probekit(target, lock.left):
            options.progress("an earlier probekit was killed while it had the guest stopped: it will run again")
            target.own_pause()
        elif target.paused:
            options.progress("the guest is paused, and stays paused")
        note.decide(ours=not target.paused)
    except BaseException:
        opened.let_go()
        raise
    return opened


class _Note:
    """Keeps the note in the lock true while it is not known yet whether the guest is ours to let run.

    If we are killed meanwhile, the next one must find as much as we did. When an earlier probekit has noted that it
    had the guest stopped, that note stays until we have decided.
    """

    def __init__(self, lock: Lock) -> None:
        self._lock = lock
        self._decided = False
        lock.note_hold(True)  # connecting stops it: whether it ran is known a moment later

    def __call__(self, held: bool | None) -> None:
        """Note what the target says (:data:`probekit.target.api.NoteHold`)."""
        self._decided = self._decided or held is True
        if self._decided or (held is False and self._lock.left is not Hold.STOPPED):
            self._lock.note_hold(held)
        elif held is None:
            self._lock.note_unchanged()

    def decide(self, *, ours: bool) -> None:
        """Note from now on all that the target says. ``ours``: whether we may let the guest run."""
        if not self._decided:
            self._lock.note_hold(ours)
        self._decided = True


def _stopped_by_a_killed_probekit(target: Target, left: Hold) -> bool:
    """Tell whether the last holder of the lock stopped the machine: by itself, or by a breakpoint that it had set."""
    if left is Hold.NONE:
        return False
    try:
        state = state_in(target.monitor("info status"))
    except TargetError:
        return False
    return state == "debug" or (left is Hold.STOPPED and state in OURS)


def _open_qmp(options: AttachOptions) -> Qmp | None:
    if options.qmp is None:
        return None
    from probekit.target.qmp import Qmp  # slow to import: asyncio

    return Qmp(options.qmp.removeprefix("unix:"), timeout=options.timeout)
