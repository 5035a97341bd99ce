"""Stop a machine through gdb, let it run and wait for it, beside others who do the same."""

from __future__ import annotations

import time
from typing import Final

from probekit.errors import GuestPaused, TargetError, TargetLost, TargetTimeout
from probekit.target.api import NoteHold, StopReason, Vcpu
from probekit.target.gdb_breakpoints import GdbBreakpoints
from probekit.target.gdb_pauses import GdbPauses
from probekit.target.gdb_process import GdbProcess, Record
from probekit.target.gdb_stops import stop_reason
from probekit.target.gdb_threads import GdbThreads

__all__ = ("GdbRunning",)

_STEP_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 0.5


class GdbRunning:
    """The running and stopping of one gdb's machine. Not thread-safe."""

    def __init__(
        self, gdb: GdbProcess, threads: GdbThreads, breakpoints: GdbBreakpoints, *, name: str, note_hold: NoteHold
    ) -> None:
        """Prepare; gdb is not connected yet. ``note_hold``: see :data:`~probekit.target.api.NoteHold`."""
        self.pauses = GdbPauses(gdb)
        """Whether somebody else has paused the machine."""
        self.running = False
        """True from a resume until its stop has been read."""
        self.closed = False
        self.last_stop = StopReason("interrupt", 2, 0, "")
        """Why the machine stopped last."""
        self._gdb = gdb
        self._threads = threads
        self._breakpoints = breakpoints
        self._name = name
        self._note_hold = note_hold

    def note_connected(self, stop: Record | None, *, stop_seen: bool, was_running: bool | None) -> None:
        """Note how the machine was found. ``stop``: gdb's stop by connecting; see :class:`GdbPauses` for the rest."""
        self.last_stop = self._reason(stop or {})
        self.pauses.note_connected(stop_seen=stop_seen, was_running=was_running)
        if not self.pauses.paused:
            self._note_hold(True)

    def own_pause(self) -> None:
        """Note that the stopped machine is ours to set running."""
        self.pauses.paused = False
        self._note_hold(True)

    def need_open(self) -> None:
        """Raise :class:`TargetLost` when the machine has ended or we have detached."""
        if self.closed:
            raise TargetLost(f"{self._name}: detached, or the virtual machine has ended")

    def need_stopped(self) -> None:
        """Raise :class:`TargetError` when the machine runs, :class:`TargetLost` as :meth:`need_open`."""
        self.need_open()
        if self.running:
            raise TargetError(f"{self._name}: the machine is running", hint="stop it first")

    def resume(self) -> None:
        """Let the machine run; one that is paused only counts as running."""
        self.need_stopped()
        if not self.pauses.may_run():
            self.running = True
            return
        self._threads.select(self.last_stop.vcpu)
        self._run("-exec-continue")

    def step(self, vcpu: Vcpu) -> StopReason:
        """Execute one instruction. Raises :class:`TargetTimeout` when it does not end."""
        self.need_stopped()
        if self.pauses.paused:
            raise GuestPaused("a single step")
        self._gdb.command("-gdb-set scheduler-locking on")
        try:
            self._run(f"-exec-step-instruction --thread {self._threads.thread(vcpu)}")
            reason = self.wait(_STEP_SECONDS)
            if reason is None:
                self.stop(_STEP_SECONDS)
                raise TargetTimeout(f"{self._name}: a step of vCPU {vcpu} did not end", seconds=_STEP_SECONDS)
        finally:
            if not self.running and not self.closed:
                self._gdb.command("-gdb-set scheduler-locking off")
        return reason

    def wait(self, timeout: float) -> StopReason | None:
        """Return the next stop that is no pause, or None after ``timeout`` seconds or as soon as a pause begins."""
        deadline = time.monotonic() + timeout
        while self.running:
            try:
                stop = self._gdb.next_stop(min(deadline - time.monotonic(), _LOOK_SECONDS))
                if stop is None and self.pauses.paused:
                    self._look()
                elif stop is not None and self.pauses.is_pause(stop):
                    self._note_pause()
                    return None
            except TargetLost:
                self.close()
                raise
            if stop is None:
                if time.monotonic() >= deadline:
                    return None
                continue
            self._take(stop)
        return self.last_stop

    def stop(self, timeout: float) -> StopReason:
        """Stop a running machine. On a stopped one: the last reason."""
        self.need_open()
        if not self.running:
            return self.last_stop
        if (came := self._gdb.next_stop(0.0)) is not None:  # not asked for
            if not self.pauses.is_pause(came):
                return self._take(came)
            self._note_pause()
        if self.pauses.paused:
            self.pauses.look()
            return self._take({})
        self._note_hold(True)  # before it stops: whoever kills us in between leaves it stopped
        self._gdb.command("-exec-interrupt --all")
        stop = self._gdb.next_stop(timeout)
        if stop is None:
            raise TargetTimeout(f"{self._name}: the machine did not stop within {timeout:g} s", seconds=timeout)
        return self._take(stop)

    def let_go(self) -> None:
        """Detach gdb from the stopped machine, which runs then unless somebody else has paused it."""
        self.pauses.look()
        self._gdb.command("-target-detach" if self.pauses.may_run() else "-target-disconnect")
        self._note_hold(None)

    def close(self) -> None:
        """End gdb. Safe to call twice."""
        self.closed = True
        self.running = False
        self._gdb.close()

    def _note_pause(self) -> None:
        self.pauses.paused = True
        self._note_hold(False)

    def _take(self, stop: Record) -> StopReason:
        """Note that the machine has stopped."""
        self._note_hold(not self.pauses.paused)
        self.running = False
        self._threads.deselect()
        self.last_stop = self._reason(stop)
        if self.last_stop.kind == "exited":
            self.close()
        return self.last_stop

    def _reason(self, stop: Record) -> StopReason:
        return stop_reason(stop, self._threads, self._breakpoints)

    def _look(self) -> None:
        """Let a paused machine run again if somebody has set it running: looking has stopped it."""
        self.pauses.look()
        if not self.pauses.paused:
            self._threads.deselect()
            self._run("-exec-continue")

    def _run(self, command: str) -> None:
        self._gdb.drop_stops()
        self.running = True
        self._threads.deselect()
        try:
            self._gdb.command(command)
            self._note_hold(False)
        except TargetTimeout:
            raise
        except TargetError:
            self.running = False
            raise
