"""Read and write a vCPU's registers through a stub's packets ``g``, ``G`` and ``P``."""

from __future__ import annotations

from collections.abc import Sequence

from probekit.errors import MachineRan, TargetError
from probekit.target.api import Regs, Vcpu
from probekit.target.handshake import read_layout
from probekit.target.packets import from_hex, to_hex
from probekit.target.queries import is_error, printable_reply
from probekit.target.register_layout import RegisterLayout, changes, decode, encode, layout_of_size
from probekit.target.stub_session import StubSession

__all__ = ("StubRegisters",)


class StubRegisters:
    """The registers of the vCPUs of one connection. The machine must be stopped."""

    def __init__(self, session: StubSession) -> None:
        self._session = session
        self._layout: RegisterLayout | None = None

    def read(self, vcpu: Vcpu) -> Regs:
        """See :meth:`probekit.target.api.Target.regs`."""
        self._session.need_stopped()
        self._session.select(vcpu)
        raw = self._read_raw()
        return decode(self._layout_for(raw), raw)

    def write(self, vcpu: Vcpu, regs: Regs) -> None:
        """See :meth:`probekit.target.api.Target.set_regs`. Only registers that differ from the vCPU's are written.

        Writing a control register has effects even when its value stays.
        """
        session = self._session
        session.need_stopped()
        session.select(vcpu)
        now = self._read_raw()
        layout = self._layout_for(now)
        if session.heed_stops():
            raise MachineRan(f"{session.name}: somebody let the machine run before registers were written")
        wanted = encode(layout, regs)
        differing = changes(layout, now, wanted)
        if not differing:
            return
        self._check_stopped(differing, now)
        if len(differing) == 1 and session.features.qemu:
            replies = [self._once(differing[0])]
        else:
            before, *replies = session.link.exchange([b"g", *(_assignment(item) for item in differing)])
            if session.heed_stops():
                self._undo(layout, from_hex(before.replace(b"x", b"0")), differing)
        if b"" in replies:
            session.expect_ok(b"G" + to_hex(wanted), "writing registers")
        elif replies.count(b"OK") != len(replies):
            raise TargetError(f"{session.name}: the stub refused to write registers of vCPU {vcpu}")

    def _check_stopped(self, differing: Sequence[tuple[int, bytes]], now: bytes) -> None:
        """Raise :class:`MachineRan` when somebody lets the machine run just before several registers are written.

        One register is written with the value that it has. That request is lost as a whole if the machine runs. (QEMU
        7.2's ``G``, which would write all registers at once, damages control registers.)
        """
        if len(differing) > 1 and self._session.features.qemu:
            self._once((0, now[:8]))

    def _undo(self, layout: RegisterLayout, before: bytes, written: Sequence[tuple[int, bytes]]) -> None:
        """Put back what was written to a vCPU after it had gone on. Raises :class:`MachineRan`.

        ``before``: the registers of the same vCPU, read in the same row of requests, when it had stopped again.
        """
        numbers = {number for number, _ in written}
        whole = changes(layout, bytes(byte ^ 0xFF for byte in before), before)
        self._session.link.exchange([_assignment(item) for item in whole if item[0] in numbers])
        raise MachineRan(f"{self._session.name}: somebody let the machine run before registers were written")

    def _once(self, item: tuple[int, bytes]) -> bytes:
        reply = self._session.link.request_once(_assignment(item))
        if self._session.heed_stops() or reply is None:
            raise MachineRan(f"{self._session.name}: somebody let the machine run before registers were written")
        return reply

    def _read_raw(self) -> bytes:
        reply = self._session.link.request(b"g")
        if is_error(reply) or not reply:
            raise TargetError(f"{self._session.name}: the stub refused to read registers: {printable_reply(reply)}")
        # A register that the stub cannot read is "xx"; it counts as zero.
        return from_hex(reply.replace(b"x", b"0"))

    def _layout_for(self, raw: bytes) -> RegisterLayout:
        if self._layout is None or self._layout.size != len(raw):
            described = read_layout(self._session.link) if self._session.features.describes_itself else None
            fits = described is not None and described.size == len(raw)
            self._layout = described if described is not None and fits else layout_of_size(len(raw))
        return self._layout


def _assignment(item: tuple[int, bytes]) -> bytes:
    number, data = item
    return b"P%x=%b" % (number, to_hex(data))
