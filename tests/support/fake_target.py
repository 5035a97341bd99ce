"""A guest of bytes: memory, one vCPU's registers, and the failures that a test asks for.

Keeps the memory half of :class:`probekit.target.api.Target` exactly; of the
rest only what needs no processor.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from probekit.errors import MemoryAccessError, TargetError, TargetLost
from probekit.target.api import Regs


@dataclass
class FakeTarget:
    """``memory``: segments by address. ``written``: every write, in order.

    ``die_after``: that many writes succeed, then the connection is lost for one call.
    ``ignore``: addresses whose writes are accepted and have no effect.
    """

    memory: dict[int, bytearray] = field(default_factory=dict)
    registers: dict[int, Regs] = field(default_factory=dict)
    written: list[tuple[int, bytes]] = field(default_factory=list)
    die_after: int | None = None
    ignore: frozenset[int] = frozenset()
    running: bool = False
    paused: bool = False
    foreign_runs: int = 0
    name: str = "fake"

    def _place(self, addr: int, size: int) -> tuple[bytearray, int]:
        if self.running:
            raise TargetError("the machine runs")
        for start, data in self.memory.items():
            if start <= addr and addr + size <= start + len(data):
                return data, addr - start
        raise MemoryAccessError(f"nothing at {addr:#x}", addr=addr, size=size)

    def read(self, addr: int, size: int) -> bytes:
        data, offset = self._place(addr, size)
        return bytes(data[offset : offset + size])

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]:
        found: list[bytes | None] = []
        for addr, size in ranges:
            try:
                found.append(self.read(addr, size))
            except MemoryAccessError:
                found.append(None)
        return found

    def write(self, addr: int, data: bytes) -> None:
        if self.die_after is not None:
            if not self.die_after:
                self.die_after = None
                raise TargetLost("the stub is gone")
            self.die_after -= 1
        place, offset = self._place(addr, len(data))
        self.written.append((addr, data))
        if addr not in self.ignore:
            place[offset : offset + len(data)] = data

    def write_many(self, edits: Iterable[tuple[int, bytes]]) -> None:
        first: TargetError | None = None
        for addr, data in edits:
            try:
                self.write(addr, data)
            except MemoryAccessError as error:
                first = first or error
        if first is not None:
            raise first

    def vcpus(self) -> tuple[int, ...]:
        return tuple(self.registers)

    def regs(self, vcpu: int) -> Regs:
        return self.registers[vcpu]

    def set_regs(self, vcpu: int, regs: Regs) -> None:
        self.registers[vcpu] = regs

    def resume(self) -> None:
        self.running = True
