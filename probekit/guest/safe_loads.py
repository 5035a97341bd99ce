"""Read kernel memory at addresses that a script computes. A script may ask for any address, and no read may do harm.

    read(addr of a task, 8)          ->  8 bytes
    read(0, 8), read(user address)   ->  None: D has no loads of user memory, and any process's tables may be in use
    read(ioremap'd register, 4)      ->  None: reading a device changes it

Each page is looked up again for each firing, because it may have been mapped a moment ago.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from probekit.errors import MemoryAccessError, TargetError
from probekit.guest.memory import PauseClock
from probekit.guest.ram_reader import RamReader

__all__ = ("MOST_BYTES", "SafeLoads")

MOST_BYTES = 1 << 20
"""The most bytes that one read may ask for."""

_PAGE = 4096
_TOP = 1 << 64


class _View(Protocol):
    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]: ...

    def translate_many(self, addrs: Iterable[int]) -> dict[int, int | None]: ...


class SafeLoads:
    """Reads kernel memory that is RAM, and refuses every other address."""

    def __init__(
        self,
        view: _View,
        clock: PauseClock,
        spans: Callable[[], Sequence[tuple[int, int]] | None],
        levels: int,
        ram: RamReader | None = None,
    ) -> None:
        """Read through ``ram`` where there is one, else through ``view`` while the guest is stopped.

        ``levels``: of the page tables, 4 or 5; they decide which addresses are canonical.
        ``spans``: the physical ``(start, end)`` ranges of the guest's RAM, None when they are not known. It is called
        at most once, and only without ``ram``.
        """
        self._lowest = _TOP - (1 << (12 + 9 * levels - 1))
        self._view = view
        self._clock = clock
        self._ram = ram
        self._find_spans = spans
        self._spans: Sequence[tuple[int, int]] | None = None
        self._spans_known = False

    def invalidate(self) -> None:
        """Look every page up again, because the guest has run."""
        if self._ram is not None:
            self._ram.invalidate()

    def read(self, addr: int, size: int) -> bytes | None:
        """Return ``size`` bytes at a kernel address, None where one of them is not plain mapped memory.

        ``size`` is at most :data:`MOST_BYTES`. The guest may run; without a shared RAM file it is stopped meanwhile.
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
        """Return whether the whole range is RAM."""
        if not self._spans_known:
            self._spans, self._spans_known = self._find_spans(), True
        if self._spans is None:
            return True  # another hypervisor: its stub reads memory only
        where = self._view.translate_many(range(addr & -_PAGE, addr + size, _PAGE))
        return all(phys is None or any(start <= phys < end for start, end in self._spans) for phys in where.values())
