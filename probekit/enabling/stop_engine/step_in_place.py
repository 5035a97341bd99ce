"""Step over a probed instruction in its place, if the kernel looks up its faults by address.

A copy of such an instruction (``__ex_table``: most access user memory) would fault at an address that the kernel does
not know. So the stub's breakpoint is removed, the vCPU makes one step while all others are stopped, and the breakpoint
is set again. One step is one element of a REP. Several steps are made at a stop, and then all vCPUs run for a while:

    firing        RIP is at the instruction for the first time: this task has not been interrupted in it
    continuation  the stack pointer is the same, and registers have advanced by some elements: step on, do not fire
    fault         the step ends in the handler; the task comes back (continuation) or goes to the fix-up (the end)

A step whose trap is lost does no harm, because nothing in the guest was changed. It is counted.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Final

from probekit.errors import TargetTimeout
from probekit.isa.access import accesses_after, string_element
from probekit.target.api import Regs, Target, Vcpu

__all__ = ("InPlaceStepper",)

_STEPS_PER_STOP: Final = 256  # elements that are stepped over at one stop
_UNCHANGED: Final = ("rax", "rbx", "rdx", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15")
_ZEROS: Final = dict.fromkeys((*_UNCHANGED, "rcx", "rsi", "rdi", "rsp", "eflags", "fs_base", "gs_base"), 0)
_MAX_INTERRUPTED: Final = 4096  # tasks; with more, the oldest is forgotten and would fire again


@dataclass(frozen=True, slots=True)
class _Interrupted:
    """A task that is in the middle of one instruction."""

    regs: Regs
    """The registers after our last step."""
    fixup: int
    """The fix-up address of the instruction."""


class InPlaceStepper:
    """Steps vCPUs over instructions, and keeps a list of the tasks that are in the middle of one."""

    def __init__(
        self, target: Target, insns: Mapping[int, bytes], fixups: Mapping[int, int], breakpoints: Container[int]
    ) -> None:
        """Serve the instructions in ``insns``: bytes by address.

        ``fixups``: fix-up addresses of the instructions, by address. ``breakpoints``: addresses where the engine
        already has a breakpoint, so that none is added there.
        """
        self._target = target
        self._insns = dict(insns)
        self._breakpoints = breakpoints
        elements = {addr: string_element(raw) for addr, raw in insns.items()}
        self._element_size = {a: accesses_after(e, a, _ZEROS)[0].size for a, e in elements.items() if e is not None}
        self._fixups = dict(fixups)
        self._interrupted: dict[tuple[int, int], _Interrupted] = {}
        self._fixup_breakpoints: set[int] = set()
        self.lost_steps = 0
        """How many steps lost their trap; only grows."""

    def serves(self, addr: int) -> bool:
        """Return whether the instruction at ``addr`` is stepped in its place."""
        return addr in self._insns

    def continues(self, regs: Regs) -> bool:
        """Return whether the task is in the middle of the instruction at RIP, and so has fired already."""
        left = self._interrupted.get((regs["rip"], regs["rsp"]))
        if left is None:
            return False
        same = all(regs[name] == left.regs[name] for name in _UNCHANGED)
        size = self._element_size.get(regs["rip"], 0)
        advance = (left.regs["rcx"] - regs["rcx"]) * size
        moved = {abs(regs[name] - left.regs[name]) for name in ("rsi", "rdi")}
        return same and advance >= 0 and moved <= {0, advance} and (advance in moved or regs["rcx"] == left.regs["rcx"])

    def advance(self, vcpu: Vcpu, regs: Regs) -> None:
        """Step the vCPU over its instruction, or over 256 elements of it."""
        addr, rsp = regs["rip"], regs["rsp"]
        following = addr + len(self._insns[addr])
        self._interrupted.pop((addr, rsp), None)
        for _ in range(_STEPS_PER_STOP):
            try:
                self._target.step(vcpu)
            except TargetTimeout:
                self.lost_steps += 1
                return
            now = self._target.regs(vcpu)
            if (now["rip"], now["rsp"]) == (following, rsp):
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
        """Note that a task's instruction has ended, when the vCPU is at the fix-up.

        Call this for every vCPU at every stop. Returns whether the vCPU has stopped at a breakpoint of ours.
        """
        if not self._interrupted or regs.in_user_mode:
            return False
        for key, left in list(self._interrupted.items()):
            if (left.fixup, key[1]) == (regs["rip"], regs["rsp"]):
                del self._interrupted[key]
        if regs["rip"] not in self._fixup_breakpoints:
            return False
        if all(left.fixup != regs["rip"] for left in self._interrupted.values()):
            self._clear_fixup(regs["rip"])
        else:
            self._target.step(vcpu)
        return True

    def clear(self) -> None:
        """Forget all tasks and clear the breakpoints at fix-ups. The guest is stopped."""
        self._interrupted.clear()
        for fixup in list(self._fixup_breakpoints):
            self._clear_fixup(fixup)

    def _keep_interrupted(self, regs: Regs) -> None:
        """Note that the task is in the middle of its instruction, or in the handler of its fault."""
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
        """Return whether the step ended in a fault's handler: the frame that the processor pushed has our address."""
        if now.in_user_mode:
            return False
        # Intel SDM vol. 3, figure 6-4: the error code, where the exception has one, and then RIP.
        found = self._target.read_many([(now["rsp"], 16)])[0] or b""
        return addr in (int.from_bytes(found[at : at + 8], "little") for at in (0, 8))
