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
from probekit.isa.access import accesses_after, string_element
from probekit.target.api import Regs, Target, Vcpu

__all__ = ("InPlace",)

_AT_ONCE: Final = 256  # elements at one stop
_SAME: Final = ("rax", "rbx", "rdx", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15")
_ZEROS: Final = dict.fromkeys((*_SAME, "rcx", "rsi", "rdi", "rsp", "eflags", "fs_base", "gs_base"), 0)
_MOST: Final = 4096  # tasks under way; beyond it the oldest is forgotten, and would fire again


@dataclass(frozen=True, slots=True)
class _UnderWay:
    """One task's execution of one instruction: the registers when it was left."""

    regs: Regs
    fixup: int


class InPlace:
    """``insns``: the bytes of each instruction by its address; ``fixups``: where a fault in it goes on.

    ``taken``: addresses that have a breakpoint of somebody else's, who tells :meth:`arrived`, too.
    ``lost``: steps whose trap was lost; only grows.
    """

    def __init__(
        self, target: Target, insns: Mapping[int, bytes], fixups: Mapping[int, int], taken: Container[int]
    ) -> None:
        self._target = target
        self._insns = dict(insns)
        self._taken = taken
        elements = {addr: string_element(raw) for addr, raw in insns.items()}
        self._element_size = {a: accesses_after(e, a, _ZEROS)[0].size for a, e in elements.items() if e is not None}
        self._fixups = dict(fixups)
        self._way: dict[tuple[int, int], _UnderWay] = {}
        self._watched: set[int] = set()
        self.lost = 0

    def serves(self, addr: int) -> bool:
        """Whether the instruction at ``addr`` is one of these."""
        return addr in self._insns

    def continues(self, regs: Regs) -> bool:
        """Whether a vCPU at one of these instructions is in the middle of it: it has fired already."""
        way = self._way.get((regs["rip"], regs["rsp"]))
        if way is None:
            return False
        same = all(regs[name] == way.regs[name] for name in _SAME)
        size = self._element_size.get(regs["rip"], 0)
        gone = (way.regs["rcx"] - regs["rcx"]) * size
        further = {abs(regs[name] - way.regs[name]) for name in ("rsi", "rdi")}
        return same and gone >= 0 and further <= {0, gone} and (gone in further or regs["rcx"] == way.regs["rcx"])

    def advance(self, vcpu: Vcpu, regs: Regs) -> None:
        """Step the vCPU over its instruction, or as far as it gets at one stop."""
        addr, rsp = regs["rip"], regs["rsp"]
        behind = addr + len(self._insns[addr])
        self._way.pop((addr, rsp), None)
        for _ in range(_AT_ONCE):
            try:
                self._target.step(vcpu)
            except TargetTimeout:
                self.lost += 1
                return
            now = self._target.regs(vcpu)
            if (now["rip"], now["rsp"]) == (behind, rsp):
                return
            if (now["rip"], now["rsp"]) != (addr, rsp):
                if self._faulted(now, addr):
                    self._leave(regs)
                else:
                    self.lost += 1
                return
            regs = now
        self._leave(regs)

    def arrived(self, vcpu: Vcpu, regs: Regs) -> bool:
        """To be told of every vCPU at every stop: at a fix-up, its instruction has ended there. Whether it was ours."""
        if not self._way or regs.in_user_mode:
            return False
        for key, way in list(self._way.items()):
            if (way.fixup, key[1]) == (regs["rip"], regs["rsp"]):
                del self._way[key]
        if regs["rip"] not in self._watched:
            return False
        if all(way.fixup != regs["rip"] for way in self._way.values()):
            self._forget(regs["rip"])
        else:
            self._target.step(vcpu)
        return True

    def clear(self) -> None:
        """Nothing is waited for any more; the guest is stopped."""
        self._way.clear()
        for fixup in list(self._watched):
            self._forget(fixup)

    def _leave(self, regs: Regs) -> None:
        """The task is in the middle of it, or in the handler of its fault."""
        fixup = self._fixups[regs["rip"]]
        self._way[regs["rip"], regs["rsp"]] = _UnderWay(regs, fixup)
        if len(self._way) > _MOST:
            del self._way[next(iter(self._way))]
        if fixup not in self._watched and fixup not in self._taken:
            self._target.set_breakpoint(fixup)
            self._watched.add(fixup)

    def _forget(self, fixup: int) -> None:
        self._watched.discard(fixup)
        self._target.clear_breakpoint(fixup)

    def _faulted(self, now: Regs, addr: int) -> bool:
        """Whether the step ended in a fault's handler: the frame that the processor pushed has our address."""
        if now.in_user_mode:
            return False
        # Intel SDM vol. 3, figure 6-4: the error code, where the exception has one, and then RIP.
        found = self._target.read_many([(now["rsp"], 16)])[0] or b""
        return addr in (int.from_bytes(found[at : at + 8], "little") for at in (0, 8))
