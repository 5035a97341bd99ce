"""Drive a virtual machine through gdb: slower, but it reaches all that gdb's ``target remote`` reaches.

Differences from the direct transport:

- :class:`~probekit.target.api.Regs` carries no ``raw`` bytes, so setting
  registers sets the named ones only (no x87, no SSE).
- gdb does not report a write watchpoint whose value stays the same.
- There is no physical memory mode.
- It is not noticed that somebody else let the machine run while we had it stopped (``foreign_runs`` is always 0).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Final

from probekit.errors import GuestPaused, TargetError, TargetLost, TargetTimeout
from probekit.target.api import BreakKind, NoteHold, Regs, StopReason, Vcpu, ignore_hold, unreadable
from probekit.target.gdb_breakpoints import GdbBreakpoints
from probekit.target.gdb_memory import read_ranges, write_edits
from probekit.target.gdb_pauses import GdbPauses
from probekit.target.gdb_process import GdbProcess, Record, ask_monitor, select_target
from probekit.target.gdb_stops import stop_reason
from probekit.target.gdb_threads import GdbThreads

__all__ = ("GdbTarget",)

_REQUEST_SECONDS: Final = 10.0
_STEP_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 0.5


class GdbTarget:
    """A :class:`~probekit.target.api.Target` driven through a gdb process. Not thread-safe."""

    def __init__(
        self,
        address: str,
        *,
        name: str,
        timeout: float = 5.0,
        was_running: bool | None = None,
        note_hold: NoteHold = ignore_hold,
    ) -> None:
        """Connect to ``address``: what gdb's ``target remote`` takes, ``unix:PATH``, or ``extended-remote ADDRESS``.

        ``was_running``: whether the machine ran until now, where somebody knows; None to find out.
        ``note_hold``: see :data:`~probekit.target.api.NoteHold`.
        Raises :class:`UnsupportedError` without gdb, :class:`TargetError` when it cannot connect.
        """
        self._name = name
        self._note_hold = note_hold
        self._running = False
        self._closed = False
        self._memory_vcpu: Vcpu | None = None
        self._gdb = GdbProcess(timeout=_REQUEST_SECONDS)
        self._threads = GdbThreads(self._gdb, name)
        self._breakpoints = GdbBreakpoints(self._gdb)
        self._pauses = GdbPauses(self._gdb)
        try:
            self._connect(address, timeout, was_running)
        except BaseException:
            self._gdb.close()
            raise

    def _connect(self, address: str, timeout: float, was_running: bool | None) -> None:
        self._gdb.prepare()
        stop_seen = self._pauses.stop_seen(lambda: select_target(self._gdb, address, timeout, name=self._name))
        stop = self._gdb.next_stop(1.0)
        self._threads.load()
        self._last_stop = stop_reason({} if stop is None else stop, self._threads, self._breakpoints)
        self._pauses.note_connected(stop_seen=stop_seen, was_running=was_running)
        self._note_hold(not self._pauses.paused)

    @property
    def name(self) -> str:
        """The target as the user gave it."""
        return self._name

    @property
    def running(self) -> bool:
        """True from a resume until its stop has been read."""
        return self._running

    @property
    def paused(self) -> bool:
        """See :attr:`Target.paused`."""
        return self._pauses.paused

    @property
    def foreign_runs(self) -> int:
        """Return 0: gdb does not say."""
        return 0

    # Memory

    def use_memory_of(self, vcpu: Vcpu | None) -> None:
        """Read and write through the page tables of ``vcpu``; None: of the vCPU that stopped last (the default)."""
        self._memory_vcpu = vcpu

    def read(self, addr: int, size: int) -> bytes:
        """See :meth:`Target.read`."""
        data = self.read_many([(addr, size)])[0]
        if data is None:
            raise unreadable(addr, size)
        return data

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]:
        """See :meth:`Target.read_many`."""
        self._select_for_memory()
        return read_ranges(self._gdb, ranges)

    def write(self, addr: int, data: bytes) -> None:
        """See :meth:`Target.write`."""
        self.write_many([(addr, data)])

    def write_once(self, addr: int, data: bytes, foreign_runs: int) -> None:
        """Write all of ``data``: gdb does not say whether somebody let the machine run."""
        self.write(addr, data)

    def write_many(self, edits: Iterable[tuple[int, bytes]]) -> None:
        """See :meth:`Target.write_many`."""
        self._select_for_memory()
        write_edits(self._gdb, edits)

    # vCPUs and registers

    def vcpus(self) -> tuple[Vcpu, ...]:
        """See :meth:`Target.vcpus`."""
        self._need_stopped()
        return self._threads.vcpus()

    def regs(self, vcpu: Vcpu) -> Regs:
        """See :meth:`Target.regs`. ``raw`` is empty."""
        self._need_stopped()
        return self._threads.read_registers(vcpu)

    def set_regs(self, vcpu: Vcpu, regs: Regs) -> None:
        """See :meth:`Target.set_regs`. Only named registers that differ from the vCPU's are written."""
        self._need_stopped()
        self._threads.write_registers(vcpu, regs)

    # Running

    def resume(self) -> None:
        """See :meth:`Target.resume`. gdb steps over a breakpoint at the place of the last stop."""
        self._need_stopped()
        if not self._pauses.may_run():
            self._running = True
            return
        self._threads.select(self._last_stop.vcpu)
        self._run("-exec-continue")

    def step(self, vcpu: Vcpu) -> StopReason:
        """See :meth:`Target.step`. Raises :class:`TargetTimeout` when the instruction does not end."""
        self._need_stopped()
        if self._pauses.paused:
            raise GuestPaused("a single step")
        self._gdb.command("-gdb-set scheduler-locking on")
        try:
            self._run(f"-exec-step-instruction --thread {self._threads.thread(vcpu)}")
            reason = self.wait(_STEP_SECONDS)
            if reason is None:
                self.stop()
                raise TargetTimeout(f"{self._name}: a step of vCPU {vcpu} did not end", seconds=_STEP_SECONDS)
        finally:
            if not self._running and not self._closed:
                self._gdb.command("-gdb-set scheduler-locking off")
        return reason

    def wait(self, timeout: float) -> StopReason | None:
        """See :meth:`Target.wait`."""
        deadline = time.monotonic() + timeout
        while self._running:
            try:
                stop = self._gdb.next_stop(min(deadline - time.monotonic(), _LOOK_SECONDS))
                if stop is None and self._pauses.paused:
                    self._look()
                elif stop is not None and self._pauses.is_pause(stop):
                    self._pauses.paused = True
                    return None
            except TargetLost:
                self._close()
                raise
            if stop is None:
                if time.monotonic() >= deadline:
                    return None
                continue
            self._take(stop)
        return self._last_stop

    def _take(self, stop: Record) -> StopReason:
        """Note that the machine has stopped."""
        self._note_hold(not self._pauses.paused)
        self._running = False
        self._threads.deselect()
        self._last_stop = stop_reason(stop, self._threads, self._breakpoints)
        if self._last_stop.kind == "exited":
            self._close()
        return self._last_stop

    def _look(self) -> None:
        """Let a paused machine run again if somebody has set it running: looking has stopped it."""
        self._pauses.look()
        if not self._pauses.paused:
            self._threads.deselect()
            self._run("-exec-continue")

    def stop(self, timeout: float = 10.0) -> StopReason:
        """See :meth:`Target.stop`. On a stopped machine: the last reason."""
        self._need_open()
        if not self._running:
            return self._last_stop
        if (came := self._gdb.next_stop(0.0)) is not None:  # not asked for
            if not self._pauses.is_pause(came):
                return self._take(came)
            self._pauses.paused = True
        if self._pauses.paused:
            self._pauses.look()
            return self._take({})
        self._note_hold(True)  # before it stops: whoever kills us in between leaves it stopped
        self._gdb.command("-exec-interrupt --all")
        stop = self._gdb.next_stop(timeout)
        if stop is None:
            raise TargetTimeout(f"{self._name}: the machine did not stop within {timeout:g} s", seconds=timeout)
        return self._take(stop)

    def _run(self, command: str) -> None:
        self._gdb.drop_stops()
        self._running = True
        self._threads.deselect()
        try:
            self._gdb.command(command)
            self._note_hold(False)
        except TargetTimeout:
            raise
        except TargetError:
            self._running = False
            raise

    # Breakpoints

    def set_breakpoint(self, addr: int, kind: BreakKind = "software", size: int = 1) -> None:
        """See :meth:`Target.set_breakpoint`. Setting one twice is the same as once."""
        self._need_stopped()
        self._breakpoints.set(addr, kind, size)

    def clear_breakpoint(self, addr: int, kind: BreakKind = "software", size: int = 1) -> None:
        """See :meth:`Target.clear_breakpoint`. Clearing one that is not set does nothing."""
        self._need_stopped()
        self._breakpoints.clear(addr, kind, size)

    # The monitor, and the end

    def monitor(self, command: str) -> str:
        """See :meth:`Target.monitor`. A command that resumes the machine must not be given."""
        self._need_stopped()
        return ask_monitor(self._gdb, command, name=self._name)

    def detach(self) -> None:
        """See :meth:`Target.detach`. Ends gdb."""
        if self._closed:
            return
        try:
            if self._running:
                self.stop()
            if not self._closed:
                self._breakpoints.clear_all()
                self._pauses.look()
                self._gdb.command("-target-detach" if self._pauses.may_run() else "-target-disconnect")
                self._note_hold(None)
        except TargetLost:
            pass  # the machine is gone, and its breakpoints with it
        finally:
            self._close()

    def own_pause(self) -> None:
        """See :meth:`Target.own_pause`."""
        self._pauses.paused = False
        self._note_hold(True)

    def _close(self) -> None:
        self._closed = True
        self._running = False
        self._gdb.close()

    def _need_open(self) -> None:
        if self._closed:
            raise TargetLost(f"{self._name}: detached, or the virtual machine has ended")

    def _need_stopped(self) -> None:
        self._need_open()
        if self._running:
            raise TargetError(f"{self._name}: the machine is running", hint="stop it first")

    def _select_for_memory(self) -> None:
        self._need_stopped()
        self._threads.select(self._last_stop.vcpu if self._memory_vcpu is None else self._memory_vcpu)
