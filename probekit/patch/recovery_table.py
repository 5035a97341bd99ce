"""Write and read the header of the recovery table, a copy of the undo journal's bytes in guest memory.

It is for a host that has lost its disk, and for another host. The first bytes of
our executable memory say where in the guest the copy is. It shows the journal as
it was before the first site was patched::

    magic   16 bytes
    addr    u64         where the journal's bytes begin, a kernel virtual address
    size    u32         how many bytes it has
    crc     u32         their CRC-32
    zero    32 bytes

Executable memory begins at a page, in the range where the kernel keeps its
modules. That range is small, so a search of all its pages is quick. The magic is
wiped before the memory is given back. A guest may forge a table; then only bytes
of the guest itself are changed, and only those that its table names.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

__all__ = ("HEADER_SIZE", "MAX_TABLE", "NO_HEADER", "Header", "header", "read_header")

_HEAD = struct.Struct("<16sQII32x")
HEADER_SIZE = _HEAD.size
"""Bytes of the header."""
MAX_TABLE = 1 << 26
"""The most bytes that a table may have."""
NO_HEADER = bytes(HEADER_SIZE)
"""What is written over the header to wipe it."""
_MAGIC = bytes.fromhex("9e 70 72 6f 62 65 6b 69 74 20 74 61 62 6c 65 01".replace(" ", ""))


class Header(NamedTuple):
    """Says where the table is."""

    addr: int
    """Kernel virtual address of the journal's bytes."""
    size: int
    """How many bytes there are."""
    crc: int
    """CRC-32 of the bytes."""

    def fits(self, data: bytes) -> bool:
        """Tell whether ``data`` is the table that was written."""
        return len(data) == self.size and zlib.crc32(data) == self.crc


def header(addr: int, data: bytes) -> bytes:
    """Return the header for the table ``data`` at ``addr``: the first bytes of our executable memory."""
    return _HEAD.pack(_MAGIC, addr, len(data), zlib.crc32(data))


def read_header(page: bytes) -> Header | None:
    """Return the header at the start of a page, or None for any other bytes. It may be forged."""
    if len(page) < HEADER_SIZE or not page.startswith(_MAGIC):
        return None
    _, addr, size, crc = _HEAD.unpack_from(page)
    return Header(addr, size, crc) if 0 < size <= MAX_TABLE and addr >> 63 else None
