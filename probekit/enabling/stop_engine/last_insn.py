"""Find the instruction that a stopped vCPU has just executed, given the memory that the instruction accessed.

x86 code cannot be decoded backwards with certainty, so several candidates are tried, the most certain first:

1. the instruction that ends at RIP when the function is decoded from its start, if the address that it accessed is
   known and fits;
2. a REP string instruction *at* RIP: its last element (an emulator's RIP is there between elements and after the last);
3. the instruction of 1, if its address can no longer be computed from the registers;
4. any bytes that end at RIP and decode to an instruction which fits (user programs, data in the middle of code).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from probekit.isa.access import MemoryAccess, accesses_after, string_element
from probekit.isa.decode import DecodeError, decode_one, decode_run
from probekit.target.api import Regs

__all__ = ("ExecutedInsn", "LastInstruction")

_LONGEST = 15  # bytes of an x86 instruction
_MAX_DECODED = 1 << 16  # bytes of a function that are decoded to find one instruction
_MAX_CACHED = 4096


class ExecutedInsn(NamedTuple):
    """An instruction and what it did to memory."""

    pc: int
    """Its address."""
    accesses: tuple[MemoryAccess, ...]
    """The memory that it read and wrote."""


class LastInstruction:
    """Finds the instruction before RIP."""

    def __init__(self, read: Callable[[int, int], bytes | None], start_of: Callable[[int], int | None]) -> None:
        """Read guest code with ``read(addr, size)``, which returns None where code cannot be read.

        ``start_of``: returns where the function around an address begins, None when it is not known.
        """
        self._read = read
        self._start_of = start_of
        self._known: dict[int, bytes | None] = {}

    def find(self, regs: Regs, fits: Callable[[MemoryAccess], bool]) -> ExecutedInsn | None:
        """Return the instruction with an access that ``fits``, or one whose access has no known address.

        ``fits`` is only called for accesses whose address is known.
        """
        values = regs.values
        decoded = self._decoded(values["rip"])
        if decoded is not None and any(a.addr is not None and fits(a) for a in self._accesses(decoded, regs)):
            return self._executed(decoded, regs)
        for candidate in self._at(values["rip"]):
            if any(a.addr is not None and fits(a) for a in self._accesses(candidate, regs)):
                return self._executed(candidate, regs)
        if decoded is not None and any(a.addr is None for a in self._accesses(decoded, regs)):
            return self._executed(decoded, regs)
        for candidate in self._any_before(values["rip"]):
            if any(a.addr is not None and fits(a) for a in self._accesses(candidate, regs)):
                return self._executed(candidate, regs)
        return None

    @staticmethod
    def _accesses(candidate: tuple[int, bytes], regs: Regs) -> tuple[MemoryAccess, ...]:
        return accesses_after(candidate[1], candidate[0], regs.values)

    def _executed(self, candidate: tuple[int, bytes], regs: Regs) -> ExecutedInsn:
        return ExecutedInsn(candidate[0], self._accesses(candidate, regs))

    def _decoded(self, rip: int) -> tuple[int, bytes] | None:
        """Return the instruction that ends at ``rip``, by decoding from the function's start.

        A cached result is only used when its bytes are still the same.
        """
        if rip in self._known:
            raw = self._known[rip]
            if raw is None or self._read(rip - len(raw), len(raw)) == raw:
                return None if raw is None else (rip - len(raw), raw)
        if len(self._known) >= _MAX_CACHED:
            self._known.clear()
        raw = self._known[rip] = self._decode_to(rip)
        return None if raw is None else (rip - len(raw), raw)

    def _decode_to(self, rip: int) -> bytes | None:
        start = self._start_of(rip - 1)
        if start is None or not 0 < rip - start <= _MAX_DECODED:
            return None
        code = self._read(start, rip - start)
        try:
            ends = {insn.end: insn.raw for insn in decode_run(code or b"", start)}
        except DecodeError:
            return None
        return ends.get(rip)

    def _at(self, rip: int) -> Iterator[tuple[int, bytes]]:
        code = self._read_up_to(rip)
        if code and string_element(code) is not None:
            yield rip, decode_one(code, rip).raw

    def _read_up_to(self, addr: int) -> bytes:
        """Read as much code as an instruction at ``addr`` may have, or less where its page ends."""
        return self._read(addr, _LONGEST) or self._read(addr, min(_LONGEST, -addr % 4096)) or b""

    def _any_before(self, rip: int) -> Iterator[tuple[int, bytes]]:
        for size in range(1, _LONGEST + 1):
            code = self._read(rip - size, size)
            if code is None:
                return
            try:
                insn = decode_one(code, rip - size)
            except DecodeError:
                continue
            if insn.size == size:
                yield rip - size, insn.raw
