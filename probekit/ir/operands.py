"""What each operation reads and writes: one table for verifier, printer and code generators.

operands(Cmp(2, EQ, 0, 1))  ->  Operands(dst=2, kind="int", sources=((0, "int"), (1, "int")))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, assert_never

from probekit.ir import ops
from probekit.ir.ops import BUILTINS, Op, Program, Reg

__all__ = ("Kind", "Operands", "operands")

Kind = Literal["int", "string"]


@dataclass(frozen=True, slots=True)
class Operands:
    """``dst``: the register written, of ``kind``, or None. ``sources``: registers read, with the kinds they must have.

    A kind of None means that something else decides (a record's field, an aggregation's key).
    """

    dst: Reg | None
    kind: Kind | None
    sources: tuple[tuple[Reg, Kind | None], ...] = ()


def operands(op: Op, program: Program) -> Operands:
    """The registers of one operation. Variables and built-ins must exist."""
    match op:
        case ops.Int() | ops.Arg():
            return Operands(op.dst, "int")
        case ops.Str():
            return Operands(op.dst, "string")
        case ops.Builtin():
            return Operands(op.dst, BUILTINS[op.name].kind)
        case ops.Bin() | ops.Cmp():
            return Operands(op.dst, "int", ((op.left, "int"), (op.right, "int")))
        case ops.StrCmp():
            return Operands(op.dst, "int", ((op.left, "string"), (op.right, "string")))
        case ops.Ext():
            return Operands(op.dst, "int", ((op.src, "int"),))
        case ops.LoadVar():
            return Operands(op.dst, program.variables[op.var].kind)
        case ops.StoreVar():
            return Operands(None, None, ((op.src, program.variables[op.var].kind),))
        case ops.Emit():
            return Operands(None, None, ((op.src, None),))
        case ops.Aggregate():
            keys: list[tuple[Reg, Kind | None]] = [(key, None) for key in op.keys if key is not None]
            value: list[tuple[Reg, Kind | None]] = [] if op.value is None else [(op.value, "int")]
            return Operands(None, None, (*keys, *value))
        case _:
            assert_never(op)
