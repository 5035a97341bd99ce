"""Read and write a program's strings, arrays and objects in guest memory from the host.

Clauses of BEGIN, END and ticks run on the host and use the same variables as clauses in the guest. They change the
table of elements while the guest is stopped and no CPU is inside a clause, so no lock is needed.
The guest is untrusted: entry numbers are checked, and the length of chains is bounded.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import AbstractContextManager

from probekit.buffers.variables import (
    DYNAMIC_HEAD,
    ENTRY_HEAD,
    SPECULATION_ACTIVE,
    SPECULATION_ENDED,
    SPECULATION_FREE,
    SPECULATION_HOST,
    SPECULATION_MANY,
    DynamicTable,
    Extent,
    hash_words,
    round8,
)
from probekit.codegen.storage import Storage
from probekit.enabling.speculation import Ending
from probekit.errors import GuestError, InternalError, required
from probekit.guest.memory import DataMemory
from probekit.interp.state import Value
from probekit.ir.ops import Program, Variable
from probekit.lang.arith import signed64

__all__ = ("GuestSpeculations", "GuestVariables")

_MASK = (1 << 64) - 1
_MAX_CHAIN = 4096  # at most so many entries of a chain are read

_Key = tuple[Value, ...]


class GuestVariables:
    """Reads and writes a program's variables in guest memory: a :class:`probekit.interp.state.VariablesElsewhere`."""

    def __init__(
        self,
        program: Program,
        storage: Storage,
        *,
        base: int,
        memory: Callable[[], DataMemory],
        no_clause_running: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """Use the data memory that begins at ``base``.

        ``memory``: returns the data memory; called for each access, because a copy replaces it when probing ends.
        ``no_clause_running``: returns a context manager; during its ``with`` block no CPU is inside a clause.
        """
        self._program = program
        self._storage = storage
        self._base = base
        self._memory = memory
        self._no_clause_running = no_clause_running
        arrays = storage.arrays
        self._owned = frozenset(
            v.index
            for v in program.variables
            if v.scope == "global" and (v.index in arrays or (v.kind != "int" and v.index in storage.globals_))
        )

    # Scalars.

    def owns(self, var: int) -> bool:
        """Return whether the variable lives in guest memory."""
        return var in self._owned

    def load(self, var: int) -> Value:
        """Return a string's bytes before its NUL."""
        place = self._storage.globals_[var]
        return _text(self._read(place.offset, place.size))

    def store(self, var: int, value: Value) -> None:
        """Assign a string, cut to the variable's size."""
        place = self._storage.globals_[var]
        if not isinstance(value, bytes):
            raise InternalError(f"an integer is assigned to the string variable {var}")
        self._write(place.offset, _padded(value, place.size))

    def address(self, var: int) -> int:
        """Return the address of an object."""
        return self._base + self._storage.globals_[var].offset

    # Elements.

    def load_element(self, var: int, key: _Key) -> Value:
        """Return an element, 0 or an empty string when there is none. Raises :class:`GuestError` for a bad table."""
        variable = self._program.variables[var]
        with self._no_clause_running():
            found, _ = self._find(self._table, self._words(variable, key))
            if found is None:
                return b"" if variable.kind == "string" else 0
            data = self._read(self._value(found, variable, key), variable.size if variable.kind == "string" else 8)
        return _text(data) if variable.kind == "string" else signed64(int.from_bytes(data, "little"))

    def store_element(self, var: int, key: _Key, value: Value) -> bool:
        """Assign an element; 0 or an empty string frees it. Returns False when there is no room for it.

        Raises :class:`GuestError` for a bad table.
        """
        variable = self._program.variables[var]
        words = self._words(variable, key)
        with self._no_clause_running():
            found, link = self._find(self._table, words)
            if not value:
                if found is not None:
                    self._free(found, link)
                return True
            entry = found if found is not None else self._make(words, link)
            if entry is None:
                return False
            size = variable.size if isinstance(value, bytes) else 8
            data = _padded(value, size) if isinstance(value, bytes) else struct.pack("<Q", value & _MASK)
            self._write(self._value(entry, variable, key), data)
        return True

    def element_address(self, var: int, key: _Key, *, create: bool) -> int:
        """Return the address of an element that is an object; 0 when there is none, or no room for one.

        Raises :class:`GuestError` for a bad table.
        """
        variable = self._program.variables[var]
        words = self._words(variable, key)
        with self._no_clause_running():
            entry, link = self._find(self._table, words)
            if entry is None and create:
                entry = self._make(words, link)
                if entry is not None:
                    self._write(self._value(entry, variable, key), bytes(round8(variable.size)))
        return self._base + self._value(entry, variable, key) if entry is not None else 0

    # Memory.

    def read(self, addr: int, size: int) -> bytes | None:
        """Return bytes of our variables; None outside them."""
        start = addr - self._base
        if not 0 <= start <= start + size <= self._storage.size:
            return None
        return self._read(start, size)

    def write(self, addr: int, data: bytes) -> bool:
        """Change an object, or the value of an element that is one. Returns False for any other address."""
        start = addr - self._base
        if not any(_inside(self._storage.globals_[var], start, len(data)) for var in self._storage.objects):
            table = self._storage.dynamic
            if table is None or not 0 <= start - table.entries_offset < table.capacity * table.stride:
                return False
            within = (start - table.entries_offset) % table.stride
            if within < ENTRY_HEAD + 8 or within + len(data) > table.stride:
                return False
        self._write(start, data)
        return True

    # The table.

    @property
    def _table(self) -> DynamicTable:
        return required(self._storage.dynamic, "the table of elements in a program that has arrays")

    def _words(self, variable: Variable, key: _Key) -> list[int]:
        words = [variable.index]
        size = round8(self._program.string_size)
        for value in key:
            if isinstance(value, bytes):
                words += struct.unpack(f"<{size // 8}Q", value[: self._program.string_size - 1].ljust(size, b"\0"))
            else:
                words.append(value & _MASK)
        return words

    def _value(self, entry: int, variable: Variable, key: _Key) -> int:
        return self._table.entry(entry) + ENTRY_HEAD + 8 * len(self._words(variable, key))

    def _find(self, table: DynamicTable, words: list[int]) -> tuple[int | None, int]:
        """Find an entry. Returns its number or None, and the offset of the link to it or of the chain's end."""
        hashed = hash_words(words)
        head = struct.pack(f"<{len(words) + 1}Q", hashed, *words)
        link = table.bucket(hashed) + 4
        for _ in range(_MAX_CHAIN):
            number = int.from_bytes(self._read(link, 4), "little")
            if number == 0:
                return None, link
            if number > table.capacity:
                raise GuestError("the guest's table of elements is malformed")
            at = table.entry(number - 1)
            if self._read(at + 8, len(head)) == head:
                return number - 1, link
            link = at
        raise GuestError("a chain in the guest's table of elements does not end")

    def _make(self, words: list[int], link: int) -> int | None:
        """Make an entry at the end of a chain. Returns its number, or None when there is no room."""
        table = self._table
        found: tuple[int, int] = struct.unpack("<QQ", self._read(table.offset, DYNAMIC_HEAD))
        free, used = found
        number = free & 0xFFFFFFFF
        if number:
            if number > table.capacity:
                raise GuestError("the guest's list of free elements is malformed")
            following = int.from_bytes(self._read(table.entry(number - 1), 4), "little")
            free = ((free >> 32) + 1 & 0xFFFFFFFF) << 32 | following
        elif used < table.capacity:
            used += 1
            number = used
        else:
            return None
        self._write(table.offset, struct.pack("<QQ", free, used))
        self._write(table.entry(number - 1), struct.pack(f"<{len(words) + 2}Q", 0, hash_words(words), *words))
        self._write(link, struct.pack("<I", number))
        return number - 1

    def _free(self, entry: int, link: int) -> None:
        table = self._table
        at = table.entry(entry)
        self._write(link, self._read(at, 4))
        free = int.from_bytes(self._read(table.offset, 8), "little")
        self._write(at, struct.pack("<I", free & 0xFFFFFFFF))
        self._write(table.offset, struct.pack("<Q", ((free >> 32) + 1 & 0xFFFFFFFF) << 32 | entry + 1))

    def _read(self, offset: int, size: int) -> bytes:
        return self._memory().read(self._base + offset, size)

    def _write(self, offset: int, data: bytes) -> None:
        self._memory().write(self._base + offset, data)


class GuestSpeculations:
    """Reads and writes the words of a program's speculations: a :class:`probekit.enabling.speculation.SharedNumbers`.

    :data:`probekit.buffers.variables.SPECULATION_FREE` has their values.
    """

    def __init__(
        self,
        place: Extent,
        *,
        base: int,
        memory: Callable[[], DataMemory],
        no_clause_running: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._addr = base + place.offset
        self._size = place.size
        self._memory = memory
        self._no_clause_running = no_clause_running

    def acquire(self) -> int | None:
        """Take a free number, from 1. Returns 0 when all are active, None when some have ended and will be free."""
        with self._no_clause_running():
            words = self._words()
            if SPECULATION_FREE not in words:
                return None if SPECULATION_ENDED in words else 0
            number = words.index(SPECULATION_FREE) + 1
            self._set(number, SPECULATION_ACTIVE)
        return number

    def speculate(self, number: int) -> bool:
        """Note that the host's own probes have speculated. Returns False for a number that is not active."""
        if self._word(number) in (SPECULATION_HOST, SPECULATION_MANY):
            return True
        with self._no_clause_running():
            word = self._word(number)
            if word in (SPECULATION_FREE, SPECULATION_ENDED):
                return False
            only_host = word in (SPECULATION_ACTIVE, SPECULATION_HOST)
            self._set(number, SPECULATION_HOST if only_host else SPECULATION_MANY)
        return True

    def end(self, number: int) -> Ending:
        """Mark an active speculation as free, or as ended where a CPU has speculated. Does nothing for any other."""
        with self._no_clause_running():
            word = self._word(number)
            if word in (SPECULATION_FREE, SPECULATION_ENDED):
                return Ending.NOTHING
            only_host = word in (SPECULATION_ACTIVE, SPECULATION_HOST)
            self._set(number, SPECULATION_FREE if only_host else SPECULATION_ENDED)
        return Ending.AT_ONCE if only_host else Ending.LATER

    def release(self, number: int) -> None:
        """Mark an ended speculation as free. The guest does not touch it until then."""
        if 0 < number <= self._size // 8:
            self._set(number, SPECULATION_FREE)

    def _word(self, number: int) -> int:
        """Return the word of a number, ``SPECULATION_FREE`` where there is none."""
        words = self._words()
        return words[number - 1] if 0 < number <= len(words) else SPECULATION_FREE

    def _words(self) -> list[int]:
        return list(struct.unpack(f"<{self._size // 8}Q", self._memory().read(self._addr, self._size)))

    def _set(self, number: int, value: int) -> None:
        self._memory().write(self._addr + 8 * (number - 1), struct.pack("<Q", value))


def _inside(place: Extent, start: int, size: int) -> bool:
    return place.offset <= start and start + size <= place.offset + place.size


def _text(data: bytes) -> bytes:
    return data.split(b"\0", 1)[0]


def _padded(value: bytes, size: int) -> bytes:
    return value[: size - 1].ljust(size, b"\0")
