"""What a program's code needs at run time, before a byte of it is made.

A probe's name that is only recorded costs nothing in the guest: the consumer
knows the probe. Its register is *idle*, and the op that fills it is not emitted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from probekit.ir.ops import (
    BUILTINS,
    Aggregate,
    Arg,
    Bin,
    Branch,
    Builtin,
    Clause,
    Cmp,
    Emit,
    Ext,
    Op,
    Program,
    Reg,
    StoreVar,
    Str,
    StrCmp,
)

__all__ = ("Demand", "idle_registers", "program_demand")


@dataclass(frozen=True, slots=True)
class Demand:
    """``constants``: string literals; ``site_table``: some clause reads it; ``names``: with the probes' names in it."""

    constants: tuple[bytes, ...]
    site_table: bool
    names: bool


def _reads(op: Op, clause: Clause) -> Iterator[Reg]:
    match op:
        case Bin(left=left, right=right) | Cmp(left=left, right=right) | StrCmp(left=left, right=right):
            yield from (left, right)
        case Ext(src=src) | StoreVar(src=src):
            yield src
        case Emit(field=field, src=src):
            if clause.record is not None and clause.record.fields[field].kind != "probe":
                yield src
        case Aggregate(keys=keys, value=value):
            yield from (reg for reg in (*keys, value) if reg is not None)
        case _:
            pass


def idle_registers(clause: Clause) -> frozenset[Reg]:
    """Registers that are filled with a probe's name and then read by nothing but a ``probe`` field."""
    used = {reg for block in clause.blocks for op in block.ops for reg in _reads(op, clause)}
    used |= {block.end.cond for block in clause.blocks if isinstance(block.end, Branch)}
    named = {op.dst for block in clause.blocks for op in block.ops if isinstance(op, Builtin) and _is_name(op.name)}
    return frozenset(named - used)


def _is_name(builtin: str) -> bool:
    info = BUILTINS[builtin]
    return info.per_probe and info.kind == "string"


def program_demand(program: Program) -> Demand:
    """What the clauses of a program ask of the data memory."""
    constants: set[bytes] = set()
    site_table = names = False
    for clause in program.clauses:
        idle = idle_registers(clause)
        for op in (op for block in clause.blocks for op in block.ops):
            match op:
                case Str(value=value):
                    constants.add(value)
                case Builtin(name=name, dst=dst) if BUILTINS[name].per_probe and dst not in idle:
                    site_table = True
                    names = names or _is_name(name)
                case Arg(index=0):
                    site_table = True
                case _:
                    pass
    return Demand(tuple(sorted(constants)), site_table, names)
