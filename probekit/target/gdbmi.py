"""Drive a virtual machine through gdb: slower, but it reaches all that gdb's ``target remote`` reaches.

Differences from the direct transport:

- :class:`~probekit.target.api.Regs` carries no ``raw`` bytes, so setting
  registers sets the named ones only (no x87, no SSE).
- gdb does not report a write watchpoint whose value stays the same.
- There is no physical memory mode.
- It is not noticed that somebody else let the machine run while we had it stopped (``foreign_runs`` is always 0).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from probekit.errors import TargetLost
from probekit.target.api import BreakKind, NoteHold, Regs, StopReason, Vcpu, ignore_hold, unreadable
from probekit.target.gdb_breakpoints import GdbBreakpoints
from probekit.target.gdb_memory import read_ranges, write_edits
from probekit.target.gdb_process import GdbProcess, ask_monitor, select_target
from probekit.target.gdb_running import GdbRunning
from probekit.target.gdb_threads import GdbThreads

__all__ = ("GdbTarget",)

_REQUEST_SECONDS: Final = 10.0
_GIVE_UP_SECONDS: Final = 1.0  # for gdb to leave a stub that it may be waiting for


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
        self._memory_vcpu: Vcpu | None = None
        self._gdb = GdbProcess(timeout=_REQUEST_SECONDS)
        self._threads = GdbThreads(self._gdb, name)
        self._breakpoints = GdbBreakpoints(self._gdb)
        self._execution = GdbRunning(self._gdb, self._threads, self._breakpoints, name=name, note_hold=note_hold)
        try:
            self._connect(address, timeout, was_running)
        except BaseException:
            self._gdb.close(_GIVE_UP_SECONDS)
            raise

    def _connect(self, address: str, timeout: float, was_running: bool | None) -> None:
        self._gdb.prepare()
        pauses = self._execution.pauses
        stop_seen = pauses.stop_seen(lambda: select_target(self._gdb, address, timeout, name=self._name))
        stop = self._gdb.next_stop(1.0)
        self._threads.load()
        self._execution.note_connected(stop, stop_seen=stop_seen, was_running=was_running)

    @property
    def name(self) -> str:
        """The target as the user gave it."""
        return self._name

    @property
    def running(self) -> bool:
        """True from a resume until its stop has been read."""
        return self._execution.running

    @property
    def paused(self) -> bool:
        """See :attr:`Target.paused`."""
        return self._execution.pauses.paused

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
        self._execution.need_stopped()
        return self._threads.vcpus()

    def regs(self, vcpu: Vcpu) -> Regs:
        """See :meth:`Target.regs`. ``raw`` is empty."""
        self._execution.need_stopped()
        return self._threads.read_registers(vcpu)

    def set_regs(self, vcpu: Vcpu, regs: Regs) -> None:
        """See :meth:`Target.set_regs`. Only named registers that differ from the vCPU's are written."""
        self._execution.need_stopped()
        self._threads.write_registers(vcpu, regs)

    # Running

    def resume(self) -> None:
        """See :meth:`Target.resume`. gdb steps over a breakpoint at the place of the last stop."""
        self._execution.resume()

    def step(self, vcpu: Vcpu) -> StopReason:
        """See :meth:`Target.step`. Raises :class:`TargetTimeout` when the instruction does not end."""
        return self._execution.step(vcpu)

    def wait(self, timeout: float) -> StopReason | None:
        """See :meth:`Target.wait`."""
        return self._execution.wait(timeout)

    def stop(self, timeout: float = 10.0) -> StopReason:
        """See :meth:`Target.stop`. On a stopped machine: the last reason."""
        return self._execution.stop(timeout)

    def own_pause(self) -> None:
        """See :meth:`Target.own_pause`."""
        self._execution.own_pause()

    # Breakpoints

    def set_breakpoint(self, addr: int, kind: BreakKind = "software", size: int = 1) -> None:
        """See :meth:`Target.set_breakpoint`. Setting one twice is the same as once."""
        self._execution.need_stopped()
        self._breakpoints.set(addr, kind, size)

    def clear_breakpoint(self, addr: int, kind: BreakKind = "software", size: int = 1) -> None:
        """See :meth:`Target.clear_breakpoint`. Clearing one that is not set does nothing."""
        self._execution.need_stopped()
        self._breakpoints.clear(addr, kind, size)

    # The monitor, and the end

    def monitor(self, command: str) -> str:
        """See :meth:`Target.monitor`. A command that resumes the machine must not be given."""
        self._execution.need_stopped()
        return ask_monitor(self._gdb, command, name=self._name)

    def detach(self) -> None:
        """See :meth:`Target.detach`. Ends gdb."""
        execution = self._execution
        if execution.closed:
            return
        try:
            if execution.running:
                execution.stop(_REQUEST_SECONDS)
            if not execution.closed:
                self._breakpoints.clear_all()
                execution.let_go()
        except TargetLost:
            pass  # the machine is gone, and its breakpoints with it
        finally:
            execution.close()

    def _select_for_memory(self) -> None:
        self._execution.need_stopped()
        self._threads.select(self._execution.last_stop.vcpu if self._memory_vcpu is None else self._memory_vcpu)
