"""Our data memory in the guest, one allocation:

0       activity word: not 0 silences every thunk
8       global variables, then the tables of threads and of elements (probekit.codegen.storage)
...     site table, site addresses, bounds of llquantize(), string pool (only what the program's code asks for)
page    per-CPU blocks, one for each possible CPU
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from probekit.buffers.layout import BLOCK_MAGIC, BlockLayout
from probekit.codegen.aggregate import ladder_of
from probekit.codegen.context import SITE_ENTRY_SIZE, SITE_FIELDS, Context
from probekit.codegen.demand import Demand, program_demand
from probekit.codegen.storage import Storage
from probekit.enabling.sites import EnabledSite
from probekit.guest.offsets import KernelServices, TaskOffsets
from probekit.ir.ops import Clause, Program

__all__ = ("VARIABLES", "CodeFacts", "DataPlan", "data_context", "guest_clauses", "plan_data")

_PAGE = 4096


class CodeFacts(Protocol):
    """What code depends on of the guest: part of :class:`probekit.guest.facts.GuestFacts`."""

    @property
    def task(self) -> TaskOffsets | None: ...

    @property
    def clock(self) -> int | None: ...

    @property
    def kernel(self) -> KernelServices: ...

    @property
    def preemptible(self) -> bool: ...

    @property
    def tsc_khz(self) -> int: ...

    @property
    def tsc_shared(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class DataPlan:
    """Offsets in bytes from the allocation's start. ``head``: initial bytes of what begins at ``sites``.

    All before it, and the blocks behind it, are zero at first, as the guest's kernel hands memory out.
    """

    storage: Storage
    demand: Demand
    sites: int
    addresses: int
    ladders: dict[int, int]
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


VARIABLES = 8
"""Where the global variables begin."""


def plan_data(
    program: Program, sites: Sequence[EnabledSite], storage: Storage, layout: BlockLayout, cpus: int
) -> DataPlan:
    """Lay out the allocation and build the bytes of its head. ``storage``: planned from ``VARIABLES`` on."""
    demand = program_demand(program, guest_clauses(program, sites))
    site_table = -(-storage.size // 64) * 64
    pool = _Pool()
    constants = {text: pool.intern(text) for text in demand.constants}
    head = bytearray()
    if demand.site_table or any(site.call is not None for site in sites):
        for site in sites:
            head += _site_entry(site, pool if demand.names else None)
    addresses = site_table + len(head)
    if demand.addresses:
        head += b"".join(struct.pack("<Q", site.site.addr) for site in sites)
    ladders: dict[int, int] = {}
    for agg in demand.ladders:
        ladders[agg] = site_table + len(head)
        bounds = ladder_of(program.aggregations[agg])
        head += struct.pack(f"<{len(bounds)}q", *bounds)
    strings = site_table + len(head)
    head += pool.data
    return DataPlan(
        storage=storage,
        demand=demand,
        sites=site_table,
        addresses=addresses,
        ladders=ladders,
        strings=strings,
        constants=constants,
        head=bytes(head),
        blocks=-(-(site_table + len(head)) // _PAGE) * _PAGE,
        block_size=layout.size,
        cpus=cpus,
    )


def guest_clauses(program: Program, sites: Sequence[EnabledSite]) -> tuple[Clause, ...]:
    """The clauses that run in the guest."""
    return tuple(program.clauses[n] for n in sorted({n for site in sites for n in site.clauses}))


def data_context(
    program: Program, plan: DataPlan, layout: BlockLayout, facts: CodeFacts, *, data: int, slot: int
) -> Context:
    """What code depends on, with the data memory at ``data`` and the per-CPU slot at ``slot``."""
    return Context(
        layout=layout,
        program=program,
        storage=plan.storage,
        slot=slot - (1 << 64) if slot >> 63 else slot,
        activity=data,
        sites=data + plan.sites,
        addresses=data + plan.addresses,
        ladders={agg: data + at for agg, at in plan.ladders.items()},
        strings=data + plan.strings,
        constants=plan.constants,
        demand=plan.demand,
        preemptible=facts.preemptible,
        task=facts.task,
        clock=facts.clock,
        tsc_khz=facts.tsc_khz if facts.tsc_shared else 0,
        tsc_rate=facts.tsc_khz,
        longest_sample=facts.tsc_khz,
        kernel=facts.kernel,
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
    fields = {"offset": site.offset, "id": site.probe.id, "call": site.call or 0}
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
