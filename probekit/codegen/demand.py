"""Find what a program's code needs at run time, before a byte of it is made.

A probe's name that is only recorded costs nothing in the guest: the consumer knows the probe, so no code loads the
name and nothing of it is in the data memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from probekit.buffers.actions import Chill, Panic, Raise, RecordPlan, Stop
from probekit.codegen.reg_alloc import dead_registers
from probekit.ir.names import BUILTINS
from probekit.ir.ops import (
    CallSubroutine,
    Clause,
    CopyMem,
    EmitMem,
    LoadArg,
    LoadBuiltin,
    LoadMem,
    LoadStr,
    Program,
    Str,
    UpdateAgg,
)
from probekit.kernel.syscalls import ABI_NAMES

__all__ = (
    "SERVICES",
    "Demand",
    "action_routine",
    "acts_on_guest",
    "calls_panic",
    "calls_stop",
    "program_demand",
)


SERVICES = frozenset(
    (
        "bcopy",
        "copyin",
        "copyinstr",
        "copyinto",
        "copyout",
        "copyoutstr",
        "d_path",
        "inet_ntoa",
        "inet_ntoa6",
        "inet_ntop",
        "link_ntop",
        "stack",
    )
)
"""The subroutines that call into the kernel, or may take a page fault there."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What the clauses of a program that run in the guest ask of the data memory and of the kernel."""

    strings: tuple[bytes, ...]
    """The string constants, sorted."""
    site_table: bool
    """True when some clause reads the site table."""
    probe_names: bool
    """True when the site table has to hold the probes' names."""
    site_addresses: bool
    """True when the unwinder needs the addresses of the sites."""
    llquantize_aggs: tuple[int, ...]
    """The aggregations by ``llquantize()``, whose bounds have to be in memory."""
    services: bool
    """True when clauses call into the kernel, or may take page faults there."""


def _is_probe_name(builtin: str) -> bool:
    info = BUILTINS[builtin]
    return info.per_probe and info.kind == "string"


def program_demand(program: Program, clauses: Sequence[Clause]) -> Demand:
    """Return what ``clauses``, those of a program that run in the guest, need at run time."""
    strings: set[bytes] = set()
    llquantize_aggs: set[int] = set()
    site_table = probe_names = site_addresses = services = False
    for clause in clauses:
        services = services or acts_on_guest(clause.record)
        dead = dead_registers(clause)
        for op in (op for block in clause.blocks for op in block.ops):
            match op:
                case Str(value=value):
                    strings.add(value)
                case LoadBuiltin(name=name, dst=dst) if BUILTINS[name].per_probe and dst not in dead:
                    site_table = True
                    probe_names = probe_names or _is_probe_name(name)
                case LoadArg(index=0):
                    site_table = True
                case LoadBuiltin(name=name) if BUILTINS[name].by_routine:
                    services = True
                case LoadBuiltin(name="curabi"):
                    strings.update(ABI_NAMES.values())
                case LoadBuiltin(name="caller" | "stackdepth") | CallSubroutine(name="stack"):
                    site_addresses = services = True
                case UpdateAgg(agg=agg) if program.aggregations[agg].func == "llquantize":
                    llquantize_aggs.add(agg)
                case LoadMem() | LoadStr() | EmitMem() | CopyMem():
                    services = True
                case CallSubroutine(name=name) if name in SERVICES:
                    services = True
                case _:
                    pass
    return Demand(
        strings=tuple(sorted(strings)),
        site_table=site_table,
        probe_names=probe_names,
        site_addresses=site_addresses,
        llquantize_aggs=tuple(sorted(llquantize_aggs)),
        services=services,
    )


def acts_on_guest(record: RecordPlan | None) -> bool:
    """Return True when some action acts on the guest: its routine may change every register that a function may."""
    return record is not None and any(isinstance(action, Chill | Panic | Raise | Stop) for action in record.actions)


def action_routine(field: int, record: RecordPlan) -> str:
    """Return the routine that takes the value of a field, such as ``chill``'s; empty when none does."""
    for action in record.actions:
        if isinstance(action, Chill | Raise) and action.field == field:
            return "chill" if isinstance(action, Chill) else "send_signal"
    return ""


def calls_stop(record: RecordPlan) -> bool:
    """Return True when the clause calls ``stop()``."""
    return any(isinstance(action, Stop) for action in record.actions)


def calls_panic(record: RecordPlan) -> bool:
    """Return True when the clause calls ``panic()``."""
    return any(isinstance(action, Panic) for action in record.actions)
