"""A small private address space: scratch memory, and the structs and arrays that a script declares.

    a = memory.scratch(16)   ->  0x700000000000
    memory.read(a, 4)        ->  b"\\0\\0\\0\\0"
    memory.read(0, 4)        ->  BadAddress(0)

No address in it is one of a guest's or of this process; so what a script makes up
out of nothing is a fault, as it would be in a kernel. Beside it a guest's kernel memory may be read, never written.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from typing import Protocol

from probekit.records import fresh, mutable_record

__all__ = ("DEFAULT_SCRATCH", "LARGEST", "BadAddress", "NoScratch", "PrivateMemory")

_SCRATCH = 0x7000_0000_0000
_LOCALS = 0x7100_0000_0000
_OBJECTS = 0x7200_0000_0000
_MASK = (1 << 64) - 1
DEFAULT_SCRATCH = 64 << 10
"""Bytes of scratch memory that one clause may take, unless the option ``scratchsize`` says otherwise."""

_PAGE = 4096

_MOST_TEXT = 16 << 20
"""Bytes of strings that a clause may have had copied to memory: no script needs them, and memory is finite."""


class BadAddress(Exception):
    """Nothing is at ``addr``."""

    def __init__(self, addr: int) -> None:
        super().__init__(hex(addr & _MASK))
        self.addr = addr & _MASK


class NoScratch(Exception):
    """The clause has taken all its scratch memory. ``size``: what it asked for."""

    def __init__(self, size: int) -> None:
        super().__init__(str(size))
        self.size = size


LARGEST = 64 << 20
"""Bytes of the largest object, or record, that is made: a declaration costs nothing, its use would."""


def _bounded(size: int) -> int:
    if size > LARGEST:
        raise NoScratch(size)
    return size


@mutable_record
class _Region:
    """Blocks of memory that come and go together; each starts at a multiple of 16."""

    base: int
    starts: list[int] = fresh(list)
    blocks: dict[int, bytearray] = fresh(dict)
    used: int = 0

    def add(self, size: int) -> int:
        addr = self.base + self.used
        self.used += -(-max(size, 1) // 16) * 16 + 16  # a gap: running off one block does not reach the next
        self.starts.append(addr)
        self.blocks[addr] = bytearray(size)
        return addr

    def drop(self, addr: int) -> None:
        self.blocks.pop(addr, None)
        index = bisect_right(self.starts, addr) - 1
        if index >= 0 and self.starts[index] == addr:
            del self.starts[index]

    def clear(self) -> None:
        self.starts.clear()
        self.blocks.clear()
        self.used = 0

    def find(self, addr: int, size: int) -> tuple[bytearray, int] | None:
        index = bisect_right(self.starts, addr) - 1
        if index < 0:
            return None
        block = self.blocks[self.starts[index]]
        offset = addr - self.starts[index]
        return (block, offset) if offset + size <= len(block) else None


class _Shared(Protocol):
    """Part of :class:`probekit.interp.state.VariablesElsewhere`."""

    def read(self, addr: int, size: int) -> bytes | None: ...

    def write(self, addr: int, data: bytes) -> bool: ...


@mutable_record
class PrivateMemory:
    """``limit``: bytes of scratch memory for one clause. ``outside``: reads a guest's memory, None where nothing is.

    ``shared``: variables that live in a guest.
    """

    limit: int = DEFAULT_SCRATCH
    outside: Callable[[int, int], bytes | None] | None = None
    shared: _Shared | None = None
    _scratch: _Region = fresh(lambda: _Region(_SCRATCH))
    _locals: _Region = fresh(lambda: _Region(_LOCALS))
    _objects: _Region = fresh(lambda: _Region(_OBJECTS))
    _taken: int = 0
    _text: int = 0

    # Making.

    def scratch(self, size: int) -> int:
        """PrivateMemory for the rest of the clause."""
        rounded = -(-size // 8) * 8
        if size < 0 or self._taken + rounded > self.limit:
            raise NoScratch(size)
        self._taken += rounded
        return self._scratch.add(size)

    def text(self, value: bytes) -> int:
        """A copy of a string, with its NUL, for the rest of the clause; it is not counted as scratch."""
        self._text += len(value) + 1
        if self._text > _MOST_TEXT:
            raise NoScratch(len(value) + 1)
        addr = self._scratch.add(len(value) + 1)
        self._scratch.blocks[addr][: len(value)] = value
        return addr

    def local(self, size: int) -> int:
        """An object for the rest of the firing."""
        return self._locals.add(_bounded(size))

    def object(self, size: int) -> int:
        """An object that stays."""
        return self._objects.add(_bounded(size))

    def free(self, addr: int) -> None:
        """Forget an object."""
        self._objects.drop(addr)

    def end_clause(self) -> None:
        """Scratch memory is free again."""
        if self._scratch.starts:
            self._scratch.clear()
        self._taken = self._text = 0

    def end_firing(self) -> None:
        """So are the objects of ``this->``."""
        if self._locals.starts:
            self._locals.clear()

    # Using.

    def _find(self, addr: int, size: int) -> tuple[bytearray, int] | None:
        addr &= _MASK
        for region in (self._scratch, self._locals, self._objects):
            found = region.find(addr, size)
            if found is not None:
                return found
        return None

    def _beyond(self, addr: int, size: int) -> bytes | None:
        if self.shared is not None and (found := self.shared.read(addr & _MASK, size)) is not None:
            return found
        return self.outside(addr & _MASK, size) if self.outside is not None else None

    def read(self, addr: int, size: int) -> bytes:
        """Raises :class:`BadAddress`."""
        if size <= 0:
            return b""
        found = self._find(addr, size)
        if found is not None:
            block, offset = found
            return bytes(block[offset : offset + size])
        data = self._beyond(addr, size)
        if data is None:
            raise BadAddress(addr)
        return data

    def write(self, addr: int, data: bytes) -> None:
        """Raises :class:`BadAddress`."""
        if data:
            found = self._find(addr, len(data))
            if found is None:
                if self.shared is None or not self.shared.write(addr & _MASK, data):
                    raise BadAddress(addr)
                return
            block, offset = found
            block[offset : offset + len(data)] = data

    def in_scratch(self, addr: int, size: int) -> bool:
        """True where ``bcopy()`` and ``copyinto()`` may write."""
        return self._scratch.find(addr & _MASK, size) is not None

    def string(self, addr: int, limit: int) -> bytes:
        """The string at an address: up to its NUL, the end of its block, or ``limit`` bytes."""
        found = self._find(addr, 1)
        if found is None:
            return self._string_outside(addr, limit)
        block, offset = found
        return bytes(block[offset : offset + limit]).split(b"\0", 1)[0]

    def _string_outside(self, addr: int, limit: int) -> bytes:
        """Page by page: the page behind the string's last one need not be there. A missing one is a fault."""
        text = bytearray()
        while len(text) < limit:
            at = addr + len(text)
            size = min(limit - len(text), _PAGE - at % _PAGE)
            data = self._beyond(at, size)
            if data is None:
                raise BadAddress(at)
            head, end, _ = data.partition(b"\0")
            text += head
            if end:
                break
        return bytes(text)
