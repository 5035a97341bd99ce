"""Read and write kernel text and data of a stopped guest, whatever its vCPUs were doing when it stopped.

With page-table isolation a vCPU in user mode maps almost nothing of the kernel.
Reads and writes then go by physical address, through the kernel's own page
tables (:class:`probekit.kernel.address_space.KernelAddressSpace`). Otherwise they
go through the stub directly.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from probekit.errors import MemoryAccessError, UnsupportedError
from probekit.guest.ram_reader import RamReader
from probekit.kernel.address_space import KernelAddressSpace
from probekit.kernel.page_tables import PhysicalMemory
from probekit.target.api import Target

__all__ = ("KernelText",)

_PAGE = 4096


class KernelText:
    """Reads and writes kernel memory of a stopped guest: a :class:`probekit.guest.memory.StoppedMemory`."""

    def __init__(self, target: Target, view: KernelAddressSpace, witness: int, ram: RamReader | None = None) -> None:
        """Write through ``target``, and read through ``ram`` where there is one, else through ``view``.

        ``witness``: an address that only the kernel's page tables map. While the stub can read it, it can read and
        write kernel memory.
        """
        self._target = target
        self._view = view
        self._witness = witness
        self._ram = ram

    def read(self, addr: int, size: int) -> bytes:
        """Return exactly ``size`` bytes; raises :class:`MemoryAccessError`."""
        data = self.read_many([(addr, size)])[0]
        if data is None:
            raise MemoryAccessError(f"cannot read {size} bytes of guest memory at {addr:#x}", addr=addr, size=size)
        return data

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]:
        """Return the bytes of ``(addr, size)`` ranges, None where unreadable."""
        if self._ram is None:
            return self._view.read_many(ranges)
        found = self._ram.read_many(ranges)
        missing = [i for i, data in enumerate(found) if data is None]
        if missing:
            for i, data in zip(missing, self._view.read_many([ranges[i] for i in missing]), strict=True):
                found[i] = data
        return found

    def write_many(self, edits: Iterable[tuple[int, bytes]]) -> None:
        """Write ``(addr, data)`` in order.

        Raises :class:`MemoryAccessError` for a page that is not mapped; where page tables are walked, nothing is
        written then. Raises :class:`UnsupportedError` when the stub cannot write physical memory and needs to.
        """
        if self._target.read_many([(self._witness, 1)])[0] is not None:
            self._target.write_many(edits)
            return
        pieces = [piece for addr, data in edits for piece in _by_page(addr, data)]
        frames: dict[int, int] = {}
        for addr, data in pieces:
            page = addr & -_PAGE
            if page not in frames:
                frame = self._view.translate(page)
                if frame is None:
                    raise MemoryAccessError(f"kernel page {page:#x} is not mapped", addr=addr, size=len(data))
                frames[page] = frame
        if not isinstance(self._target, PhysicalMemory):
            raise UnsupportedError("every vCPU is in user mode and maps no kernel memory", feature="physical memory")
        with self._target.physical_memory():
            self._target.write_many((frames[a & -_PAGE] + (a & (_PAGE - 1)), d) for a, d in pieces)


def _by_page(addr: int, data: bytes) -> Iterable[tuple[int, bytes]]:
    offset = 0
    while offset < len(data):
        length = min(_PAGE - ((addr + offset) & (_PAGE - 1)), len(data) - offset)
        yield addr + offset, data[offset : offset + length]
        offset += length
