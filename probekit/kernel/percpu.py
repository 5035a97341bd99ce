"""Per-CPU facts: where each CPU's area is, which CPUs exist, how ``current`` is found.

A per-CPU symbol plus ``__per_cpu_offset[cpu]`` is that CPU's variable; the
same symbol is what code adds to the GS base.
"""

from __future__ import annotations

from dataclasses import dataclass

from probekit.errors import SymbolError
from probekit.kernel.btf import Btf
from probekit.kernel.memory import Memory
from probekit.kernel.symbols import SymbolTable, require

__all__ = ("CpuLayout", "CurrentAccess", "cpu_layout", "current_access")

_MAX_CPUS = 8192


@dataclass(frozen=True, slots=True)
class CpuLayout:
    """``offsets``: ``__per_cpu_offset`` by CPU number below ``nr_cpu_ids``; ``possible``, ``online``: CPU numbers."""

    offsets: tuple[int, ...]
    possible: tuple[int, ...]
    online: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CurrentAccess:
    """GS-relative places of the running task's pointer (8 bytes) and the CPU's number (4 bytes)."""

    task: int
    cpu: int


def cpu_layout(memory: Memory, symbols: SymbolTable) -> CpuLayout:
    """Read the CPU tables, or :class:`SymbolError` when their symbols are missing or make no sense."""
    count = memory.u32(require(symbols, "nr_cpu_ids"))
    if not 0 < count <= _MAX_CPUS:
        raise SymbolError(f"the guest claims {count} CPUs")
    offsets = memory.u64s(require(symbols, "__per_cpu_offset"), count)
    masks = []
    for name in ("__cpu_possible_mask", "__cpu_online_mask"):
        bits = int.from_bytes(memory.read(require(symbols, name), (count + 63) // 64 * 8), "little")
        masks.append(tuple(cpu for cpu in range(count) if bits >> cpu & 1))
    possible, online = masks
    if not possible:
        raise SymbolError("the guest claims to have no CPU")
    return CpuLayout(offsets, possible, online)


def current_access(symbols: SymbolTable, btf: Btf | None) -> CurrentAccess:
    """How this kernel keeps ``current`` and the CPU number.

    One ``struct pcpu_hot`` (commit 7443b296e699, v6.2) until it was split again
    (v6.15); separate ``current_task`` and ``cpu_number`` before and after.
    """
    hot = symbols.addr("pcpu_hot")
    if hot is not None and btf is not None:
        layout = btf.struct("pcpu_hot")
        return CurrentAccess(hot + layout.field("current_task").offset, hot + layout.field("cpu_number").offset)
    return CurrentAccess(require(symbols, "current_task"), require(symbols, "cpu_number"))
