"""Run the guest until a vCPU is in the kernel, when kernel memory cannot be read otherwise.

This is needed only with page-table isolation, all vCPUs in user space, and a
stub without physical memory access. The interrupt table and the entry code are
always mapped, so a hardware breakpoint on the timer's entry stops a vCPU there
(``LOCAL_TIMER_VECTOR`` 0xec; the page fault 14 and two more entries serve as
well), and a few steps further the entry code has switched CR3 to the kernel's
tables (bit 12 clear, ``SWITCH_TO_KERNEL_CR3``).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence

from probekit.errors import GuestError, GuestPaused, SafePointTimeout, TargetError
from probekit.kernel.image_base import gate_handlers
from probekit.target.api import Regs, Target

__all__ = ("has_kernel_tables", "wait_for_kernel_mode")

# Vectors (arch/x86/include/asm/irq_vectors.h).
_PAGE_FAULT, _TIMER, _CALL_FUNCTION_SINGLE, _RESCHEDULE = 14, 0xEC, 0xFB, 0xFD
_PTI_USER_BIT = 1 << 12
_MAX_STEPS = 256
_HARDWARE_BREAKPOINTS = 4


def has_kernel_tables(regs: Regs) -> bool:
    """Tell whether the vCPU certainly uses the kernel's page tables."""
    return not regs.in_user_mode and not regs.values.get("cr3", 0) & _PTI_USER_BIT


def wait_for_kernel_mode(target: Target, idts: Sequence[int], *, timeout: float = 10.0) -> int:
    """Run the guest until some vCPU has the kernel's page tables, and return that vCPU, stopped there.

    ``idts``: base addresses of interrupt tables; ``timeout``: seconds. The guest stays stopped.
    Raises :class:`SafePointTimeout` when that does not happen in time, :class:`GuestError` when no interrupt table
    can be read.
    """
    if target.paused:
        raise GuestPaused("reading its kernel's memory, which no vCPU maps now,")
    entries = _entry_points(target, idts)
    deadline = time.monotonic() + timeout
    with _breakpoints(target, entries):
        while time.monotonic() < deadline:
            target.resume()
            reason = target.wait(max(0.01, deadline - time.monotonic()))
            if reason is None:
                target.stop()
                break
            for _ in range(_MAX_STEPS):
                if has_kernel_tables(target.regs(reason.vcpu)):
                    return reason.vcpu
                target.step(reason.vcpu)
    raise SafePointTimeout(f"no vCPU entered the kernel in {timeout:g} s", seconds=timeout)


def _entry_points(target: Target, idts: Sequence[int]) -> tuple[int, ...]:
    """Return the entries to break on, at most one for each breakpoint register, from a readable interrupt table."""
    for base in idts:
        table = target.read_many([(base, 4096)])[0]
        if table is not None:
            gates = [
                gate_handlers(table[16 * vector : 16 * vector + 16])
                for vector in (_TIMER, _PAGE_FAULT, _CALL_FUNCTION_SINGLE, _RESCHEDULE)
            ]
            return tuple(dict.fromkeys(addr for gate in gates for addr in gate))[:_HARDWARE_BREAKPOINTS]
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
