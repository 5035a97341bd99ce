"""What a program's code needs at run time, before a byte of it is made.

A probe's name that is only recorded costs nothing in the guest: the consumer
knows the probe, nothing reads the register, and no code fills it.
"""

from __future__ import annotations

from dataclasses import dataclass

from probekit.codegen.values import dead_registers
from probekit.ir.ops import BUILTINS, Arg, Builtin, Program, Str

__all__ = ("Demand", "program_demand")


@dataclass(frozen=True, slots=True)
class Demand:
    """``constants``: string literals; ``site_table``: some clause reads it; ``names``: with the probes' names in it."""

    constants: tuple[bytes, ...]
    site_table: bool
    names: bool


def _is_name(builtin: str) -> bool:
    info = BUILTINS[builtin]
    return info.per_probe and info.kind == "string"


def program_demand(program: Program) -> Demand:
    """What the clauses of a program ask of the data memory."""
    constants: set[bytes] = set()
    site_table = names = False
    for clause in program.clauses:
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
                case _:
                    pass
    return Demand(tuple(sorted(constants)), site_table, names)
