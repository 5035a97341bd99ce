"""Guest data memory of ours, while the guest runs.

Where guest RAM is a shared file, the host reads and writes the pages in its own
mapping and the guest never stops (:class:`RamData`). Elsewhere each access is a
short stop through the stub (:class:`StubData`). Code is never written this way:
an emulator must see code change.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from probekit.errors import MemoryAccessError
from probekit.target.api import StopReason, Target

__all__ = ("DataMemory", "PauseClock", "RamBytes", "RamData", "StoppedMemory", "StubData")

PAGE_SIZE = 4096


class PauseClock:
    """Stops the guest for as short as it can and remembers how long that was.

    ``longest``: seconds of the longest pause so far; ``total``: of all; ``count``: how many.
    ``stopped``: told of each stop that a pause made: the guest may have stopped by itself at that very moment.
    """

    def __init__(self, target: Target, clock: Callable[[], float] = time.monotonic) -> None:
        self._target = target
        self._clock = clock
        self.longest = 0.0
        self.total = 0.0
        self.count = 0
        self.stopped: Callable[[StopReason], None] = _ignore

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The guest is stopped inside; it runs again behind only if it ran before."""
        if not _runs(self._target):
            yield
            return
        start = self._clock()
        reason = self._target.stop()
        try:
            self.stopped(reason)
            yield
        finally:
            if not _runs(self._target):
                self._target.resume()
            self.note(self._clock() - start)

    def note(self, seconds: float) -> None:
        """Somebody else held the guest for that long."""
        self.longest = max(self.longest, seconds)
        self.total += seconds
        self.count += 1


def _ignore(_: StopReason) -> None:
    """Nobody has probes that stop the guest."""


def _runs(target: Target) -> bool:
    return target.running


class DataMemory(Protocol):
    """Reads and writes of our own guest memory, running or not. ``live``: without stopping the guest."""

    @property
    def live(self) -> bool: ...

    def read(self, addr: int, size: int) -> bytes: ...

    def write(self, addr: int, data: bytes) -> None: ...


class RamBytes(Protocol):
    """Guest physical memory as a shared mapping (:class:`probekit.target.ram.GuestRam`)."""

    def read(self, phys: int, size: int) -> bytes: ...

    def write(self, phys: int, data: bytes) -> None: ...


class RamData:
    """Our memory through the shared RAM file. ``pages``: virtual page to physical page, fixed while we own it."""

    def __init__(self, ram: RamBytes, pages: Mapping[int, int]) -> None:
        self._ram = ram
        self._pages = dict(pages)

    @property
    def live(self) -> bool:
        """Always: the guest is not stopped."""
        return True

    def read(self, addr: int, size: int) -> bytes:
        """Exactly ``size`` bytes; raises :class:`MemoryAccessError` outside our pages."""
        return b"".join(self._ram.read(phys, length) for phys, _, length in self._runs(addr, size))

    def write(self, addr: int, data: bytes) -> None:
        """Raises :class:`MemoryAccessError` outside our pages."""
        for phys, offset, length in self._runs(addr, len(data)):
            self._ram.write(phys, data[offset : offset + length])

    def _runs(self, addr: int, size: int) -> list[tuple[int, int, int]]:
        """``(physical, offset, length)`` pieces; physically adjacent pages are one piece."""
        runs: list[tuple[int, int, int]] = []
        offset = 0
        while offset < size:
            at = addr + offset
            page = self._pages.get(at & -PAGE_SIZE)
            if page is None:
                raise MemoryAccessError(f"{at:#x} is not memory of probekit", addr=at, size=size - offset)
            length = min(PAGE_SIZE - (at & (PAGE_SIZE - 1)), size - offset)
            phys = page + (at & (PAGE_SIZE - 1))
            if runs and runs[-1][0] + runs[-1][2] == phys:
                last = runs.pop()
                runs.append((last[0], last[1], last[2] + length))
            else:
                runs.append((phys, offset, length))
            offset += length
        return runs


class StoppedMemory(Protocol):
    """Kernel memory of a stopped guest, whatever its vCPUs map (:class:`probekit.guest.text.KernelText`)."""

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]: ...

    def write_many(self, edits: Iterable[tuple[int, bytes]]) -> None: ...


class StubData:
    """Our memory through the stub, one short stop for each access (or one for many, inside ``clock.paused()``)."""

    def __init__(self, memory: StoppedMemory, clock: PauseClock) -> None:
        self._memory = memory
        self._clock = clock

    @property
    def live(self) -> bool:
        """Never: each access stops the guest."""
        return False

    def read(self, addr: int, size: int) -> bytes:
        """Exactly ``size`` bytes; raises :class:`MemoryAccessError`."""
        with self._clock.paused():
            data = self._memory.read_many([(addr, size)])[0]
        if data is None:
            raise MemoryAccessError(f"memory of probekit at {addr:#x} cannot be read", addr=addr, size=size)
        return data

    def write(self, addr: int, data: bytes) -> None:
        """Raises :class:`MemoryAccessError`."""
        with self._clock.paused():
            self._memory.write_many([(addr, data)])
