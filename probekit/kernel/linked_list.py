"""Walk the kernel's linked lists (``struct list_head``, include/linux/list.h)."""

from __future__ import annotations

from probekit.errors import SymbolError
from probekit.kernel.memory import KernelMemory

__all__ = ("walk_list",)


def walk_list(memory: KernelMemory, head: int, limit: int) -> list[int]:
    """Return the addresses of the ``list_head`` members after ``head``, in order.

    Raises :class:`SymbolError` when there are more than ``limit`` or a cycle misses ``head``, and
    :class:`~probekit.errors.MemoryAccessError` when the list leads to unreadable memory.
    """
    found: list[int] = []
    seen = {head}
    at = memory.u64(head)
    while at != head:
        if at in seen or len(found) >= limit:
            raise SymbolError(f"the guest's list at {head:#x} does not end: it is changing or corrupt")
        seen.add(at)
        found.append(at)
        at = memory.u64(at)
    return found
