"""Bring a vCPU into the kernel, when memory cannot be read otherwise.

Only needed with page-table isolation, all vCPUs in user space, and a stub
without physical memory access. What is always mapped is the interrupt table
and the entry code, so a hardware breakpoint on the timer's entry stops a vCPU
there (``LOCAL_TIMER_VECTOR`` 0xec, the page fault 14 and others beside it),
and a few steps further the entry code has switched CR3 to the kernel's
tables (bit 12 clear, ``SWITCH_TO_KERNEL_CR3``).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence

from probekit.errors import GuestError, SafePointTimeout, TargetError
from probekit.kernel.base import gate_handlers
from probekit.target.api import Regs, Target

__all__ = ("bring_into_kernel", "in_kernel_tables")

_PAGE_FAULT, _TIMER, _CALL_SINGLE, _RESCHEDULE = 14, 0xEC, 0xFB, 0xFD
_USER_TABLES = 1 << 12
_MAX_STEPS = 256


def in_kernel_tables(regs: Regs) -> bool:
    """Whether the vCPU surely looks through the kernel's page tables."""
    return not regs.in_user_mode and not regs.values.get("cr3", 0) & _USER_TABLES


def bring_into_kernel(target: Target, idts: Sequence[int], *, timeout: float = 10.0) -> int:
    """Run the guest until some vCPU has the kernel's page tables; the vCPU, stopped there.

    :class:`SafePointTimeout` when that does not happen in time, :class:`GuestError`
    when there is no interrupt table to start from. The guest stays stopped.
    """
    entries = _entries(target, idts)
    deadline = time.monotonic() + timeout
    with _breakpoints(target, entries):
        while time.monotonic() < deadline:
            target.resume()
            reason = target.wait(max(0.01, deadline - time.monotonic()))
            if reason is None:
                target.stop()
                break
            for _ in range(_MAX_STEPS):
                if in_kernel_tables(target.regs(reason.vcpu)):
                    return reason.vcpu
                target.step(reason.vcpu)
    raise SafePointTimeout(f"no vCPU entered the kernel in {timeout:g} s", seconds=timeout)


def _entries(target: Target, idts: Sequence[int]) -> tuple[int, ...]:
    for base in idts:
        table = target.read_many([(base, 4096)])[0]
        if table is not None:
            gates = [
                gate_handlers(table[16 * v : 16 * v + 16]) for v in (_TIMER, _PAGE_FAULT, _CALL_SINGLE, _RESCHEDULE)
            ]
            # x86 has four hardware breakpoints.
            return tuple(dict.fromkeys(addr for gate in gates for addr in gate))[:4]
    raise GuestError("no readable interrupt table: the kernel's memory cannot be reached from here")


@contextlib.contextmanager
def _breakpoints(target: Target, addrs: Sequence[int]) -> Iterator[None]:
    done: list[int] = []
    try:
        for addr in addrs:
            target.set_breakpoint(addr, "hardware")
            done.append(addr)
        yield
    finally:
        for addr in done:
            with contextlib.suppress(TargetError):
                target.clear_breakpoint(addr, "hardware")
