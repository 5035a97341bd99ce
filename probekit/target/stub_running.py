"""Stop a machine, let it run and wait for it, beside others who do the same: an operator, a migration, QEMU itself.

A stop that we did not ask for and that no breakpoint made is somebody's *pause*. It is not reported: the
machine counts as running and finds no stop, but it stays paused until whoever paused it lets it run. That
is noticed at the latest half a second afterwards, or when we need the machine stopped.
"""

from __future__ import annotations

import time
from typing import Final

from probekit.errors import TargetLost
from probekit.target.api import StopReason
from probekit.target.machine_state import OURS
from probekit.target.stub_session import StubSession

__all__ = ("StubRunning",)

# QEMU's signals (gdbstub, gdb_vm_state_change): 2 an operator's `stop`, 14 a watchdog device that pauses, 23 an error
# of a disk that pauses (werror=stop), 24 the end of an outgoing migration.
_PAUSES: Final = frozenset({2, 14, 23, 24})
_LOOK_SECONDS: Final = 0.5


class StubRunning:
    """The running and stopping of one connection's machine. Not thread-safe."""

    def __init__(self, session: StubSession) -> None:
        self._session = session
        self._state = session.state() if session.paused else ""
        """QEMU's name for the state in which the machine was paused; empty while nobody has paused it."""

    def may_run(self) -> bool:
        """Return whether the stopped machine is ours to set running. Notes a pause that began while we had it."""
        session = self._session
        session.heed_stops()
        if session.features.qemu and not session.paused:
            # A migration, say, may have ended meanwhile. What it left stopped is not for us to start.
            state = session.state()
            session.heed_stops()
            if state and state not in OURS:
                self._pause(state)
        return not session.paused

    def go(self) -> None:
        """Let the machine run; one that is paused only counts as running. See :meth:`may_run`."""
        session = self._session
        if session.paused:
            session.running = True
        else:
            session.send_resume(b"vCont;c" if session.features.vcont else b"c")
            session.link.take_stops()  # somebody had set it running: it runs again

    def wait(self, deadline: float) -> StopReason | None:
        """Return the next stop of the running machine that is no pause, or None at ``deadline``.

        None as well as soon as a pause begins, so that the caller can look at ``paused``.
        """
        session = self._session
        while True:
            until = min(deadline, time.monotonic() + _LOOK_SECONDS) if session.paused else deadline
            reason = self._next_stop(until)
            if reason is None:
                if time.monotonic() >= deadline:
                    return None
                reason = self._look()
                if reason is None:
                    continue
            if not self._is_pause(reason):
                session.paused = False
                return reason
            self._pause("paused")
            return None

    def halt(self, deadline: float) -> StopReason | None:
        """Stop the running machine. Returns why it stopped, which may be another reason, or None at ``deadline``."""
        session = self._session
        if session.features.qemu:
            # What arrived before we ask was not asked for.
            while (reason := self._next_stop(0.0)) is not None:
                if not self._is_pause(reason):
                    session.paused = False
                    return reason
                self._pause("paused")
            if session.paused:
                return self._halt_paused() or StopReason("interrupt", 2, session.last_stop.vcpu, "paused")
        session.note_stopping()
        session.link.send_break()
        return self._next_stop(deadline)

    def _is_pause(self, reason: StopReason) -> bool:
        return self._session.features.qemu and reason.kind == "interrupt" and reason.signal in _PAUSES

    def _pause(self, state: str) -> None:
        self._session.note_pause()
        self._state = state

    def _look(self) -> StopReason | None:
        """Look whether a paused machine was set running. Returns a stop that nobody reported, if there was one."""
        reason = self._halt_paused()
        if reason is not None and reason.kind != "interrupt":
            return reason
        self.go()
        return None

    def _halt_paused(self) -> StopReason | None:
        """Stop a machine that was paused when we last looked. Returns the stop if it has run since, else None."""
        session = self._session
        session.note_stop()
        state = session.state()  # the request stops a machine that runs, and a stop packet says that it did
        stops = session.link.take_stops()
        if stops:
            session.note_stop()
            session.own_pause()
            return session.parse_stop(stops[-1])
        if state == "debug" != self._state:
            # Since QEMU 8.1 a breakpoint is not reported after a pause.
            session.own_pause()
            return session.parse_stop(session.link.request(b"?"))
        return None

    def _next_stop(self, deadline: float) -> StopReason | None:
        session = self._session
        while True:
            try:
                packet = session.link.next_packet(deadline - time.monotonic())
            except TargetLost:
                session.note_exit()
                raise
            if packet is None:
                return None
            if packet[:1] in (b"O", b"F") and packet != b"OK":
                continue  # the machine's console output, or a file request: not for us
            return session.parse_stop(packet)
