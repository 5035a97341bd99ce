"""A page table walk for one address, written apart from probekit.kernel.page_tables so that tests can compare the two.

Four or five levels of 512 eight-byte entries, nine bits of the address each::

    va  = | sign | (pml5 9) | pml4 9 | pdpt 9 | pd 9 | pt 9 | offset 12 |

An entry with PS set in a pdpt (1 GiB) or pd (2 MiB) ends the walk early.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from probekit.errors import InternalError

__all__ = ("walk",)

_PRESENT: Final = 1 << 0
_WRITE: Final = 1 << 1
_USER: Final = 1 << 2
_NX: Final = 1 << 63
_PS: Final = 1 << 7
_FRAME: Final = 0x000F_FFFF_FFFF_F000
_LEVELS: Final = (48, 39, 30, 21, 12)  # the lowest address bit of each level's index
_LARGE: Final = (30, 21)


def walk(read_phys: Callable[[int, int], bytes], cr3: int, va: int, la57: bool = False) -> tuple[int, int, int] | None:
    """Translate ``va``: return (physical address, page size in bytes, flags), or None where nothing is mapped.

    ``read_phys(addr, size)``: guest physical memory; its errors pass through.
    ``la57``: five levels (CR4 bit 12). ``flags``: the bits of PRESENT, WRITE, USER and NX that hold
    over the whole walk: WRITE and USER need every level, NX is enough in one.
    """
    top = 57 if la57 else 48
    if va >> 64 or va < 0 or (va >> (top - 1)) not in (0, (1 << (65 - top)) - 1):
        return None
    table = cr3 & _FRAME
    allow, no_execute = _WRITE | _USER, 0
    for shift in _LEVELS if la57 else _LEVELS[1:]:
        (entry,) = struct.unpack("<Q", read_phys(table + ((va >> shift) & 511) * 8, 8))
        if not entry & _PRESENT:
            return None
        allow &= entry
        no_execute |= entry & _NX
        if shift == 12 or (shift in _LARGE and entry & _PS):
            size = 1 << shift
            frame = entry & _FRAME & ~(size - 1)
            return frame | (va & (size - 1)), size, _PRESENT | allow | no_execute
        table = entry & _FRAME
    raise InternalError("the last level did not end the walk")
