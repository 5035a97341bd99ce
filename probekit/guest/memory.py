"""Read and write our data memory in the guest while the guest runs.

Where guest RAM is a shared file, the host reads and writes the pages in its own
mapping and the guest never stops (:class:`RamData`). Elsewhere each access is a
short stop through the stub (:class:`StubData`). Code is never written this way,
because an emulator must see that code changes.
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
    """Stops the guest for the body of a ``with``, and measures how long it was stopped."""

    def __init__(self, target: Target, clock: Callable[[], float] = time.monotonic) -> None:
        """Stop and resume ``target``. ``clock``: returns seconds."""
        self._target = target
        self._clock = clock
        self.longest = 0.0
        """Seconds of the longest pause so far."""
        self.total = 0.0
        """Seconds of all pauses so far."""
        self.count = 0
        """How many pauses there were so far."""
        self.on_stop: Callable[[StopReason], None] = _ignore
        """Called after each stop that a pause made: the guest may have stopped by itself at that very moment."""

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the guest for the body of a ``with``. A guest that was stopped before stays stopped."""
        if not _runs(self._target):
            yield
            return
        start = self._clock()
        reason = self._target.stop()
        try:
            self.on_stop(reason)
            yield
        finally:
            if not _runs(self._target):
                self._target.resume()
            self.note(self._clock() - start)

    def note(self, seconds: float) -> None:
        """Count a pause of ``seconds`` that was made without this clock."""
        self.longest = max(self.longest, seconds)
        self.total += seconds
        self.count += 1


def _ignore(_: StopReason) -> None:
    """Do nothing: no probe stops the guest."""


def _runs(target: Target) -> bool:
    return target.running


class DataMemory(Protocol):
    """Our own memory in the guest, which may run or be stopped."""

    @property
    def live(self) -> bool:
        """Whether an access leaves the guest running."""
        ...

    def read(self, addr: int, size: int) -> bytes:
        """Return exactly ``size`` bytes; raises :class:`MemoryAccessError`."""
        ...

    def write(self, addr: int, data: bytes) -> None:
        """Write all of ``data``; raises :class:`MemoryAccessError`."""
        ...


class RamBytes(Protocol):
    """Guest physical memory as a shared mapping (:class:`probekit.target.guest_ram.GuestRam`)."""

    def read(self, phys: int, size: int) -> bytes:
        """Return exactly ``size`` bytes; raises :class:`MemoryAccessError` outside RAM."""
        ...

    def write(self, phys: int, data: bytes) -> None:
        """Write all of ``data``; raises :class:`MemoryAccessError` outside RAM."""
        ...


class RamData:
    """Reads and writes our memory through the shared RAM file: a :class:`DataMemory`."""

    def __init__(self, ram: RamBytes, pages: Mapping[int, int]) -> None:
        """Use ``pages``: the physical page of each virtual page. It does not change while the memory is ours."""
        self._ram = ram
        self._pages = dict(pages)

    @property
    def live(self) -> bool:
        """Return True: an access leaves the guest running."""
        return True

    def read(self, addr: int, size: int) -> bytes:
        """Return exactly ``size`` bytes; raises :class:`MemoryAccessError` outside our pages."""
        return b"".join(self._ram.read(phys, length) for phys, _, length in self._runs(addr, size))

    def write(self, addr: int, data: bytes) -> None:
        """Write all of ``data``; raises :class:`MemoryAccessError` outside our pages."""
        for phys, offset, length in self._runs(addr, len(data)):
            self._ram.write(phys, data[offset : offset + length])

    def _runs(self, addr: int, size: int) -> list[tuple[int, int, int]]:
        """Split a range into ``(physical, offset, length)`` pieces; physically adjacent pages are one piece."""
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
    """Kernel memory of a stopped guest, whatever its vCPUs map (:class:`probekit.guest.kernel_text.KernelText`)."""

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]:
        """Return the bytes of ``(addr, size)`` ranges, None where unreadable."""
        ...

    def write_many(self, edits: Iterable[tuple[int, bytes]]) -> None:
        """Write ``(addr, data)`` in order; raises :class:`MemoryAccessError`."""
        ...


class StubData:
    """Reads and writes our memory through the stub: a :class:`DataMemory`.

    Each access stops the guest for a moment. Inside ``clock.paused()`` one stop serves many accesses.
    """

    def __init__(self, memory: StoppedMemory, clock: PauseClock) -> None:
        """Access ``memory`` in pauses of ``clock``."""
        self._memory = memory
        self._clock = clock

    @property
    def live(self) -> bool:
        """Return False: each access stops the guest."""
        return False

    def read(self, addr: int, size: int) -> bytes:
        """Return exactly ``size`` bytes; raises :class:`MemoryAccessError`."""
        with self._clock.paused():
            data = self._memory.read_many([(addr, size)])[0]
        if data is None:
            raise MemoryAccessError(f"memory of probekit at {addr:#x} cannot be read", addr=addr, size=size)
        return data

    def write(self, addr: int, data: bytes) -> None:
        """Write all of ``data``; raises :class:`MemoryAccessError`."""
        with self._clock.paused():
            self._memory.write_many([(addr, data)])
