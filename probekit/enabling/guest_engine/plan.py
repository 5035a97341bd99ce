"""Decide before anything is allocated which CPUs have blocks, and how much memory of each kind is needed.

data    data plan | watchdog's words | recovery table
code    recovery header, watchdog's function | shared code, stubs, handler of INT3
"""

from __future__ import annotations

from collections.abc import Sequence

from probekit.buffers.layout import CpuBlockLayout, plan_block
from probekit.codegen.context import CodegenContext
from probekit.codegen.storage import StorageOptions, plan_storage
from probekit.enabling.api import EngineOptions
from probekit.enabling.guest_engine.data_layout import VARIABLES, DataPlan, data_context, guest_clauses, plan_data
from probekit.enabling.guest_engine.stubs import code_size, plan_stubs
from probekit.enabling.guest_engine.traps import TrapPlan, plan_traps
from probekit.enabling.sites import EnabledSite
from probekit.errors import GuestError
from probekit.guest.facts import GuestFacts
from probekit.guest.watchdog import WATCHDOG_SIZE
from probekit.ir.ops import Program
from probekit.patch.recovery_table import HEADER_SIZE
from probekit.records import record

__all__ = ("CODE_AT", "GuestPlan", "plan_guest")

CODE_AT = -(-(HEADER_SIZE + WATCHDOG_SIZE) // 64) * 64
"""Offset in executable memory at which the program's code begins."""

_FAR_SLOT = 1 << 40  # an offset that needs the long form of every access, for the upper bound of the code's size
_MAX_SHARE = 2  # at most one half of the guest's memory is allocated
_TABLE_SLACK = 16 << 10  # bytes for the journal's records of our allocations: guest calls with all registers


@record
class GuestPlan:
    """The plan of one enabling: what will be in the guest, and how large it is."""

    program: Program
    sites: tuple[EnabledSite, ...]
    facts: GuestFacts
    cpus: tuple[int, ...]
    """Numbers of the CPUs that have a block, in order of the blocks."""
    layout: CpuBlockLayout
    """The layout of one CPU's block."""
    data: DataPlan
    """The layout of all data memory."""
    traps: TrapPlan | None
    """The plan of the trap handler; None when no site has an INT3."""

    def context(self, *, data: int, slot: int) -> CodegenContext:
        """Return the context of the code generator. ``data``, ``slot``: addresses of data memory and per-CPU slot."""
        return data_context(self.program, self.data, self.layout, self.facts, data=data, slot=slot)

    def code_bound(self) -> int:
        """Return how many bytes of executable memory are needed, at most."""
        rough = self.context(data=1 << 62, slot=_FAR_SLOT)
        stubs = plan_stubs(self.program, self.sites, rough)
        bound = code_size(self.program, self.sites, stubs, rough, self.facts.call_points.landings[0])
        return CODE_AT + bound + (self.traps.code_size if self.traps is not None else 0)

    @property
    def table(self) -> int:
        """Offset of the recovery table in data memory."""
        return self.data.size + (self.facts.watchdog.memory if self.facts.watchdog is not None else 0)

    def data_bound(self, journal: int) -> int:
        """Return how many bytes of data memory are needed.

        ``journal``: bytes of the journal so far and of its records of the sites.
        """
        return self.table + journal + _TABLE_SLACK

    def check_room(self, size: int) -> None:
        """Check that ``size`` bytes are at most half of the guest's memory. Raises :class:`GuestError` otherwise.

        For more, the kernel would kill programs to free memory, or report a failed allocation on its console.
        """
        ram = self.facts.ram
        if ram and size > ram // _MAX_SHARE:
            raise GuestError(
                f"nothing was probed: it takes {size >> 20} MiB of guest memory, and the guest has {ram >> 20} MiB",
                hint="lower -x aggsize, bufsize or dynvarsize, or probe less",
            )


def plan_guest(program: Program, sites: Sequence[EnabledSite], facts: GuestFacts, options: EngineOptions) -> GuestPlan:
    """Plan an enabling.

    Raises :class:`probekit.errors.UnsupportedError` when a site needs INT3 and the guest cannot take it.
    """
    sites = tuple(sites)
    cpus = _block_owners(facts)
    storage = plan_storage(
        program,
        guest_clauses(program, sites),
        StorageOptions(options.dynvarsize, options.scratchsize, options.nspec),
        VARIABLES,
    )
    layout = plan_block(
        program.aggregations,
        sites=len(sites),
        aggsize=options.aggsize,
        bufsize=options.bufsize,
        scratch=storage.scratch.size,
        policy=options.bufpolicy,
        measured=len(program.clauses) if options.measure else 0,
    )
    data = plan_data(program, sites, storage, layout, len(cpus))
    return GuestPlan(
        program, sites, facts, cpus, layout, data, plan_traps(sites, facts.traps, staged=len(options.staged))
    )


def _block_owners(facts: GuestFacts) -> tuple[int, ...]:
    """Return the CPUs that get a block: those online, and one for all CPUs that may come online later.

    A machine may have many more possible CPUs than real ones, and a block for each would waste memory.
    """
    spare = sorted(facts.cpu_offsets.keys() - set(facts.online))[:1]
    return (*sorted(facts.online), *spare)
