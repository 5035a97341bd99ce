"""Keep a small private address space: scratch memory, and the structs and arrays that a script declares.

    a = memory.allocate_scratch(16)   ->  0x700000000000
    memory.read(a, 4)        ->  b"\\0\\0\\0\\0"
    memory.read(0, 4)        ->  BadAddress(0)

None of its addresses is one of a guest or of this process. So an address that a script makes up is a fault, as it
would be in a kernel. A guest's kernel memory may be read as well, but never written.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from typing import Protocol

from probekit.records import fresh, mutable_record

__all__ = ("DEFAULT_SCRATCH", "MAX_SIZE", "BadAddress", "NoScratch", "PrivateMemory")

_SCRATCH = 0x7000_0000_0000
_LOCALS = 0x7100_0000_0000
_OBJECTS = 0x7200_0000_0000
_MASK = (1 << 64) - 1
_PAGE = 4096

DEFAULT_SCRATCH = 64 << 10
"""Bytes of scratch memory that one clause may take, unless the option ``scratchsize`` says otherwise."""

MAX_SIZE = 64 << 20
"""Bytes of the largest object, or record, that is made. A script may declare larger ones, but not use them."""

_MAX_STRINGS = 16 << 20
"""Bytes of strings that one clause may copy to memory. No script needs as many, and memory is finite."""


class BadAddress(Exception):
    """An address at which there is no memory."""

    def __init__(self, addr: int) -> None:
        super().__init__(hex(addr & _MASK))
        self.addr = addr & _MASK
        """The address, unsigned."""


class NoScratch(Exception):
    """The clause has taken all its scratch memory."""

    def __init__(self, size: int) -> None:
        super().__init__(str(size))
        self.size = size
        """The bytes that it asked for."""


def _bounded(size: int) -> int:
    if size > MAX_SIZE:
        raise NoScratch(size)
    return size


@mutable_record
class _Arena:
    """Blocks of memory that are freed together. Each starts at a multiple of 16."""

    base: int
    """Address of the first block."""
    starts: list[int] = fresh(list)
    """Addresses of the blocks, ascending."""
    blocks: dict[int, bytearray] = fresh(dict)
    """The blocks by their addresses."""
    used: int = 0
    """Bytes of addresses that have been given out."""

    def add(self, size: int) -> int:
        """Make a block of zeros and return its address."""
        addr = self.base + self.used
        self.used += -(-max(size, 1) // 16) * 16 + 16  # a gap: running off one block does not reach the next
        self.starts.append(addr)
        self.blocks[addr] = bytearray(size)
        return addr

    def drop(self, addr: int) -> None:
        """Free the block at ``addr``, if there is one."""
        self.blocks.pop(addr, None)
        index = bisect_right(self.starts, addr) - 1
        if index >= 0 and self.starts[index] == addr:
            del self.starts[index]

    def clear(self) -> None:
        """Free all blocks; their addresses are used again."""
        self.starts.clear()
        self.blocks.clear()
        self.used = 0

    def find(self, addr: int, size: int) -> tuple[bytearray, int] | None:
        """Return the block that holds all these bytes, and their offset in it; None when no block does."""
        index = bisect_right(self.starts, addr) - 1
        if index < 0:
            return None
        block = self.blocks[self.starts[index]]
        offset = addr - self.starts[index]
        return (block, offset) if offset + size <= len(block) else None


class _VariableMemory(Protocol):
    """The memory of variables that live in a guest: part of :class:`probekit.interp.state.SharedVariables`."""

    def read(self, addr: int, size: int) -> bytes | None: ...

    def write(self, addr: int, data: bytes) -> bool: ...


@mutable_record
class PrivateMemory:
    """The memory that clauses on the host may use."""

    limit: int = DEFAULT_SCRATCH
    """Bytes of scratch memory for one clause."""
    read_guest: Callable[[int, int], bytes | None] | None = None
    """Reads so many bytes at an address of the guest's kernel, and returns None where no memory is.

    None without a guest.
    """
    variables: _VariableMemory | None = None
    """The variables that live in the guest; None when there are none."""
    _scratch: _Arena = fresh(lambda: _Arena(_SCRATCH))
    _locals: _Arena = fresh(lambda: _Arena(_LOCALS))
    _objects: _Arena = fresh(lambda: _Arena(_OBJECTS))
    _scratch_taken: int = 0
    _strings_taken: int = 0

    # Making.

    def allocate_scratch(self, size: int) -> int:
        """Return the address of scratch memory for the rest of the clause. Raises :class:`NoScratch`."""
        rounded = -(-size // 8) * 8
        if size < 0 or self._scratch_taken + rounded > self.limit:
            raise NoScratch(size)
        self._scratch_taken += rounded
        return self._scratch.add(size)

    def copy_string(self, value: bytes) -> int:
        """Return the address of a copy of a string and its NUL, for the rest of the clause.

        It does not count as scratch memory that the script has taken. Raises :class:`NoScratch` past a fixed limit.
        """
        self._strings_taken += len(value) + 1
        if self._strings_taken > _MAX_STRINGS:
            raise NoScratch(len(value) + 1)
        addr = self._scratch.add(len(value) + 1)
        self._scratch.blocks[addr][: len(value)] = value
        return addr

    def allocate_local(self, size: int) -> int:
        """Return the address of an object for the rest of the firing. Raises :class:`NoScratch` past ``MAX_SIZE``."""
        return self._locals.add(_bounded(size))

    def allocate_object(self, size: int) -> int:
        """Return the address of an object that stays. Raises :class:`NoScratch` past ``MAX_SIZE``."""
        return self._objects.add(_bounded(size))

    def free(self, addr: int) -> None:
        """Free an object that stays."""
        self._objects.drop(addr)

    def end_clause(self) -> None:
        """Free the scratch memory."""
        if self._scratch.starts:
            self._scratch.clear()
        self._scratch_taken = self._strings_taken = 0

    def end_firing(self) -> None:
        """Free the objects of ``this->``."""
        if self._locals.starts:
            self._locals.clear()

    # Using.

    def _find(self, addr: int, size: int) -> tuple[bytearray, int] | None:
        addr &= _MASK
        for arena in (self._scratch, self._locals, self._objects):
            found = arena.find(addr, size)
            if found is not None:
                return found
        return None

    def _read_guest_memory(self, addr: int, size: int) -> bytes | None:
        if self.variables is not None and (found := self.variables.read(addr & _MASK, size)) is not None:
            return found
        return self.read_guest(addr & _MASK, size) if self.read_guest is not None else None

    def read(self, addr: int, size: int) -> bytes:
        """Return bytes of memory. Raises :class:`BadAddress`."""
        if size <= 0:
            return b""
        found = self._find(addr, size)
        if found is not None:
            block, offset = found
            return bytes(block[offset : offset + size])
        data = self._read_guest_memory(addr, size)
        if data is None:
            raise BadAddress(addr)
        return data

    def write(self, addr: int, data: bytes) -> None:
        """Change memory of the script. Raises :class:`BadAddress` for any other."""
        if data:
            found = self._find(addr, len(data))
            if found is None:
                if self.variables is None or not self.variables.write(addr & _MASK, data):
                    raise BadAddress(addr)
                return
            block, offset = found
            block[offset : offset + len(data)] = data

    def in_scratch(self, addr: int, size: int) -> bool:
        """Return True where ``bcopy()`` and ``copyinto()`` may write."""
        return self._scratch.find(addr & _MASK, size) is not None

    def read_string(self, addr: int, limit: int) -> bytes:
        """Return the string at an address: up to its NUL, the end of its block, or ``limit`` bytes.

        Raises :class:`BadAddress`.
        """
        found = self._find(addr, 1)
        if found is None:
            return self._read_guest_string(addr, limit)
        block, offset = found
        return bytes(block[offset : offset + limit]).split(b"\0", 1)[0]

    def _read_guest_string(self, addr: int, limit: int) -> bytes:
        """Read page by page, as the page after the string's last one may be missing."""
        string = bytearray()
        while len(string) < limit:
            at = addr + len(string)
            size = min(limit - len(string), _PAGE - at % _PAGE)
            data = self._read_guest_memory(at, size)
            if data is None:
                raise BadAddress(at)
            head, end, _ = data.partition(b"\0")
            string += head
            if end:
                break
        return bytes(string)
