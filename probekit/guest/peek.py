"""Kernel memory that a script's own pointers lead to: anything may be asked for, and nothing may be hurt by looking.

    peek(addr of a task, 8)          ->  8 bytes
    peek(0, 8), peek(user address)   ->  None: D has no loads of user memory, and the tables of a process may be any
    peek(ioremap'd register, 4)      ->  None: reading a device changes it

Where a page is, is looked up anew for each firing: what a pointer leads to may have been mapped a moment ago.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from probekit.errors import MemoryAccessError, TargetError
from probekit.guest.memory import PauseClock
from probekit.guest.ramtext import RamText

__all__ = ("MOST_BYTES", "KernelPeek")

MOST_BYTES = 1 << 20
"""Of one read."""

_PAGE = 4096
_TOP = 1 << 64


class _View(Protocol):
    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]: ...

    def translate_many(self, addrs: Iterable[int]) -> dict[int, int | None]: ...


class KernelPeek:
    """``ram``: the quick way, where there is one. ``view``: the stub, used while the guest is stopped.

    ``levels``: of the page tables, 4 or 5: they say which addresses are canonical, and so are addresses at all.
    ``spans``: asked once, without ``ram``: the physical ``(start, end)`` of the guest's RAM, None when nobody tells.
    """

    def __init__(
        self,
        view: _View,
        clock: PauseClock,
        spans: Callable[[], Sequence[tuple[int, int]] | None],
        levels: int,
        ram: RamText | None = None,
    ) -> None:
        self._lowest = _TOP - (1 << (12 + 9 * levels - 1))
        self._view = view
        self._clock = clock
        self._ram = ram
        self._ask = spans
        self._spans: Sequence[tuple[int, int]] | None = None
        self._asked = False

    def invalidate(self) -> None:
        """The guest has run: look every page up anew."""
        if self._ram is not None:
            self._ram.invalidate()

    def read(self, addr: int, size: int) -> bytes | None:
        """``size`` bytes at a kernel address, None where one of them is not plain mapped memory.

        The guest may run; without its RAM as a file it is stopped meanwhile.
        """
        if not (addr >= self._lowest and 0 < size <= MOST_BYTES and addr + size <= _TOP):
            return None
        if self._ram is not None:
            return self._ram.read_many([(addr, size)])[0]
        with self._clock.paused():
            try:
                return self._view.read_many([(addr, size)])[0] if self._harmless(addr, size) else None
            except (MemoryAccessError, TargetError):
                return None

    def _harmless(self, addr: int, size: int) -> bool:
        """Whether all of it is RAM."""
        if not self._asked:
            self._spans, self._asked = self._ask(), True
        if self._spans is None:
            return True  # another hypervisor: its stub reads memory only
        where = self._view.translate_many(range(addr & -_PAGE, addr + size, _PAGE))
        return all(phys is None or any(start <= phys < end for start, end in self._spans) for phys in where.values())
