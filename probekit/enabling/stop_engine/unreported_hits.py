"""Find watchpoint hits of vCPUs that the stub has not reported.

QEMU (7.2: ``cpu_check_watchpoint`` in accel/tcg, ``gdb_vm_state_change`` in gdbstub.c) reports the hit of one vCPU when
the machine stops. Another vCPU that hit a watchpoint at the same time has executed its instruction, but QEMU reports
its hit only with some later access to the same page, long after the instruction.

A single step of that vCPU makes the stub report the hit. The step must have no effect, so the vCPU makes it at a
``jmp .`` in the kernel's text (:data:`probekit.guest.call_points.LANDING`), and then gets its registers back.

When the trap of such a step is lost, the vCPU loops in the landing, or takes an interrupt there and comes back to it.
We recognise it by its stack pointer and restore its registers then.
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
_TIMEOUT: Final = 10.0  # seconds for an interrupted vCPU to come back


class WatchTarget(Target, Protocol):
    """A target that can read memory through the page tables of any vCPU."""

    def use_memory_of(self, vcpu: Vcpu | None) -> None:
        """Read memory through this vCPU from now on; None for the default."""
        ...


class UnreportedHits:
    """Queries vCPUs for hits, and restores their registers."""

    def __init__(self, target: WatchTarget, landings: Sequence[int]) -> None:
        """Prepare. ``landings``: addresses of a ``jmp .``; one that no probe has changed is used for a step."""
        self._target = target
        self._landings = tuple(landings)
        self._displaced: dict[int, Regs] = {}
        self.lost_steps = 0
        """How many steps lost their trap; only grows."""

    def query(self, vcpu: Vcpu, regs: Regs) -> tuple[int, BreakKind] | None:
        """Return the watchpoint (address, kind) that this vCPU hit without a report. Its registers stay as they are.

        The machine is stopped. Returns None for a vCPU in user mode, which cannot be stepped this way, and for one
        that is halted, which has no hit. Raises :class:`GuestError` when the vCPU does not stop after the step.
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
        after = self._target.regs(vcpu)
        if stop is None or stop.vcpu != vcpu or (after["rip"], after["rsp"]) != (landing, regs["rsp"]):
            self.lost_steps += 1
            self._displaced[regs["rsp"]] = regs
            self._target.set_breakpoint(landing)
            self.put_back_returned()
            return None
        self._target.set_regs(vcpu, regs)
        return None if stop.watch_addr is None or stop.watch_kind is None else (stop.watch_addr, stop.watch_kind)

    def put_back_returned(self) -> None:
        """Restore the registers of every displaced vCPU that has come back to a landing."""
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
        """Wait for vCPUs that are still displaced, and restore their registers.

        Raises :class:`GuestError` when one does not come back within ten seconds.
        """
        deadline = time.monotonic() + _TIMEOUT
        self.put_back_returned()
        while self._displaced:
            if time.monotonic() > deadline:
                raise GuestError("a vCPU does not come back from an interrupt that it took while it was stepped")
            self._target.resume()
            if self._target.wait(1.0) is None:
                self._target.stop()
            self.put_back_returned()

    def _landing(self, vcpu: Vcpu) -> int | None:
        """Return a landing that this vCPU can execute, as with page-table isolation it may have the user's tables."""
        self._target.use_memory_of(vcpu)
        try:
            found = self._target.read_many([(addr, len(LANDING)) for addr in self._landings])
        finally:
            self._target.use_memory_of(None)
        return next((addr for addr, code in zip(self._landings, found, strict=True) if code == LANDING), None)

    def _halted(self, vcpu: Vcpu, regs: Regs) -> bool:
        """Return whether the vCPU sleeps in ``hlt``, which no step ends."""
        before = self._target.read_many([(regs["rip"] - len(_IDLE), len(_IDLE))])[0] or b""
        if before[-1:] != bytes((_HLT,)):
            return False
        return before == _IDLE or _monitor_says_halted(self._target, vcpu)


def _monitor_says_halted(target: Target, vcpu: Vcpu) -> bool:
    """Read ``info registers -a`` of QEMU's monitor: a paragraph for each vCPU, with ``HLT=1`` where it is halted."""
    paragraphs = target.monitor("info registers -a").split("CPU#")
    mine = next((text for text in paragraphs if text.split(maxsplit=1)[:1] == [str(vcpu - 1)]), "")
    return "HLT=1" in mine
