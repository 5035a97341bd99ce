"""Hold the state of a connection to a stub: running or stopped, its vCPUs, and the one that it looks through.

One vCPU at a time is the stub's *general* one (``Hg``): registers and memory
are seen through it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from probekit.errors import MachineRan, TargetError, TargetLost, UnsupportedError
from probekit.interruption import uninterrupted
from probekit.target.api import NoteHold, StopReason, Vcpu, ignore_hold
from probekit.target.handshake import StubFeatures, negotiate
from probekit.target.machine_state import ran_before, state_in
from probekit.target.packet_link import PacketLink
from probekit.target.queries import list_vcpus, printable_reply, run_monitor
from probekit.target.stop_packets import parse_stop
from probekit.target.transport import Stream

__all__ = ("StubSession",)

_PART: Final = 512  # requests for memory that are repeated together
_TRIES: Final = 20
_RESTLESS: Final = "somebody lets the machine run again and again while probekit has it stopped"
_T = TypeVar("_T")


class StubSession:
    """One connection to a stub. Not thread-safe."""

    def __init__(
        self,
        stream: Stream,
        *,
        name: str,
        timeout: float,
        was_running: bool | None = None,
        note_hold: NoteHold = ignore_hold,
    ) -> None:
        """Shake hands within ``timeout`` seconds; the same limit then holds for each reply.

        ``was_running``: whether the machine ran until we connected, where somebody knows; None to find out.
        ``note_hold``: see :data:`~probekit.target.api.NoteHold`.
        Raises :class:`TargetTimeout`, :class:`TargetLost`, :class:`ProtocolError`; the stream is then closed.
        """
        self.name = name
        self.link = PacketLink(stream, timeout=timeout)
        self.running = False
        """True from a resume until its stop has been read."""
        self.paused = was_running is False
        """Whether somebody else has stopped the machine. It then stays so when ``running`` becomes True."""
        self.foreign_runs = 0
        """How often somebody else let the machine run while we had it stopped."""
        self.closed = False
        self.memory_vcpu: Vcpu | None = None
        """The vCPU whose page tables memory is seen through; None: the one that stopped last."""
        self._tell_hold = note_hold
        self._hold: bool | None = None
        self._exited = False
        self._thread_ids: dict[Vcpu, bytes] = {}
        self._general: Vcpu | None = None
        try:
            self.features: StubFeatures = negotiate(self.link)
            with uninterrupted():  # given up in the middle, nobody would know whether it is to run again
                # Sent once, first: it removes all breakpoints, those of a dead client too.
                self.last_stop = self.parse_stop(self.link.request(b"?"))
                self._note_found(was_running)
            if self.features.qemu:
                self._clear_leftovers()
            self.link.timeout = max(timeout, 10.0)
            if self.last_stop.kind == "exited":
                raise TargetError(f"{name}: the virtual machine has ended")
        except BaseException:
            self._give_up()
            raise

    def _note_found(self, was_running: bool | None) -> None:
        """Note whether the machine ran until we connected."""
        stops = self.link.take_stops()
        if self.features.qemu:
            self.link.guarded = True
            if was_running is None:
                was_running = ran_before(self.ask_monitor, stop_seen=bool(stops))
            self.paused = not was_running
        if not self.paused:
            self._note_hold(True)

    def _give_up(self) -> None:
        """Close a connection that came to nothing, with the machine as it was found."""
        if self.paused:
            self.link.close()
        else:
            self.link.abandon()

    def _clear_leftovers(self) -> None:
        """Clear a dead client's breakpoints on every vCPU. Since QEMU 7.1 ``?`` clears only the current one's."""
        vcpus = self.vcpus()
        for vcpu in (*vcpus[1:], vcpus[0]):
            self.expect_ok(b"Hc" + self.thread_id(vcpu), "choosing a vCPU")
            self.link.request(b"?")

    def need_open(self) -> None:
        """Raise :class:`TargetLost` when the machine has ended or we have detached."""
        if self._exited:
            raise TargetLost(f"{self.name}: the virtual machine has ended")
        if self.closed:
            raise TargetLost(f"{self.name}: detached")

    def need_stopped(self) -> None:
        """Raise :class:`TargetError` when the machine runs, :class:`TargetLost` as :meth:`need_open`."""
        self.need_open()
        self.heed_stops()
        if self.running:
            raise TargetError(f"{self.name}: the machine is running", hint="stop it first")

    def vcpus(self) -> tuple[Vcpu, ...]:
        """Ask the stub for its vCPUs. Raises :class:`UnsupportedError` when it lists none."""
        self.need_stopped()
        self._thread_ids = list_vcpus(self.link)
        return tuple(self._thread_ids)

    def thread_id(self, vcpu: Vcpu) -> bytes:
        """Return a vCPU's thread id as the stub writes it. Raises :class:`TargetError` when there is no such vCPU."""
        if vcpu not in self._thread_ids:
            self.vcpus()
        if vcpu not in self._thread_ids:
            raise TargetError(f"{self.name}: no vCPU {vcpu}; there are {sorted(self._thread_ids)}")
        return self._thread_ids[vcpu]

    def select(self, vcpu: Vcpu) -> None:
        """Make ``vcpu`` the stub's general one."""
        if vcpu != self._general:
            self.expect_ok(b"Hg" + self.thread_id(vcpu), f"choosing vCPU {vcpu}")
            self._general = vcpu

    def select_for_memory(self) -> None:
        """Select the vCPU through whose page tables memory is seen. The machine must be stopped."""
        self.need_stopped()
        self.select(self.last_stop.vcpu if self.memory_vcpu is None else self.memory_vcpu)

    def expect_ok(self, packet: bytes, doing: str) -> None:
        """Send a request that is answered by OK. ``doing``: what it is for, for messages.

        Raises :class:`UnsupportedError` when the stub does not know it, :class:`TargetError` for any other answer.
        """
        reply = self.link.request(packet)
        if reply == b"":
            raise UnsupportedError(f"{self.name}: the stub cannot do this: {doing}", feature=doing)
        if reply != b"OK":
            raise TargetError(f"{self.name}: {doing}: the stub answered {printable_reply(reply)}")

    def send_resume(self, packet: bytes) -> None:
        """Send a request that lets the machine run."""
        # Before sending: a signal that interrupts us must not leave a running machine taken for a stopped one.
        self.running = True
        self._general = None
        self.link.command(packet)
        self._note_hold(False)

    def _note_hold(self, held: bool | None) -> None:
        if held != self._hold:
            self._hold = held
            self._tell_hold(held)

    def parse_stop(self, packet: bytes) -> StopReason:
        """Read a stop packet. Raises :class:`ProtocolError` for any other."""
        reason, thread = parse_stop(packet)
        if thread is not None:
            self._thread_ids.setdefault(reason.vcpu, thread)
        return reason

    def heed_stops(self) -> bool:
        """Return whether the machine ran although we had it stopped, as stop packets say, and note that it did."""
        stops = self.link.take_stops()
        if not stops:
            return False
        self.foreign_runs += 1
        self.own_pause()
        self._general = None  # a stop makes the vCPU that it names the general one
        self.last_stop = self.parse_stop(stops[-1])
        return True

    def repeated(self, work: Callable[[], _T]) -> _T:
        """Do what can be done twice, and again if the machine ran meanwhile: it may have been about another vCPU."""
        for _ in range(_TRIES):
            result = work()
            if not self.heed_stops():
                return result
        raise MachineRan(f"{self.name}: {_RESTLESS}")

    def exchange_memory(self, payloads: Sequence[bytes]) -> list[bytes]:
        """Return the replies to memory requests, seen through the vCPU that is chosen for it.

        They are sent in parts. If somebody let the machine run meanwhile, one is repeated, and the next are smaller.
        """
        self.need_stopped()
        replies: list[bytes] = []
        size, tries = _PART, 0
        while len(replies) < len(payloads):
            found = self._exchange_part(payloads[len(replies) : len(replies) + size])
            if not self.heed_stops():
                replies += found
                tries = 0
                continue
            size, tries = max(size // 4, 1), tries + 1
            if tries == _TRIES:
                raise MachineRan(f"{self.name}: {_RESTLESS}")
        return replies

    def _exchange_part(self, payloads: Sequence[bytes]) -> list[bytes]:
        self.select_for_memory()
        return self.link.exchange(payloads)

    def state(self) -> str:
        """Return QEMU's name for the state of the stopped machine; empty where nobody tells."""
        return state_in(self.ask_monitor("info status")) if self.features.qemu else ""

    def ask_monitor(self, command: str) -> str:
        """Return what the monitor prints for a command, or nothing where no monitor answers."""
        try:
            return run_monitor(self.link, command)
        except TargetLost:
            raise
        except (TargetError, UnsupportedError):
            return ""

    def note_stopping(self) -> None:
        """Note that the machine is about to stop for us: whoever kills us in between leaves it stopped."""
        self._note_hold(not self.paused)

    def note_stop(self) -> None:
        """Note that the machine has stopped."""
        self._note_hold(not self.paused)
        self.running = False
        self._general = None

    def own_pause(self) -> None:
        """Note that the stopped machine is ours to set running."""
        self.paused = False
        self._note_hold(True)

    def note_pause(self) -> None:
        """Note that somebody else has stopped the machine."""
        self.paused = True
        self._note_hold(False)

    def note_let_go(self) -> None:
        """Note that nothing of ours keeps the machine stopped any more."""
        self._note_hold(None)

    def note_exit(self) -> None:
        """Note that the machine has ended, and close."""
        self._exited = True
        self.close()

    def close(self) -> None:
        """Close the connection. Safe to call twice."""
        self.closed = True
        self.running = False
        self.link.close()
