"""Find each CPU's per-CPU area, the CPUs that exist, and where code finds ``current``.

A per-CPU symbol plus ``__per_cpu_offset[cpu]`` is the address of that CPU's variable; code
adds the same symbol to the GS base.
"""

from __future__ import annotations

from dataclasses import dataclass

from probekit.errors import SymbolError
from probekit.kernel.btf import Btf
from probekit.kernel.memory import KernelMemory
from probekit.kernel.symbols import SymbolTable, require_symbol

__all__ = ("CpuLayout", "CurrentAccess", "cpu_layout", "current_access")

_MAX_CPUS = 8192


@dataclass(frozen=True, slots=True)
class CpuLayout:
    """The CPUs of a kernel and their per-CPU areas."""

    offsets: tuple[int, ...]
    """``__per_cpu_offset`` by CPU number, below ``nr_cpu_ids``."""
    possible: tuple[int, ...]
    """The numbers of CPUs that may exist."""
    online: tuple[int, ...]
    """The numbers of CPUs that run."""


@dataclass(frozen=True, slots=True)
class CurrentAccess:
    """Where code finds the running task and its CPU's number: offsets from the GS base."""

    task: int
    """Of the pointer to the running ``task_struct`` (8 bytes)."""
    cpu: int
    """Of the CPU's number (4 bytes)."""


def cpu_layout(memory: KernelMemory, symbols: SymbolTable) -> CpuLayout:
    """Read the CPU tables. Raises :class:`SymbolError` when their symbols are missing or make no sense."""
    count = memory.u32(require_symbol(symbols, "nr_cpu_ids"))
    if not 0 < count <= _MAX_CPUS:
        raise SymbolError(f"the guest claims {count} CPUs")
    offsets = memory.u64s(require_symbol(symbols, "__per_cpu_offset"), count)
    masks = []
    for name in ("__cpu_possible_mask", "__cpu_online_mask"):
        bits = int.from_bytes(memory.read(require_symbol(symbols, name), (count + 63) // 64 * 8), "little")
        masks.append(tuple(cpu for cpu in range(count) if bits >> cpu & 1))
    possible, online = masks
    if not possible:
        raise SymbolError("the guest claims to have no CPU")
    return CpuLayout(offsets, possible, online)


def current_access(symbols: SymbolTable, btf: Btf | None) -> CurrentAccess:
    """Return where this kernel keeps ``current`` and the CPU number.

    They are in one ``struct pcpu_hot`` (commit 7443b296e699, v6.2) until it was split again
    (v6.15), and in separate ``current_task`` and ``cpu_number`` before and after. Raises :class:`SymbolError`.
    """
    hot = symbols.addr("pcpu_hot")
    if hot is not None and btf is not None:
        layout = btf.struct("pcpu_hot")
        return CurrentAccess(hot + layout.field("current_task").offset, hot + layout.field("cpu_number").offset)
    return CurrentAccess(require_symbol(symbols, "current_task"), require_symbol(symbols, "cpu_number"))
