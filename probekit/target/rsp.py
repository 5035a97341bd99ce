"""Drive a virtual machine directly: our own client of the gdb remote serial protocol (RSP).

Memory goes through the page tables of one vCPU, and a vCPU
stopped in user mode may not map the kernel at all (page-table isolation):
:meth:`RspTarget.use_memory_of` chooses the vCPU to look through.

Rules kept here, each learnt from a stub:

- Only 0x03 is sent to a running machine: any byte stops QEMU's.
- ``?`` is sent once, first: it removes all breakpoints, those of a dead client too.
- ``k`` and ``vKill`` are never sent: they end the virtual machine.
- The connection is just closed only when somebody else has paused the machine: QEMU leaves it stopped then.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Final

from probekit.errors import GuestPaused, MachineRan, TargetError, TargetLost, TargetTimeout
from probekit.target.api import BreakKind, NoteHold, Regs, StopReason, Vcpu, ignore_hold, unreadable
from probekit.target.handshake import StubFeatures
from probekit.target.queries import run_monitor
from probekit.target.stub_breakpoints import BreakpointTable
from probekit.target.stub_memory import StubMemory
from probekit.target.stub_registers import StubRegisters
from probekit.target.stub_running import StubRunning
from probekit.target.stub_session import StubSession
from probekit.target.transport import Stream

__all__ = ("RspTarget",)

_STEP_SECONDS: Final = 10.0


class RspTarget:
    """A :class:`~probekit.target.api.Target` over one stream. Connecting stops the machine. Not thread-safe."""

    def __init__(
        self,
        stream: Stream,
        *,
        name: str,
        timeout: float = 5.0,
        was_running: bool | None = None,
        note_hold: NoteHold = ignore_hold,
    ) -> None:
        """Shake hands within ``timeout`` seconds; the same limit then holds for each reply.

        ``was_running``: whether the machine ran until now, where somebody knows; None to find out.
        ``note_hold``: see :data:`~probekit.target.api.NoteHold`.
        Raises :class:`TargetTimeout`, :class:`TargetLost`, :class:`ProtocolError`; the stream is then closed.
        """
        self._session = StubSession(stream, name=name, timeout=timeout, was_running=was_running, note_hold=note_hold)
        self._execution = StubRunning(self._session)
        self._memory = StubMemory(self._session)
        self._registers = StubRegisters(self._session)
        self._breakpoints = BreakpointTable()

    @property
    def name(self) -> str:
        """The target as the user gave it."""
        return self._session.name

    @property
    def running(self) -> bool:
        """True from a resume until its stop has been read."""
        return self._session.running

    @property
    def paused(self) -> bool:
        """See :attr:`Target.paused`."""
        return self._session.paused

    @property
    def foreign_runs(self) -> int:
        """See :attr:`Target.foreign_runs`."""
        return self._session.foreign_runs

    @property
    def features(self) -> StubFeatures:
        """What the stub can do."""
        return self._session.features

    # Memory

    def use_memory_of(self, vcpu: Vcpu | None) -> None:
        """Read and write through the page tables of ``vcpu``; None: of the vCPU that stopped last (the default)."""
        self._session.memory_vcpu = vcpu

    def read(self, addr: int, size: int) -> bytes:
        """See :meth:`Target.read`."""
        data = self.read_many([(addr, size)])[0]
        if data is None:
            raise unreadable(addr, size)
        return data

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]:
        """See :meth:`Target.read_many`."""
        return self._memory.read_many(ranges)

    def write(self, addr: int, data: bytes) -> None:
        """See :meth:`Target.write`."""
        self.write_many([(addr, data)])

    def write_once(self, addr: int, data: bytes, foreign_runs: int) -> None:
        """See :meth:`Target.write_once`."""
        self._session.need_stopped()
        if foreign_runs != self._session.foreign_runs:
            raise MachineRan(f"{self.name}: somebody let the machine run before memory was written")
        self._memory.write_once(addr, data)

    def write_many(self, edits: Iterable[tuple[int, bytes]]) -> None:
        """See :meth:`Target.write_many`. Edits without a gap between them share a packet."""
        self._memory.write_many(edits)

    def physical_memory(self) -> AbstractContextManager[None]:
        """Make every address that is read or written a guest *physical* one within the context.

        Raises :class:`UnsupportedError` where the stub has no such mode.
        """
        return self._memory.physical()

    # vCPUs and registers

    def vcpus(self) -> tuple[Vcpu, ...]:
        """See :meth:`Target.vcpus`. The stub is asked each time."""
        return self._session.repeated(self._session.vcpus)

    def regs(self, vcpu: Vcpu) -> Regs:
        """See :meth:`Target.regs`."""
        regs = self._session.repeated(lambda: self._registers.read(vcpu))
        return replace(regs, foreign_runs=self._session.foreign_runs)

    def set_regs(self, vcpu: Vcpu, regs: Regs) -> None:
        """See :meth:`Target.set_regs`. Only registers that differ from the vCPU's are written."""
        self._session.need_stopped()
        if regs.foreign_runs not in (None, self._session.foreign_runs):
            raise MachineRan(f"{self.name}: somebody let the machine run before registers were written")
        self._registers.write(vcpu, regs)

    # Running

    def resume(self) -> None:
        """See :meth:`Target.resume`. A breakpoint at the place of the last stop is stepped over first."""
        session = self._session
        session.need_stopped()
        if self._execution.may_run() and self._breakpoint_at_rip(session.last_stop.vcpu) is not None:
            self.step(session.last_stop.vcpu)
        if not session.running:
            self._execution.go()

    def step(self, vcpu: Vcpu) -> StopReason:
        """See :meth:`Target.step`. A breakpoint of ours under the vCPU does not stop it.

        Raises :class:`TargetTimeout`, with the machine stopped, when the instruction does not end (a halted vCPU's).
        """
        self._session.need_stopped()
        if self._session.paused:
            raise GuestPaused("a single step")
        rip = self._breakpoint_at_rip(vcpu)
        if rip is None:
            return self._step(vcpu)
        with self._breakpoints.lifted(self, rip):
            return self._step(vcpu)

    def _step(self, vcpu: Vcpu) -> StopReason:
        session = self._session
        if session.features.vcont:
            session.send_resume(b"vCont;s:" + session.thread_id(vcpu))
        else:
            session.expect_ok(b"Hc" + session.thread_id(vcpu), "choosing a vCPU to step")
            session.send_resume(b"s")
        reason = self.wait(_STEP_SECONDS)
        if reason is None:
            self.stop()
            raise TargetTimeout(f"{self.name}: a step of vCPU {vcpu} did not end", seconds=_STEP_SECONDS)
        return reason

    def wait(self, timeout: float) -> StopReason | None:
        """See :meth:`Target.wait`."""
        if not self._session.running:
            return self._session.last_stop
        reason = self._execution.wait(time.monotonic() + timeout)
        return None if reason is None else self._stopped(reason)

    def stop(self, timeout: float = 10.0) -> StopReason:
        """See :meth:`Target.stop`. On a stopped machine: the last reason."""
        session = self._session
        session.need_open()
        if not session.running:
            return session.last_stop
        session.note_stop()  # before it stops: whoever kills us in between leaves it stopped
        reason = self._execution.halt(time.monotonic() + timeout)
        if reason is None:
            raise TargetTimeout(
                f"{self.name}: the machine did not stop within {timeout:g} s",
                seconds=timeout,
                hint="is QEMU itself suspended? A Xen domain is stopped by `xl pause` instead",
            )
        return self._stopped(reason)

    def _stopped(self, reason: StopReason) -> StopReason:
        self._session.note_stop()
        reason = self._breakpoints.explain(self, reason)
        self._session.last_stop = reason
        if reason.kind == "exited":
            self._session.note_exit()
        return reason

    def _breakpoint_at_rip(self, vcpu: Vcpu) -> int | None:
        """Return the address of a breakpoint of ours that ``vcpu`` is about to execute, or None."""
        addresses = self._breakpoints.code_addresses()
        if not addresses:
            return None
        rip = self.regs(vcpu)["rip"]
        return rip if rip in addresses else None

    # Breakpoints

    def set_breakpoint(self, addr: int, kind: BreakKind = "software", size: int = 1) -> None:
        """See :meth:`Target.set_breakpoint`. Setting one twice is the same as once.

        Raises :class:`UnsupportedError` when the stub lacks the kind, :class:`TargetError` when it refuses this one.
        """
        self._session.select_for_memory()
        self._breakpoints.set(self, addr, kind, size)

    def clear_breakpoint(self, addr: int, kind: BreakKind = "software", size: int = 1) -> None:
        """See :meth:`Target.clear_breakpoint`. Clearing one that is not set does nothing."""
        self._session.select_for_memory()
        self._breakpoints.clear(self, addr, kind, size)

    def request(self, payload: bytes) -> bytes:
        """Send one raw request to the stopped machine and return its reply. For what the contract does not have."""
        self._session.need_stopped()
        return self._session.link.request(payload)

    # The monitor, and the end

    def monitor(self, command: str) -> str:
        """See :meth:`Target.monitor`. A command that resumes the machine must not be given."""
        self._session.need_stopped()
        return run_monitor(self._session.link, command)

    def own_pause(self) -> None:
        """See :meth:`Target.own_pause`."""
        self._session.paused = False
        self._session.note_stop()

    def detach(self) -> None:
        """See :meth:`Target.detach`."""
        session = self._session
        if session.closed:
            return
        try:
            if session.running:
                self.stop()
            if not session.closed:
                self._restore_and_detach()
                session.note_let_go()
        except TargetLost:
            pass  # the machine is gone, and its breakpoints with it
        finally:
            session.close()

    def _restore_and_detach(self) -> None:
        session = self._session
        problem: TargetError | None = None
        may_run = False
        try:
            session.select_for_memory()
            self._breakpoints.clear_all(self)
            may_run = self._execution.may_run()
            if session.features.step_mask is not None:
                session.link.request(b"Qqemu.sstep=%x" % session.features.step_mask)
        except TargetError as error:
            problem = error  # the guest must run again whatever else failed
        if may_run or not session.paused:
            session.running = True
            reply = session.link.request(b"D;1") if session.features.multiprocess else b""
            if reply != b"OK":
                session.link.request(b"D")
        if problem is not None:
            raise problem
