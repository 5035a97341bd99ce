"""Say which registers each operation reads and writes: one table for the verifier and the other passes.

operands(Cmp(2, EQ, 0, 1))  ->  RegisterUse(dst=2, kind="int", sources=((0, "int"), (1, "int")))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from probekit.ir import ops
from probekit.ir.names import BUILTINS, CALLS, CallInfo
from probekit.ir.ops import Kind, Op, Program, Reg

__all__ = ("Kind", "RegisterUse", "operands")


@dataclass(frozen=True, slots=True)
class RegisterUse:
    """The registers that one operation reads and writes."""

    dst: Reg | None
    """The register that it writes, or None."""
    kind: Kind | None
    """The kind of that register."""
    sources: tuple[tuple[Reg, Kind | None], ...] = ()
    """The registers that it reads, with the kinds they must have.

    None says that a record's field, or a part of an aggregation's key, decides.
    """


def operands(op: Op, program: Program) -> RegisterUse:
    """Return the registers of one operation. Its variables, built-ins and subroutines must exist."""
    match op:
        case ops.Int() | ops.LoadArg():
            return RegisterUse(op.dst, "int")
        case ops.Str():
            return RegisterUse(op.dst, "string")
        case ops.LoadBuiltin():
            return RegisterUse(op.dst, BUILTINS[op.name].kind)
        case ops.Bin() | ops.Cmp():
            return RegisterUse(op.dst, "int", ((op.left, "int"), (op.right, "int")))
        case ops.StrCmp():
            return RegisterUse(op.dst, "int", ((op.left, "string"), (op.right, "string")))
        case ops.Ext():
            return RegisterUse(op.dst, "int", ((op.src, "int"),))
        case ops.LoadVar():
            return RegisterUse(op.dst, _value_kind(program, op.var))
        case ops.StoreVar():
            return RegisterUse(None, None, ((op.src, _value_kind(program, op.var)),))
        case ops.Emit():
            return RegisterUse(None, None, ((op.src, None),))
        case ops.EmitMem():
            return RegisterUse(None, None, ((op.addr, "int"),))
        case ops.UpdateAgg():
            keys: list[tuple[Reg, Kind | None]] = [(key, None) for key in op.keys if key is not None]
            value: list[tuple[Reg, Kind | None]] = [] if op.value is None else [(op.value, "int")]
            weight: list[tuple[Reg, Kind | None]] = [] if op.weight is None else [(op.weight, "int")]
            return RegisterUse(None, None, (*keys, *value, *weight))
        case _:
            return _memory(op, program)


def _value_kind(program: Program, var: int) -> Kind:
    return "string" if program.variables[var].kind == "string" else "int"


def _elem_keys(program: Program, var: int, keys: tuple[Reg, ...]) -> tuple[tuple[Reg, Kind | None], ...]:
    kinds = program.variables[var].keys or ()
    return tuple(zip(keys, kinds, strict=False))


def _memory(
    op: ops.Copy
    | ops.VarAddress
    | ops.LoadElem
    | ops.StoreElem
    | ops.ElemAddress
    | ops.LoadMem
    | ops.StoreMem
    | ops.LoadStr
    | ops.StoreStr
    | ops.StrAddress
    | ops.CopyMem
    | ops.CallSubroutine,
    program: Program,
) -> RegisterUse:
    match op:
        case ops.Copy():
            return RegisterUse(op.dst, "string", ((op.src, "string"),))
        case ops.VarAddress():
            return RegisterUse(op.dst, "int")
        case ops.LoadElem():
            return RegisterUse(op.dst, _value_kind(program, op.var), _elem_keys(program, op.var, op.keys))
        case ops.StoreElem():
            keys = _elem_keys(program, op.var, op.keys)
            return RegisterUse(None, None, (*keys, (op.src, _value_kind(program, op.var))))
        case ops.ElemAddress():
            return RegisterUse(op.dst, "int", _elem_keys(program, op.var, op.keys))
        case ops.LoadMem():
            return RegisterUse(op.dst, "int", ((op.addr, "int"),))
        case ops.StoreMem():
            return RegisterUse(None, None, ((op.addr, "int"), (op.src, "int")))
        case ops.LoadStr():
            return RegisterUse(op.dst, "string", ((op.addr, "int"),))
        case ops.StoreStr():
            return RegisterUse(None, None, ((op.addr, "int"), (op.src, "string")))
        case ops.StrAddress():
            return RegisterUse(op.dst, "int", ((op.src, "string"),))
        case ops.CopyMem():
            return RegisterUse(None, None, ((op.target, "int"), (op.source, "int")))
        case ops.CallSubroutine():
            info = CALLS[op.name]
            return RegisterUse(op.dst, info.kind, tuple(zip(op.args, _arg_kinds(op, info), strict=False)))
        case _:
            assert_never(op)


def _arg_kinds(op: ops.CallSubroutine, info: CallInfo) -> tuple[Kind, ...]:
    # strtok() without a string goes on with the one before: then it only takes the delimiters.
    return info.args[1:] if op.name == "strtok" and len(op.args) == 1 else info.args
