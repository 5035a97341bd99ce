"""Watchpoint hits that the stub has not told of.

QEMU (7.2: ``cpu_check_watchpoint`` in accel/tcg, ``gdb_vm_state_change`` in gdbstub.c) tells of one vCPU when the
machine stops. Another that hit a watchpoint at the same time has executed its instruction and keeps the hit to
itself, to report it with some later access to the same page, long behind the instruction.

A step of that vCPU alone makes the stub say what it has kept. The step must do nothing, so the vCPU makes it at a
``jmp .`` in the kernel's text (:data:`probekit.guest.call_points.LANDING`), and is put back where it was.

Should the trap of such a step be lost, the vCPU goes round the landing, or takes an interrupt there and comes back to
it: it is known by its stack pointer and put back then.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final, Protocol

from probekit.errors import GuestError, TargetTimeout
from probekit.guest.call_points import LANDING
from probekit.target.api import BreakKind, Regs, Target, Vcpu

__all__ = ("UnreportedHits", "WatchTarget")

_IDLE: Final = b"\xfb\xf4"  # sti; hlt
_HLT: Final = 0xF4
_LIMIT: Final = 10.0  # seconds for an interrupted vCPU to come back


class WatchTarget(Target, Protocol):
    """A target whose memory can be seen through the vCPU of one's choice."""

    def use_memory_of(self, vcpu: Vcpu | None) -> None: ...


class UnreportedHits:
    """``landings``: where a ``jmp .`` may be found. ``lost_steps``: steps whose trap was lost."""

    def __init__(self, target: WatchTarget, landings: Sequence[int]) -> None:
        self._target = target
        self._landings = tuple(landings)
        self._displaced: dict[int, Regs] = {}
        self.lost_steps = 0

    def query(self, vcpu: Vcpu, regs: Regs) -> tuple[int, BreakKind] | None:
        """The watchpoint (address, kind) that this vCPU hit and nobody was told of. Its registers stay as they are.

        The machine is stopped. A vCPU in user mode cannot be asked; one that is halted has no hit to keep.
        """
        if regs.in_user_mode or regs["rsp"] in self._displaced:
            return None
        landing = self._landing(vcpu)
        if landing is None or self._halted(vcpu, regs):
            return None
        self._target.set_regs(vcpu, regs.replace(rip=landing))
        try:
            stop = self._target.step(vcpu)
        except TargetTimeout as error:
            stop = None
            if self._target.running:
                raise GuestError("a vCPU was lost while it was stepped") from error
        behind = self._target.regs(vcpu)
        if stop is None or stop.vcpu != vcpu or (behind["rip"], behind["rsp"]) != (landing, regs["rsp"]):
            self.lost_steps += 1
            self._displaced[regs["rsp"]] = regs
            self._target.set_breakpoint(landing)
            self.put_back_returned()
            return None
        self._target.set_regs(vcpu, regs)
        return None if stop.watch_addr is None or stop.watch_kind is None else (stop.watch_addr, stop.watch_kind)

    def put_back_returned(self) -> None:
        """Put back every vCPU that has come back to a landing."""
        if not self._displaced:
            return
        for vcpu in self._target.vcpus():
            regs = self._target.regs(vcpu)
            if regs["rip"] in self._landings and regs["rsp"] in self._displaced and not regs.in_user_mode:
                self._target.set_regs(vcpu, regs.replace(rip=self._displaced.pop(regs["rsp"])["rip"]))
        if not self._displaced:
            for landing in self._landings:
                self._target.clear_breakpoint(landing)

    def wait_for_displaced(self) -> None:
        """Wait for those that are still away. Raises :class:`GuestError` when one does not come back."""
        deadline = time.monotonic() + _LIMIT
        self.put_back_returned()
        while self._displaced:
            if time.monotonic() > deadline:
                raise GuestError("a vCPU does not come back from an interrupt that it took while it was stepped")
            self._target.resume()
            if self._target.wait(1.0) is None:
                self._target.stop()
            self.put_back_returned()

    def _landing(self, vcpu: Vcpu) -> int | None:
        """A landing that this vCPU can execute: with page-table isolation it may have the user's tables in use."""
        self._target.use_memory_of(vcpu)
        try:
            found = self._target.read_many([(addr, len(LANDING)) for addr in self._landings])
        finally:
            self._target.use_memory_of(None)
        return next((addr for addr, code in zip(self._landings, found, strict=True) if code == LANDING), None)

    def _halted(self, vcpu: Vcpu, regs: Regs) -> bool:
        """Whether it sleeps in ``hlt``, which no step ends."""
        behind = self._target.read_many([(regs["rip"] - len(_IDLE), len(_IDLE))])[0] or b""
        if behind[-1:] != bytes((_HLT,)):
            return False
        return behind == _IDLE or _says_halted(self._target, vcpu)


def _says_halted(target: Target, vcpu: Vcpu) -> bool:
    """``info registers -a`` of QEMU's monitor: a paragraph for each vCPU, with ``HLT=1`` where it is halted."""
    paragraphs = target.monitor("info registers -a").split("CPU#")
    mine = next((text for text in paragraphs if text.split(maxsplit=1)[:1] == [str(vcpu - 1)]), "")
    return "HLT=1" in mine
