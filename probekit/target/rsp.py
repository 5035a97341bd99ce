"""The direct transport: our own client of the gdb remote serial protocol (RSP).

One vCPU at a time is the stub's *general* one (``Hg``): registers and memory
are seen through it. Memory goes through that vCPU's page tables, and a vCPU
stopped in user mode may not map the kernel at all (page-table isolation):
:meth:`RspTarget.use_memory_of` chooses the vCPU to look through.

Rules kept here, each learnt from a stub:

- only 0x03 is sent to a running machine (any byte stops QEMU's);
- ``?`` is sent once, first: it removes all breakpoints, a dead client's too;
- never ``k`` or ``vKill`` (they end the virtual machine), never a bare close
  while stopped (QEMU would leave the guest stopped for ever).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from probekit.errors import MemoryAccessError, TargetError, TargetLost, TargetTimeout, UnsupportedError
from probekit.target import breakpoints
from probekit.target.api import BreakKind, Regs, StopReason, Vcpu
from probekit.target.handshake import Features, negotiate, read_layout
from probekit.target.link import PacketLink
from probekit.target.memory import join_replies, plan_reads, plan_writes
from probekit.target.packets import from_hex, to_hex
from probekit.target.queries import is_error, list_vcpus, run_monitor, shown
from probekit.target.registers import Layout, changes, decode, encode, layout_of_size
from probekit.target.stops import parse_stop
from probekit.target.transport import Stream

__all__ = ("RspTarget",)

_STEP_SECONDS: Final = 10.0


class RspTarget:
    """A :class:`~probekit.target.api.Target` over one stream. Connecting stops the machine. Not thread-safe."""

    def __init__(self, stream: Stream, *, name: str, timeout: float = 5.0) -> None:
        """Shake hands within ``timeout`` seconds; the same limit then holds for each reply.

        Raises :class:`TargetTimeout`, :class:`TargetLost`, :class:`ProtocolError`; the stream is then closed.
        """
        self._name = name
        self._link = PacketLink(stream, timeout=timeout)
        self._running = False
        self._closed = False
        self._exited = False
        self._ids: dict[Vcpu, bytes] = {}
        self._general: Vcpu | None = None
        self._memory_vcpu: Vcpu | None = None
        self._layout: Layout | None = None
        self._breakpoints = breakpoints.BreakpointTable()
        try:
            self._features: Features = negotiate(self._link)
            self._last = self._parse(self._link.request(b"?"))
            if self._features.qemu:
                self._clear_leftovers()
            self._link.timeout = max(timeout, 10.0)
            if self._last.kind == "exited":
                raise TargetError(f"{name}: the virtual machine has ended")
        except BaseException:
            self._link.abandon()
            raise

    def _clear_leftovers(self) -> None:
        """A dead client's breakpoints on every vCPU: since 7.1 QEMU's ``?`` removes those of the current one only."""
        vcpus = self.vcpus()
        for vcpu in (*vcpus[1:], vcpus[0]):
            self._expect_ok(b"Hc" + self._thread(vcpu), "choosing a vCPU")
            self._link.request(b"?")

    @property
    def name(self) -> str:
        """The target as the user gave it."""
        return self._name

    @property
    def running(self) -> bool:
        """True from a resume until its stop has been read."""
        return self._running

    @property
    def features(self) -> Features:
        """What the stub can do."""
        return self._features

    @property
    def last_stop(self) -> StopReason:
        """Why it stopped most recently."""
        return self._last

    # Memory

    def use_memory_of(self, vcpu: Vcpu | None) -> None:
        """Read and write through the page tables of ``vcpu``; None: of the vCPU that stopped last (the default)."""
        self._memory_vcpu = vcpu

    def read(self, addr: int, size: int) -> bytes:
        """See :meth:`Target.read`."""
        data = self.read_many([(addr, size)])[0]
        if data is None:
            hint = "not mapped in the address space of the vCPU looked through"
            message = f"guest memory {addr:#x} ({size} bytes) cannot be read"
            raise MemoryAccessError(message, addr=addr, size=size, hint=hint)
        return data

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]:
        """See :meth:`Target.read_many`."""
        self._look()
        plan = plan_reads(ranges, self._features.read_size)
        replies = self._link.exchange([b"m%x,%x" % piece for piece in plan.pieces])
        return join_replies(plan, replies, self._read_rest)

    def _read_rest(self, addr: int, size: int) -> bytes:
        """What a stub left out of a short reply."""
        return self._link.request(b"m%x,%x" % (addr, size))

    def write(self, addr: int, data: bytes) -> None:
        """See :meth:`Target.write`."""
        self.write_many([(addr, data)])

    def write_many(self, edits: Iterable[tuple[int, bytes]]) -> None:
        """See :meth:`Target.write_many`. Edits that follow each other without a gap share a packet."""
        self._look()
        pieces = plan_writes(edits, self._features.write_size)
        packets = [b"M%x,%x:%b" % (addr, len(data), to_hex(data)) for addr, data in pieces]
        replies = self._link.exchange(packets)
        if replies.count(b"OK") == len(replies):
            return
        for (addr, data), reply in zip(pieces, replies, strict=True):
            if reply != b"OK":
                raise MemoryAccessError(
                    f"guest memory {addr:#x} ({len(data)} bytes) cannot be written: {shown(reply)}",
                    addr=addr,
                    size=len(data),
                )

    @contextlib.contextmanager
    def physical_memory(self) -> Iterator[None]:
        """Within: every address that is read or written is a guest *physical* one. Raises :class:`UnsupportedError`."""
        if not self._features.physical:
            raise UnsupportedError(
                f"{self._name}: the stub has no physical memory mode",
                feature="physical memory",
                hint="QEMU has it since 4.1 (Qqemu.PhyMemMode)",
            )
        self._need_stopped()
        self._expect_ok(b"Qqemu.PhyMemMode:1", "physical memory mode")
        try:
            yield
        finally:
            if not self._running and not self._closed:
                self._expect_ok(b"Qqemu.PhyMemMode:0", "virtual memory mode")

    def read_phys(self, addr: int, size: int) -> bytes:
        """Guest physical memory. Raises :class:`UnsupportedError`, :class:`MemoryAccessError`."""
        with self.physical_memory():
            return self.read(addr, size)

    def write_phys(self, addr: int, data: bytes) -> None:
        """Guest physical memory. Raises :class:`UnsupportedError`, :class:`MemoryAccessError`."""
        with self.physical_memory():
            self.write(addr, data)

    # vCPUs and registers

    def vcpus(self) -> tuple[Vcpu, ...]:
        """See :meth:`Target.vcpus`. The stub is asked each time."""
        self._need_stopped()
        self._ids = list_vcpus(self._link)
        return tuple(self._ids)

    def regs(self, vcpu: Vcpu) -> Regs:
        """See :meth:`Target.regs`."""
        self._need_stopped()
        self._select(vcpu)
        raw = self._raw_registers()
        return decode(self._layout_for(raw), raw)

    def set_regs(self, vcpu: Vcpu, regs: Regs) -> None:
        """See :meth:`Target.set_regs`. Only registers that differ from the vCPU's are written: writing a control
        register is not free of effects even when its value stays."""
        self._need_stopped()
        self._select(vcpu)
        now = self._raw_registers()
        layout = self._layout_for(now)
        wanted = encode(layout, regs)
        differing = changes(layout, now, wanted)
        if not differing:
            return
        replies = self._link.exchange([b"P%x=%b" % (number, to_hex(data)) for number, data in differing])
        if b"" in replies:
            self._expect_ok(b"G" + to_hex(wanted), "writing registers")
        elif replies.count(b"OK") != len(replies):
            raise TargetError(f"{self._name}: the stub refused to write registers of vCPU {vcpu}")

    def _raw_registers(self) -> bytes:
        reply = self._link.request(b"g")
        if is_error(reply) or not reply:
            raise TargetError(f"{self._name}: the stub refused to read registers: {shown(reply)}")
        # A register that the stub cannot read is "xx": zero for us.
        return from_hex(reply.replace(b"x", b"0"))

    def _layout_for(self, raw: bytes) -> Layout:
        if self._layout is None or self._layout.size != len(raw):
            described = read_layout(self._link) if self._features.describes_itself else None
            fits = described is not None and described.size == len(raw)
            self._layout = described if described is not None and fits else layout_of_size(len(raw))
        return self._layout

    # Running

    def resume(self) -> None:
        """See :meth:`Target.resume`. A breakpoint at the place where the last stop was is stepped over first."""
        self._need_stopped()
        if self._standing_on(self._last.vcpu) is not None:
            self.step(self._last.vcpu)
        if not self._running:
            self._go(b"vCont;c" if self._features.vcont else b"c")

    def step(self, vcpu: Vcpu) -> StopReason:
        """See :meth:`Target.step`. A breakpoint of ours under the vCPU does not hold it up.

        Raises :class:`TargetTimeout`, the machine stopped, when the instruction does not end (a halted vCPU's).
        """
        self._need_stopped()
        rip = self._standing_on(vcpu)
        if rip is None:
            return self._step(vcpu)
        with self._breakpoints.lifted(self, rip):
            return self._step(vcpu)

    def _step(self, vcpu: Vcpu) -> StopReason:
        if self._features.vcont:
            self._go(b"vCont;s:" + self._thread(vcpu))
        else:
            self._expect_ok(b"Hc" + self._thread(vcpu), "choosing a vCPU to step")
            self._go(b"s")
        reason = self.wait(_STEP_SECONDS)
        if reason is None:
            self.stop()
            raise TargetTimeout(f"{self._name}: a step of vCPU {vcpu} did not end", seconds=_STEP_SECONDS)
        return reason

    def wait(self, timeout: float) -> StopReason | None:
        """See :meth:`Target.wait`."""
        deadline = time.monotonic() + timeout
        while self._running:
            try:
                packet = self._link.next_packet(deadline - time.monotonic())
            except TargetLost:
                self._exited = True
                self._close()
                raise
            if packet is None:
                return None
            if packet[:1] in (b"O", b"F") and packet != b"OK":
                continue  # the machine's console output, or a file request: nothing for us
            return self._stopped(self._parse(packet))
        return self._last

    def stop(self, timeout: float = 10.0) -> StopReason:
        """See :meth:`Target.stop`. On a stopped machine: the last reason."""
        self._need_open()
        if not self._running:
            return self._last
        self._link.send_break()
        reason = self.wait(timeout)
        if reason is None:
            raise TargetTimeout(
                f"{self._name}: the machine did not stop within {timeout:g} s",
                seconds=timeout,
                hint="is QEMU itself suspended? A Xen domain is stopped by `xl pause` instead",
            )
        return reason

    def _go(self, packet: bytes) -> None:
        # Before sending: a signal that interrupts us must not leave a running machine taken for a stopped one.
        self._running = True
        self._general = None
        self._link.command(packet)

    def _stopped(self, reason: StopReason) -> StopReason:
        self._running = False
        self._general = None
        reason = self._breakpoints.explain(self, reason)
        self._last = reason
        if reason.kind == "exited":
            self._exited = True
            self._close()
        return reason

    def _parse(self, packet: bytes) -> StopReason:
        reason, thread = parse_stop(packet)
        if thread is not None:
            self._ids.setdefault(reason.vcpu, thread)
        return reason

    def _standing_on(self, vcpu: Vcpu) -> int | None:
        """The address of a breakpoint of ours that ``vcpu`` is about to execute."""
        here = self._breakpoints.code_addresses()
        if not here:
            return None
        rip = self.regs(vcpu)["rip"]
        return rip if rip in here else None

    # Breakpoints

    def set_breakpoint(self, addr: int, kind: BreakKind = "software", size: int = 1) -> None:
        """See :meth:`Target.set_breakpoint`. Setting one twice is the same as once.

        Raises :class:`UnsupportedError` when the stub lacks the kind, :class:`TargetError` when it refuses this one.
        """
        self._look()
        self._breakpoints.set(self, addr, kind, size)

    def clear_breakpoint(self, addr: int, kind: BreakKind = "software", size: int = 1) -> None:
        """See :meth:`Target.clear_breakpoint`. Clearing one that is not set does nothing."""
        self._look()
        self._breakpoints.clear(self, addr, kind, size)

    def request(self, payload: bytes) -> bytes:
        """One raw request to a stopped machine; its reply. For what the contract does not have."""
        self._need_stopped()
        return self._link.request(payload)

    # The monitor, and the end

    def monitor(self, command: str) -> str:
        """See :meth:`Target.monitor`. A command that resumes the machine must not be given."""
        self._need_stopped()
        return run_monitor(self._link, command)

    def detach(self) -> None:
        """See :meth:`Target.detach`."""
        if self._closed:
            return
        try:
            if self._running:
                self.stop()
            if not self._closed:
                self._restore_and_leave()
        except TargetLost:
            pass  # the machine is gone, and its breakpoints with it
        finally:
            self._close()

    def _restore_and_leave(self) -> None:
        problem: TargetError | None = None
        try:
            self._look()
            self._breakpoints.clear_all(self)
            if self._features.step_mask is not None:
                self._link.request(b"Qqemu.sstep=%x" % self._features.step_mask)
        except TargetError as error:
            problem = error  # the guest must run again whatever else failed
        self._running = True
        reply = self._link.request(b"D;1") if self._features.multiprocess else b""
        if reply != b"OK":
            self._link.request(b"D")
        if problem is not None:
            raise problem

    def _close(self) -> None:
        self._closed = True
        self._running = False
        self._link.close()

    # Helpers

    def _need_open(self) -> None:
        if self._exited:
            raise TargetLost(f"{self._name}: the virtual machine has ended")
        if self._closed:
            raise TargetLost(f"{self._name}: detached")

    def _need_stopped(self) -> None:
        self._need_open()
        if self._running:
            raise TargetError(f"{self._name}: the machine is running", hint="stop it first")

    def _look(self) -> None:
        """Memory is about to be touched: see it through the chosen vCPU."""
        self._need_stopped()
        self._select(self._last.vcpu if self._memory_vcpu is None else self._memory_vcpu)

    def _select(self, vcpu: Vcpu) -> None:
        if vcpu != self._general:
            self._expect_ok(b"Hg" + self._thread(vcpu), f"choosing vCPU {vcpu}")
            self._general = vcpu

    def _thread(self, vcpu: Vcpu) -> bytes:
        if vcpu not in self._ids:
            self.vcpus()
        if vcpu not in self._ids:
            raise TargetError(f"{self._name}: no vCPU {vcpu}; there are {sorted(self._ids)}")
        return self._ids[vcpu]

    def _expect_ok(self, packet: bytes, doing: str) -> None:
        reply = self._link.request(packet)
        if reply == b"":
            raise UnsupportedError(f"{self._name}: the stub cannot do this: {doing}", feature=doing)
        if reply != b"OK":
            raise TargetError(f"{self._name}: {doing}: the stub answered {shown(reply)}")
