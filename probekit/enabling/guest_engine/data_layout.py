"""Lay out our data memory in the guest, which is one allocation:

0       activity word: every thunk returns at once when it is not 0
8       global variables, then the tables of threads and of elements (probekit.codegen.storage)
...     site table, site addresses, bounds of llquantize(), string pool (each only if the program uses it)
page    per-CPU blocks (probekit.buffers.layout)
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from probekit.buffers.layout import BLOCK_MAGIC, CpuBlockLayout
from probekit.codegen.aggregate import llquantize_bounds
from probekit.codegen.context import SITE_ENTRY_SIZE, SITE_FIELDS, CodegenContext
from probekit.codegen.demand import Demand, program_demand
from probekit.codegen.storage import Storage
from probekit.enabling.sites import EnabledSite
from probekit.guest.offsets import KernelServices, TaskOffsets
from probekit.ir.ops import Clause, Program

__all__ = ("VARIABLES", "CodeFacts", "DataPlan", "data_context", "guest_clauses", "plan_data")

_PAGE = 4096


class CodeFacts(Protocol):
    """The facts of a guest that generated code depends on: a part of :class:`probekit.guest.facts.GuestFacts`."""

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
    """The place of everything in the allocation. Offsets are bytes from its start.

    The guest's kernel zeroes the memory, so only ``head`` and the first word of each block are written.
    """

    storage: Storage
    """The offsets and sizes of the variables."""
    demand: Demand
    """Which tables and strings the program's code uses."""
    sites: int
    """Offset of the site table."""
    addresses: int
    """Offset of the sites' addresses."""
    ladders: dict[int, int]
    """Offset of the bounds of each ``llquantize()``, by aggregation."""
    strings: int
    """Offset of the string pool."""
    constants: dict[bytes, int]
    """Offset of each constant string in the pool."""
    head: bytes
    """Initial bytes from ``sites`` on."""
    blocks: int
    """Offset of the first per-CPU block."""
    block_size: int
    """Bytes of a block."""
    cpus: int
    """How many blocks there are."""

    @property
    def size(self) -> int:
        """How many bytes the whole allocation has."""
        return self.blocks + self.cpus * self.block_size

    def block(self, index: int) -> int:
        """Return the offset of a block."""
        return self.blocks + index * self.block_size

    @staticmethod
    def block_head() -> bytes:
        """Return the first word of every block."""
        return struct.pack("<Q", BLOCK_MAGIC)


VARIABLES = 8
"""Offset at which the global variables begin."""


def plan_data(
    program: Program, sites: Sequence[EnabledSite], storage: Storage, layout: CpuBlockLayout, cpus: int
) -> DataPlan:
    """Lay out the allocation and build the bytes of its head.

    ``storage``: planned from offset :data:`VARIABLES` on. ``layout``: the layout of one CPU's block. ``cpus``: the
    number of blocks.
    """
    demand = program_demand(program, guest_clauses(program, sites))
    site_table = -(-storage.size // 64) * 64
    pool = _Pool()
    constants = {text: pool.intern(text) for text in demand.strings}
    head = bytearray()
    if demand.site_table or any(site.call is not None for site in sites):
        for site in sites:
            head += _site_entry(site, pool if demand.probe_names else None)
    addresses = site_table + len(head)
    if demand.site_addresses:
        head += b"".join(struct.pack("<Q", site.site.addr) for site in sites)
    ladders: dict[int, int] = {}
    for agg in demand.llquantize_aggs:
        ladders[agg] = site_table + len(head)
        bounds = llquantize_bounds(program.aggregations[agg])
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
    """Return the clauses that run in the guest, in program order."""
    return tuple(program.clauses[n] for n in sorted({n for site in sites for n in site.clauses}))


def data_context(
    program: Program, plan: DataPlan, layout: CpuBlockLayout, facts: CodeFacts, *, data: int, slot: int
) -> CodegenContext:
    """Return the context of the code generator. ``data``, ``slot``: addresses of data memory and the per-CPU slot."""
    return CodegenContext(
        layout=layout,
        program=program,
        storage=plan.storage,
        percpu_slot=slot - (1 << 64) if slot >> 63 else slot,
        activity=data,
        site_table=data + plan.sites,
        site_addresses=data + plan.addresses,
        llquantize_bounds={agg: data + at for agg, at in plan.ladders.items()},
        string_pool=data + plan.strings,
        pool_offsets=plan.constants,
        demand=plan.demand,
        preemptible=facts.preemptible,
        task=facts.task,
        clock=facts.clock,
        shared_tsc_khz=facts.tsc_khz if facts.tsc_shared else 0,
        tsc_khz=facts.tsc_khz,
        longest_sample=facts.tsc_khz,
        kernel=facts.kernel,
    )


class _Pool:
    """A pool of NUL-terminated strings, each once. Offset 0 is the empty string.

    Each is padded to 16 bytes, because code that chooses between a constant and a task's name copies 16 bytes.
    """

    def __init__(self) -> None:
        self.data = bytearray(16)
        self._offsets: dict[bytes, int] = {b"": 0}

    def intern(self, text: bytes) -> int:
        if text not in self._offsets:
            self._offsets[text] = len(self.data)
            self.data += (text + b"\0").ljust(16, b"\0")
        return self._offsets[text]


def _site_entry(site: EnabledSite, pool: _Pool | None) -> bytes:
    """Make the entry that ``SITE_FIELDS`` describes."""
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
