"""What is written before any CPU can come to it: code, data, what the kernel's lists lead to, the recovery table."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from probekit.enabling.guest_access import Reach
from probekit.enabling.guest_engine.data_layout import DataPlan
from probekit.enabling.guest_engine.data_memory import Blocks
from probekit.enabling.guest_engine.plan import GuestPlan
from probekit.enabling.speculation import Speculations
from probekit.errors import ConflictError, GuestError, InternalError
from probekit.guest.linux import Allocation
from probekit.interp.state import State
from probekit.patch.recovery_table import header

__all__ = ("write_code", "write_data", "write_table", "write_trap_data")

_CHUNK = 1 << 20  # bytes in one pause
_MASK = (1 << 64) - 1


def write_code(reach: Reach, addr: int, image: bytes) -> None:
    """In pieces with a short pause each; read back. Raises :class:`ConflictError`."""
    for offset in range(0, len(image), _CHUNK):
        with reach.clock.paused():
            chunk = image[offset : offset + _CHUNK]
            reach.text.write_many([(addr + offset, chunk)])
            found = reach.text.read_many([(addr + offset, len(chunk))])[0]
        if found != chunk:
            raise ConflictError(
                f"code written at {addr + offset:#x} does not read back",
                addr=addr + offset,
                expected=chunk[:16],
                found=(found or b"")[:16],
            )


def write_trap_data(reach: Reach, addr: int, block: bytes) -> None:
    """What the kernel's lists will lead to; read back."""
    with reach.clock.paused():
        reach.text.write_many([(addr, block)])
        found = reach.text.read_many([(addr, len(block))])[0]
    if found != block:
        raise GuestError(f"what was written at {addr:#x} does not read back")


def write_data(
    reach: Reach,
    plan: GuestPlan,
    blocks: Blocks,
    *,
    slot: Allocation,
    data: Allocation,
    initial: Mapping[int, int],
    state: State,
    speculations: Speculations,
) -> None:
    """Tables, globals and block heads, and the per-CPU slots that lead to the blocks.

    ``state`` and ``speculations`` of the host are from now on those in the guest.
    """
    with reach.clock.paused():
        blocks.memory.write(data.addr + plan.data.sites, plan.data.head)
        for var, value in initial.items():
            blocks.store(var, value)
        for index in range(len(plan.cpus)):
            blocks.memory.write(data.addr + plan.data.block(index), DataPlan.block_head())
        state.share(blocks.variables)
        if blocks.speculations is not None:
            speculations.share(blocks.speculations)
        index_of = {cpu: index for index, cpu in enumerate(plan.cpus)}
        slots: list[tuple[int, bytes]] = []
        for cpu, offset in plan.facts.cpu_offsets.items():
            block = data.addr + plan.data.block(index_of.get(cpu, len(plan.cpus) - 1))
            slots.append(((slot.addr + offset) & _MASK, struct.pack("<Q", block)))
        reach.text.write_many(slots)


def write_table(reach: Reach, plan: GuestPlan, blocks: Blocks, *, code: Allocation, data: Allocation) -> None:
    """The recovery table; its header last, when what it speaks of is whole."""
    table = reach.log.contents()
    if len(table) > data.size - plan.table:
        raise InternalError("the recovery table is larger than its upper bound")
    where = data.addr + plan.table
    for offset in range(0, len(table), _CHUNK):
        blocks.memory.write(where + offset, table[offset : offset + _CHUNK])
    write_code(reach, code.addr, header(where, table))
    reach.log.table(stands=True)
