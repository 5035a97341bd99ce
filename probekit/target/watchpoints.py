"""Plan the watchpoints of a stub that watch some ranges of memory.

An emulator (QEMU's TCG) takes any range. Where the processor's own debug registers are used (KVM), there are
four, each for 1, 2, 4 or 8 aligned bytes, and none that sees only reads. A range is cut into pieces:

    0x1003, 7 bytes   ->   0x1003 1, 0x1004 4, 0x1008 2
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from probekit.errors import UnsupportedError
from probekit.target.api import BreakKind

__all__ = ("HARDWARE_WATCHPOINTS", "Watchpoint", "plan_watchpoints")

HARDWARE_WATCHPOINTS: Final = 4
"""DR0 to DR3 (Intel SDM vol. 3, section 18.2)."""

_LARGEST: Final = 8


class Watchpoint(NamedTuple):
    """What one ``Z2``, ``Z3`` or ``Z4`` packet asks for."""

    addr: int
    """Guest virtual address of the first byte."""
    size: int
    """Bytes."""
    kind: BreakKind
    """Which accesses stop the machine."""


def plan_watchpoints(ranges: Sequence[Watchpoint], *, hardware: bool) -> tuple[Watchpoint, ...]:
    """Return what to set so that every range is watched. ``hardware``: only the processor's registers can be used.

    Raises :class:`UnsupportedError` when there are too few of them.
    """
    wanted = tuple(dict.fromkeys(ranges))
    if not hardware:
        return wanted
    pieces: dict[tuple[int, int], BreakKind] = {}
    for item in wanted:
        for piece in _cut(item.addr, item.size):
            # Reads cannot be watched alone: writes are sorted out when the instruction is decoded.
            only_writes = item.kind == "watch_write" and pieces.get(piece, "watch_write") == "watch_write"
            pieces[piece] = "watch_write" if only_writes else "watch_access"
    if len(pieces) > HARDWARE_WATCHPOINTS:
        raise UnsupportedError(
            f"the watched memory needs {len(pieces)} hardware watchpoints, and a processor has {HARDWARE_WATCHPOINTS}",
            feature="hardware watchpoints",
            hint="watch fewer or smaller ranges (8 aligned bytes take one), or run the guest under TCG",
        )
    return tuple(Watchpoint(addr, size, kind) for (addr, size), kind in pieces.items())


def _cut(addr: int, size: int) -> list[tuple[int, int]]:
    pieces: list[tuple[int, int]] = []
    end = addr + size
    while addr < end:
        step = _LARGEST
        while addr % step or addr + step > end:
            step //= 2
        pieces.append((addr, step))
        addr += step
    return pieces
