"""The recovery table: the undo journal's own bytes, kept in guest memory.

A host may lose its disk, or another host may come to the guest. So the first
bytes of our executable memory say where in the guest a copy of the journal is,
as it was before the first site was patched::

    magic   16 bytes
    addr    u64         of the journal's bytes, a kernel virtual address
    size    u32         of them
    crc     u32         CRC-32 of them
    zero    32 bytes

Executable memory lies where the kernel keeps its modules, a small range whose
page tables are quickly walked, and always begins a page. The magic is wiped
before the memory is given back. A guest may forge a table: all that can do is
to have bytes of its own changed, and only those that it names itself.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

__all__ = ("HEADER_SIZE", "MAX_TABLE", "NO_HEADER", "Header", "header", "read_header")

_HEAD = struct.Struct("<16sQII32x")
HEADER_SIZE = _HEAD.size
MAX_TABLE = 1 << 26
NO_HEADER = bytes(HEADER_SIZE)
_MAGIC = bytes.fromhex("9e 70 72 6f 62 65 6b 69 74 20 74 61 62 6c 65 01".replace(" ", ""))


class Header(NamedTuple):
    """Where the table is. ``addr``: a kernel virtual address; ``size``: bytes."""

    addr: int
    size: int
    crc: int

    def fits(self, data: bytes) -> bool:
        """Whether ``data`` is the table that was written."""
        return len(data) == self.size and zlib.crc32(data) == self.crc


def header(addr: int, data: bytes) -> bytes:
    """The first bytes of executable memory whose table ``data`` is at ``addr``."""
    return _HEAD.pack(_MAGIC, addr, len(data), zlib.crc32(data))


def read_header(page: bytes) -> Header | None:
    """The header at the start of a page, or None for any other bytes. Nothing in it is to be trusted."""
    if len(page) < HEADER_SIZE or not page.startswith(_MAGIC):
        return None
    _, addr, size, crc = _HEAD.unpack_from(page)
    return Header(addr, size, crc) if 0 < size <= MAX_TABLE and addr >> 63 else None
