"""Write code, data, the trap handler's structures and the recovery table, before any CPU can reach them."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from probekit.enabling.guest_access import GuestAccess
from probekit.enabling.guest_engine.data_layout import DataPlan
from probekit.enabling.guest_engine.data_memory import ProgramData
from probekit.enabling.guest_engine.plan import GuestPlan
from probekit.enabling.speculation import Speculations
from probekit.errors import ConflictError, GuestError, InternalError
from probekit.guest.linux import Allocation
from probekit.interp.state import ProgramState
from probekit.patch.recovery_table import header

__all__ = ("write_code", "write_data", "write_table", "write_trap_data")

_CHUNK = 1 << 20  # bytes in one pause
_MASK = (1 << 64) - 1


def write_code(access: GuestAccess, addr: int, image: bytes) -> None:
    """Write code in pieces, with a short pause for each, and read it back. Raises :class:`ConflictError`."""
    for offset in range(0, len(image), _CHUNK):
        access.check_interrupted()
        with access.clock.paused():
            chunk = image[offset : offset + _CHUNK]
            access.text.write_many([(addr + offset, chunk)])
            found = access.text.read_many([(addr + offset, len(chunk))])[0]
        if found != chunk:
            raise ConflictError(
                f"code written at {addr + offset:#x} does not read back",
                addr=addr + offset,
                expected=chunk[:16],
                found=(found or b"")[:16],
            )


def write_trap_data(access: GuestAccess, addr: int, block: bytes) -> None:
    """Write the structures that the kernel will link into its lists, and read them back. Raises :class:`GuestError`."""
    with access.clock.paused():
        access.text.write_many([(addr, block)])
        found = access.text.read_many([(addr, len(block))])[0]
    if found != block:
        raise GuestError(f"data written at {addr:#x} does not read back")


def write_data(
    access: GuestAccess,
    plan: GuestPlan,
    program_data: ProgramData,
    *,
    slot: Allocation,
    data: Allocation,
    initial: Mapping[int, int],
    state: ProgramState,
    speculations: Speculations,
) -> None:
    """Write tables, globals and the heads of blocks, and the per-CPU slots that point to the blocks.

    ``initial``: values of integer globals by index. From now on the host's ``state`` and ``speculations`` use the
    variables in the guest.
    """
    with access.clock.paused():
        program_data.memory.write(data.addr + plan.data.sites, plan.data.head)
        for var, value in initial.items():
            program_data.store(var, value)
        for index in range(len(plan.cpus)):
            program_data.memory.write(data.addr + plan.data.block(index), DataPlan.block_head())
        state.move_to_guest(program_data.variables)
        if program_data.speculations is not None:
            speculations.share(program_data.speculations)
        index_of = {cpu: index for index, cpu in enumerate(plan.cpus)}
        slots: list[tuple[int, bytes]] = []
        for cpu, offset in plan.facts.cpu_offsets.items():
            block = data.addr + plan.data.block(index_of.get(cpu, len(plan.cpus) - 1))
            slots.append(((slot.addr + offset) & _MASK, struct.pack("<Q", block)))
        access.text.write_many(slots)


def write_table(
    access: GuestAccess, plan: GuestPlan, program_data: ProgramData, *, code: Allocation, data: Allocation
) -> tuple[int, bytes]:
    """Write the recovery table, and its header last, when everything that it names is complete.

    Returns the header and its address.
    """
    table = access.log.contents()
    if len(table) > data.room - plan.table:
        raise InternalError("the recovery table is larger than its upper bound")
    where = data.addr + plan.table
    for offset in range(0, len(table), _CHUNK):
        program_data.memory.write(where + offset, table[offset : offset + _CHUNK])
    head = header(where, table)
    write_code(access, code.addr, head)
    access.log.table_written(code.addr)
    return code.addr, head
