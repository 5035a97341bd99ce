"""Build the hash table of INT3 sites for the trap handler in the guest: open addressing, every search bounded.

    slot = (site * GOLDEN mod 2**64) >> shift        the first of at most `limit` slots in a row
    entry: site address, stub address                16 bytes; a site of 0 ends a search

The table is complete before the first INT3 is written and does not change after that,
so a search needs no lock.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ("ENTRY_SIZE", "GOLDEN", "TrapTable", "build_table", "find_stub", "table_size")

GOLDEN = 0x9E3779B97F4A7C15
"""2**64 divided by the golden ratio, odd."""

ENTRY_SIZE = 16
"""Bytes of an entry."""

_ENTRY = struct.Struct("<QQ")
_MASK = (1 << 64) - 1
_SLOTS_PER_SITE = 4  # at least so many slots for each site: most searches take one or two steps
_MIN_SLOTS = 16


@dataclass(frozen=True, slots=True)
class TrapTable:
    """A table as it lies in the guest."""

    data: bytes
    """The entries."""
    shift: int
    """How far the product is shifted to give the index of a slot."""
    limit: int
    """The most slots that a search looks at."""

    @property
    def capacity(self) -> int:
        """How many slots the table has, a power of two."""
        return len(self.data) // ENTRY_SIZE


def _capacity(sites: int) -> int:
    return max(_MIN_SLOTS, 1 << (sites * _SLOTS_PER_SITE - 1).bit_length())


def table_size(sites: int) -> int:
    """Return how many bytes a table for ``sites`` sites has; 0 for none."""
    return _capacity(sites) * ENTRY_SIZE if sites else 0


def build_table(stubs: Mapping[int, int]) -> TrapTable:
    """Build the table of ``stubs``: stub address by site address. Raises :class:`ValueError` for an address of 0."""
    if 0 in stubs or 0 in stubs.values():
        raise ValueError("address 0 is the mark of a free slot")
    capacity = _capacity(len(stubs))
    shift = 64 - (capacity.bit_length() - 1)
    slots: list[tuple[int, int]] = [(0, 0)] * capacity
    longest = 0
    for site, stub in sorted(stubs.items()):
        index, steps = (site * GOLDEN & _MASK) >> shift, 1
        while slots[index][0]:
            index, steps = (index + 1) % capacity, steps + 1
        slots[index] = (site, stub)
        longest = max(longest, steps)
    # One more, so that a search for an unknown site sees the free slot after the longest run.
    return TrapTable(b"".join(_ENTRY.pack(*slot) for slot in slots), shift, min(longest + 1, capacity))


def find_stub(table: TrapTable, site: int) -> int:
    """Search as the handler in the guest does. Returns the stub of ``site``, or 0."""
    index = (site * GOLDEN & _MASK) >> table.shift
    for step in range(table.limit):
        key, stub = _ENTRY.unpack_from(table.data, (index + step) % table.capacity * ENTRY_SIZE)
        if key in (site, 0):
            return stub if key else 0
    return 0
