"""What a program's code needs at run time, before a byte of it is made.

A probe's name that is only recorded costs nothing in the guest: the consumer
knows the probe, nothing reads the register, and no code fills it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from probekit.buffers.actions import Chill, Panic, Raise, RecordPlan, Stop
from probekit.codegen.reg_alloc import dead_registers
from probekit.ir.names import BUILTINS
from probekit.ir.ops import (
    Aggregate,
    Arg,
    Builtin,
    Call,
    Clause,
    CopyMem,
    EmitMem,
    LoadMem,
    LoadStr,
    Program,
    Str,
)

__all__ = (
    "SERVICES",
    "Demand",
    "acts_on_guest",
    "panics",
    "program_demand",
    "routine_of",
    "stops",
)


SERVICES = frozenset(
    (
        *(
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
        ),
        "stack",
    )
)
"""Subroutines that call into the kernel, or may take a page fault there."""


@dataclass(frozen=True, slots=True)
class Demand:
    """``constants``: string literals; ``site_table``: some clause reads it; ``names``: with the probes' names in it.

    ``addresses``: of the sites, for the unwinder; ``ladders``: aggregations by ``llquantize()``;
    ``services``: clauses call into the kernel, or may take page faults there.
    """

    constants: tuple[bytes, ...]
    site_table: bool
    names: bool
    addresses: bool
    ladders: tuple[int, ...]
    services: bool


def _is_name(builtin: str) -> bool:
    info = BUILTINS[builtin]
    return info.per_probe and info.kind == "string"


def program_demand(program: Program, clauses: Sequence[Clause]) -> Demand:
    """What ``clauses``, those of a program that run in the guest, ask of the data memory and of the kernel."""
    constants: set[bytes] = set()
    ladders: set[int] = set()
    site_table = names = addresses = services = False
    for clause in clauses:
        services = services or acts_on_guest(clause.record)
        dead = dead_registers(clause)
        for op in (op for block in clause.blocks for op in block.ops):
            match op:
                case Str(value=value):
                    constants.add(value)
                case Builtin(name=name, dst=dst) if BUILTINS[name].per_probe and dst not in dead:
                    site_table = True
                    names = names or _is_name(name)
                case Arg(index=0):
                    site_table = True
                case Builtin(name=name) if BUILTINS[name].made:
                    services = True
                case Builtin(name="caller" | "stackdepth") | Call(name="stack"):
                    addresses = services = True
                case Aggregate(agg=agg) if program.aggregations[agg].func == "llquantize":
                    ladders.add(agg)
                case LoadMem() | LoadStr() | EmitMem() | CopyMem():
                    services = True
                case Call(name=name) if name in SERVICES:
                    services = True
                case _:
                    pass
    return Demand(tuple(sorted(constants)), site_table, names, addresses, tuple(sorted(ladders)), services)


def acts_on_guest(record: RecordPlan | None) -> bool:
    """Some action does: its routine changes every register that a function may."""
    return record is not None and any(isinstance(action, Chill | Panic | Raise | Stop) for action in record.actions)


def routine_of(field: int, record: RecordPlan) -> str:
    """What is to be called with the value of a field, or nothing."""
    for action in record.actions:
        if isinstance(action, Chill | Raise) and action.field == field:
            return "chill" if isinstance(action, Chill) else "signal"
    return ""


def stops(record: RecordPlan) -> bool:
    """The clause calls ``stop()``."""
    return any(isinstance(action, Stop) for action in record.actions)


def panics(record: RecordPlan) -> bool:
    """The clause calls ``panic()``."""
    return any(isinstance(action, Panic) for action in record.actions)
