"""Tell through gdb whether somebody else has paused the machine, as far as gdb says.

gdb drops a stop packet that it did not ask for. With ``set debug remote 1`` it says so, and such a packet is how
QEMU (up to 8.0) tells a client that connects, or that sends the first packet after an operator's ``cont``, that the
machine ran until then.

gdb never learns that somebody let the machine run while we had it stopped. Its next packet is lost, and gdb sends
it again after ``remotetimeout``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from probekit.errors import TargetError, TargetLost
from probekit.target.gdb_process import GdbProcess, Record
from probekit.target.machine_state import OURS, ran_before, state_in

__all__ = ("GdbPauses",)

_SIGNALS: Final = frozenset({"SIGINT", "SIGALRM", "SIGIO", "SIGXCPU"})


class GdbPauses:
    """The pauses of the machine behind one gdb."""

    def __init__(self, gdb: GdbProcess) -> None:
        self._gdb = gdb
        self.paused = False
        """Whether somebody else has paused the machine, as far as is known."""

    def note_connected(self, *, stop_seen: bool, was_running: bool | None) -> None:
        """Note how the machine was found. ``stop_seen``: whether a stop packet came unasked."""
        if was_running is None:
            was_running = not self._is_qemu() or ran_before(self.ask, stop_seen=stop_seen)
        self.paused = not was_running

    def may_run(self) -> bool:
        """Return whether the stopped machine is ours to set running."""
        if not self.paused:
            state = state_in(self.ask("info status"))
            self.paused = bool(state) and state not in OURS
        return not self.paused

    def is_pause(self, stop: Record) -> bool:
        """Tell whether a stop that we did not ask for is somebody's pause."""
        return stop.get("signal-name") in _SIGNALS and bool(state_in(self.ask("info status")))

    def look(self) -> None:
        """Find out whether a paused machine was set running since. It is stopped afterwards."""
        if self.paused and self.stop_seen(lambda: self.ask("info status")):
            self.paused = False

    def stop_seen(self, work: Callable[[], object]) -> bool:
        """Do ``work``, and return whether gdb dropped a packet meanwhile that it did not ask for.

        An error of ``work`` is raised at once: gdb may still be waiting for the stub, and would not answer.
        """
        self._gdb.console("set debug remote 1")
        work()
        self._gdb.console("set debug remote 0")
        return "Packet instead of Ack" in self._gdb.take_log()

    def ask(self, command: str) -> str:
        """Return the monitor's answer, or nothing where there is no monitor. Raises :class:`TargetLost`."""
        try:
            return self._gdb.console(f"monitor {command}")
        except TargetLost:
            raise
        except TargetError:
            return ""

    def _is_qemu(self) -> bool:
        return bool(state_in(self.ask("info status")))
