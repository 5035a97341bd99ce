"""Stepping over a probed instruction where it stands, for those whose faults the kernel finds by their address.

A copy of such an instruction (``__ex_table``: most touch user memory) would fault at an address that the kernel does
not know. So the stub's breakpoint is lifted, the vCPU makes one step with all others held, and the breakpoint is set
again. One step is one element of a REP; several are made at a stop, and then everybody runs for a while:

    firing        first arrival: RIP = the instruction, no step of this task under way there
    continuation  the same stack pointer, and registers as far on as its elements: stepped on, not fired
    fault         the step ends in the handler; the task comes back (continuation) or goes to the fix-up (the end)

A step whose trap is lost leaves nothing half done, as nothing of the guest was changed; it is counted.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Final

from probekit.errors import TargetTimeout
from probekit.isa.access import accesses_behind, element_of
from probekit.target.api import Regs, Target, Vcpu

__all__ = ("InPlaceStepper",)

_STEPS_PER_STOP: Final = 256  # elements at one stop
_UNCHANGED: Final = ("rax", "rbx", "rdx", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15")
_ZEROS: Final = dict.fromkeys((*_UNCHANGED, "rcx", "rsi", "rdi", "rsp", "eflags", "fs_base", "gs_base"), 0)
_MAX_INTERRUPTED: Final = 4096  # tasks under way; beyond it the oldest is forgotten, and would fire again


@dataclass(frozen=True, slots=True)
class _Interrupted:
    """One task's execution of one instruction: the registers when it was left."""

    regs: Regs
    fixup: int


class InPlaceStepper:
    """``insns``: the bytes of each instruction by its address; ``fixups``: where a fault in it goes on.

    ``breakpoints``: addresses that have a breakpoint of somebody else's, who tells :meth:`at_fixup`, too.
    ``lost_steps``: steps whose trap was lost; only grows.
    """

    def __init__(
        self, target: Target, insns: Mapping[int, bytes], fixups: Mapping[int, int], breakpoints: Container[int]
    ) -> None:
        self._target = target
        self._insns = dict(insns)
        self._breakpoints = breakpoints
        elements = {addr: element_of(raw) for addr, raw in insns.items()}
        self._element_size = {a: accesses_behind(e, a, _ZEROS)[0].size for a, e in elements.items() if e is not None}
        self._fixups = dict(fixups)
        self._interrupted: dict[tuple[int, int], _Interrupted] = {}
        self._fixup_breakpoints: set[int] = set()
        self.lost_steps = 0

    def serves(self, addr: int) -> bool:
        """Whether the instruction at ``addr`` is one of these."""
        return addr in self._insns

    def continues(self, regs: Regs) -> bool:
        """Whether a vCPU at one of these instructions is in the middle of it: it has fired already."""
        way = self._interrupted.get((regs["rip"], regs["rsp"]))
        if way is None:
            return False
        same = all(regs[name] == way.regs[name] for name in _UNCHANGED)
        size = self._element_size.get(regs["rip"], 0)
        gone = (way.regs["rcx"] - regs["rcx"]) * size
        further = {abs(regs[name] - way.regs[name]) for name in ("rsi", "rdi")}
        return same and gone >= 0 and further <= {0, gone} and (gone in further or regs["rcx"] == way.regs["rcx"])

    def advance(self, vcpu: Vcpu, regs: Regs) -> None:
        """Step the vCPU over its instruction, or as far as it gets at one stop."""
        addr, rsp = regs["rip"], regs["rsp"]
        behind = addr + len(self._insns[addr])
        self._interrupted.pop((addr, rsp), None)
        for _ in range(_STEPS_PER_STOP):
            try:
                self._target.step(vcpu)
            except TargetTimeout:
                self.lost_steps += 1
                return
            now = self._target.regs(vcpu)
            if (now["rip"], now["rsp"]) == (behind, rsp):
                return
            if (now["rip"], now["rsp"]) != (addr, rsp):
                if self._faulted(now, addr):
                    self._keep_interrupted(regs)
                else:
                    self.lost_steps += 1
                return
            regs = now
        self._keep_interrupted(regs)

    def at_fixup(self, vcpu: Vcpu, regs: Regs) -> bool:
        """To be told of every vCPU at every stop: at a fix-up, its instruction has ended there. Whether it was ours."""
        if not self._interrupted or regs.in_user_mode:
            return False
        for key, way in list(self._interrupted.items()):
            if (way.fixup, key[1]) == (regs["rip"], regs["rsp"]):
                del self._interrupted[key]
        if regs["rip"] not in self._fixup_breakpoints:
            return False
        if all(way.fixup != regs["rip"] for way in self._interrupted.values()):
            self._clear_fixup(regs["rip"])
        else:
            self._target.step(vcpu)
        return True

    def clear(self) -> None:
        """Nothing is waited for any more; the guest is stopped."""
        self._interrupted.clear()
        for fixup in list(self._fixup_breakpoints):
            self._clear_fixup(fixup)

    def _keep_interrupted(self, regs: Regs) -> None:
        """The task is in the middle of it, or in the handler of its fault."""
        fixup = self._fixups[regs["rip"]]
        self._interrupted[regs["rip"], regs["rsp"]] = _Interrupted(regs, fixup)
        if len(self._interrupted) > _MAX_INTERRUPTED:
            del self._interrupted[next(iter(self._interrupted))]
        if fixup not in self._fixup_breakpoints and fixup not in self._breakpoints:
            self._target.set_breakpoint(fixup)
            self._fixup_breakpoints.add(fixup)

    def _clear_fixup(self, fixup: int) -> None:
        self._fixup_breakpoints.discard(fixup)
        self._target.clear_breakpoint(fixup)

    def _faulted(self, now: Regs, addr: int) -> bool:
        """Whether the step ended in a fault's handler: the frame that the processor pushed has our address."""
        if now.in_user_mode:
            return False
        # Intel SDM vol. 3, figure 6-4: the error code, where the exception has one, and then RIP.
        found = self._target.read_many([(now["rsp"], 16)])[0] or b""
        return addr in (int.from_bytes(found[at : at + 8], "little") for at in (0, 8))
