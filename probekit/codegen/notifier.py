"""Write the guest's handler of our INT3: a function on the kernel's chain of die notifiers.

The kernel calls it for every trap that no notifier before it has taken. For one of our sites it sends the interrupted
code to the site's stub and stops the chain. It passes on every other trap untouched::

    int notifier(struct notifier_block *, unsigned long event, struct die_args *)
        event is not DIE_INT3, or user mode, or regs->ip - 1 is no site   ->  NOTIFY_DONE
        else regs->ip = stub                                              ->  NOTIFY_STOP

The stub then runs as it does after a detour: outside of the trap, with the probed registers, the probed stack and
interrupts as they were. So clauses, records and aggregations are the same for both, and no clause runs where NMIs are
blocked. The notifier itself runs with interrupts off and calls nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from probekit.errors import InternalError
from probekit.guest.trap_table import GOLDEN
from probekit.isa.assemble import assemble

__all__ = ("NOTIFIER_SIZE", "NOTIFY_STOP", "TrapLayout", "notifier")

NOTIFIER_SIZE = 160
"""The most bytes that :func:`notifier` needs."""

NOTIFY_STOP = 0x8001
"""``NOTIFY_OK | NOTIFY_STOP_MASK``, include/linux/notifier.h: the same since 2.6."""


@dataclass(frozen=True, slots=True)
class TrapLayout:
    """Where the kernel's notifiers find an INT3."""

    int3: int
    """The event's number (``DIE_INT3``)."""
    regs: int
    """Byte offset in ``struct die_args``."""
    ip: int
    """Byte offset in ``struct pt_regs``."""
    cs: int
    """Byte offset in ``struct pt_regs``."""


def notifier(layout: TrapLayout, *, table: int, capacity: int, shift: int, limit: int, addr: int) -> bytes:
    """Return the code of the function for ``addr``.

    The rest describes the hash of sites (:mod:`probekit.guest.trap_table`). ``table``: its address; ``capacity``: its
    entries, a power of two; ``shift``: from a hash to an index; ``limit``: the most entries that a look-up visits.
    """
    code = assemble(
        f"""
            endbr64
            xor eax, eax
            cmp rsi, {layout.int3:#x}
            jne done
            mov rcx, qword ptr [rdx + {layout.regs:#x}]
            test rcx, rcx
            jz done
            test byte ptr [rcx + {layout.cs:#x}], 3
            jnz done
            mov rdx, qword ptr [rcx + {layout.ip:#x}]
            dec rdx
            mov rsi, {GOLDEN:#x}
            imul rsi, rdx
            shr rsi, {shift}
            mov rdi, {table:#x}
            mov r8d, {limit:#x}
        visit:
            mov r9, rsi
            shl r9, 4
            mov r10, qword ptr [rdi + r9]
            test r10, r10
            jz done
            cmp r10, rdx
            je found
            inc esi
            and esi, {capacity - 1:#x}
            dec r8d
            jnz visit
        done:
            ret
        found:
            mov rdx, qword ptr [rdi + r9 + 8]
            mov qword ptr [rcx + {layout.ip:#x}], rdx
            mov eax, {NOTIFY_STOP:#x}
            ret
        """,
        addr,
    )
    if len(code) > NOTIFIER_SIZE:
        raise InternalError(f"the notifier has {len(code)} bytes, more than {NOTIFIER_SIZE}")
    return code
