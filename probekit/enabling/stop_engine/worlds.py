"""Supply the arguments, the result and the task of a firing from the vCPU that has stopped for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from probekit.enabling.host.vcpu import VcpuWorld, kernel_gs_base
from probekit.enabling.sites import EnabledSite
from probekit.enabling.stop_engine.watch import WatchHit
from probekit.guest.facts import GuestFacts
from probekit.guest.stacks import GuestStacks
from probekit.kernel.syscalls import CALL_NUMBER, COMPAT_ARGS, COMPAT_CALL, SYSCALL_ARGS, X32_BIT
from probekit.patch.edits import TextMemory
from probekit.target.api import Regs

__all__ = ("StoppedWorlds",)

_MASK = (1 << 64) - 1


class StoppedWorlds:
    """Makes worlds from registers, and from guest memory while the guest is stopped."""

    def __init__(self, text: TextMemory, facts: GuestFacts, stacks: GuestStacks | None) -> None:
        """Prepare. ``text``: reads guest memory. ``stacks``: finds callers; None without ``stack()``."""
        self._text = text
        self._facts = facts
        self._stacks = stacks

    def at_site(self, site: EnabledSite, regs: Regs) -> VcpuWorld:
        """Return the world of a vCPU that has come to a site.

        Its arguments depend on the probe. At a function's entry they are the function's; at its return, the offset and
        the result; where a system call returns, the result twice; where one is entered, its six arguments.
        """
        match site.probe.kind:
            case "return":
                args = [site.offset, regs["rax"]]
            case "sysret":
                args = [regs["rax"], regs["rax"]]
            case "syscall":
                (data,) = self._text.read_many([(regs["rdi"], max(SYSCALL_ARGS) + 8)])  # struct pt_regs
                offsets, size = (COMPAT_ARGS, 4) if site.compat else (SYSCALL_ARGS, 8)
                args = [int.from_bytes((data or b"")[at : at + size], "little") for at in offsets]
            case _:
                return VcpuWorld(regs, self._text, self._facts, stacks=self._stacks)
        returned = 0 if site.probe.kind == "syscall" else regs["rax"]
        return VcpuWorld(regs, self._text, self._facts, _lookup(args), returned, self._stacks)

    def of_hit(self, hit: WatchHit) -> VcpuWorld:
        """Return the world of a vCPU that has accessed watched memory."""
        return VcpuWorld(hit.regs, self._text, self._facts, _lookup(hit.args), stacks=self._stacks, with_current=True)

    def system_call(self, regs: Regs) -> int | None:
        """Return the number of the system call whose function returns here, as ``EnabledSite.call`` has it.

        None when another function of the kernel called it.
        """
        entry = self._facts.kernel.syscalls
        caller = self._word(regs["rsp"])
        native, compat = (
            any(start <= caller < end for start, end in callers) for callers in (entry.callers, entry.compat_callers)
        )
        if entry.stack_top is None or not (native or compat):
            return None
        number = self._word(self._word(kernel_gs_base(regs) + entry.stack_top) + CALL_NUMBER) & 0xFFFFFFFF
        return number & ~X32_BIT | (0 if native else COMPAT_CALL)

    def _word(self, addr: int) -> int:
        (data,) = self._text.read_many([(addr & _MASK, 8)])
        return int.from_bytes(data or b"", "little")


def _lookup(args: Sequence[int]) -> Callable[[int], int]:
    """Return a function from N to argN, 0 where there are no more."""
    return lambda index: args[index] if index < len(args) else 0
