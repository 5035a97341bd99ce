"""Our data memory in the guest, one allocation:

0       activity word: not 0 silences every thunk
8       global variables, 8 bytes each
...     site table, string pool (only what the program's code asks for)
page    per-CPU blocks, one for each possible CPU
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from probekit.buffers.layout import BLOCK_MAGIC, BlockLayout
from probekit.codegen.context import SITE_ENTRY_SIZE, SITE_FIELDS
from probekit.codegen.demand import program_demand
from probekit.enabling.sites import EnabledSite
from probekit.ir.ops import Program

__all__ = ("DataPlan", "plan_data")

_PAGE = 4096


@dataclass(frozen=True, slots=True)
class DataPlan:
    """Offsets in bytes from the allocation's start. ``head``: initial bytes of everything before the blocks."""

    variables: int
    sites: int
    strings: int
    constants: dict[bytes, int]
    head: bytes
    blocks: int
    block_size: int
    cpus: int

    @property
    def size(self) -> int:
        """Bytes of the whole allocation."""
        return self.blocks + self.cpus * self.block_size

    def block(self, cpu: int) -> int:
        """Offset of the block of the ``cpu``-th possible CPU."""
        return self.blocks + cpu * self.block_size

    @staticmethod
    def block_head() -> bytes:
        """The first word of every block."""
        return struct.pack("<Q", BLOCK_MAGIC)


def plan_data(program: Program, sites: Sequence[EnabledSite], layout: BlockLayout, cpus: int) -> DataPlan:
    """Lay out the allocation and build the bytes of its head."""
    demand = program_demand(program)
    variables = 8
    site_table = -(-(variables + 8 * sum(v.scope == "global" for v in program.variables)) // 64) * 64
    strings = site_table + (SITE_ENTRY_SIZE * len(sites) if demand.site_table else 0)
    pool = _Pool()
    constants = {text: pool.intern(text) for text in demand.constants}
    head = bytearray(site_table)
    if demand.site_table:
        for site in sites:
            head += _site_entry(site, pool if demand.names else None)
    head += pool.data
    return DataPlan(
        variables=variables,
        sites=site_table,
        strings=strings,
        constants=constants,
        head=bytes(head),
        blocks=-(-len(head) // _PAGE) * _PAGE,
        block_size=layout.size,
        cpus=cpus,
    )


class _Pool:
    """NUL-terminated strings, each once; offset 0 is the empty string.

    Each is padded to 16 bytes: where ``?:`` chooses between a constant and a task's name, 16 bytes are copied.
    """

    def __init__(self) -> None:
        self.data = bytearray(16)
        self._places: dict[bytes, int] = {b"": 0}

    def intern(self, text: bytes) -> int:
        if text not in self._places:
            self._places[text] = len(self.data)
            self.data += (text + b"\0").ljust(16, b"\0")
        return self._places[text]


def _site_entry(site: EnabledSite, pool: _Pool | None) -> bytes:
    """The entry that ``SITE_FIELDS`` describes."""
    name = site.probe.name
    fields = {"offset": site.offset, "id": site.probe.id}
    if pool is not None:
        texts = {
            "probeprov": name.provider,
            "probemod": name.module,
            "probefunc": name.function,
            "probename": name.name,
        }
        fields |= {key: pool.intern(text.encode()[:255]) for key, text in texts.items()}
    entry = bytearray(SITE_ENTRY_SIZE)
    for key, value in fields.items():
        struct.pack_into("<I", entry, SITE_FIELDS[key], value)
    return bytes(entry)
