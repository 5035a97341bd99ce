"""What each operation reads and writes: one table for verifier, printer and code generators.

operands(Cmp(2, EQ, 0, 1))  ->  Operands(dst=2, kind="int", sources=((0, "int"), (1, "int")))
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
    """``dst``: the register written, of ``kind``, or None. ``sources``: registers read, with the kinds they must have.

    A kind of None means that something else decides (a record's field, an aggregation's key).
    """

    dst: Reg | None
    kind: Kind | None
    sources: tuple[tuple[Reg, Kind | None], ...] = ()


def operands(op: Op, program: Program) -> RegisterUse:
    """The registers of one operation. Variables and built-ins must exist."""
    match op:
        case ops.Int() | ops.Arg():
            return RegisterUse(op.dst, "int")
        case ops.Str():
            return RegisterUse(op.dst, "string")
        case ops.Builtin():
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
        case ops.Aggregate():
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
    | ops.VarAddr
    | ops.LoadElem
    | ops.StoreElem
    | ops.ElemAddr
    | ops.LoadMem
    | ops.StoreMem
    | ops.LoadStr
    | ops.StoreStr
    | ops.StrAddr
    | ops.CopyMem
    | ops.Call,
    program: Program,
) -> RegisterUse:
    match op:
        case ops.Copy():
            return RegisterUse(op.dst, "string", ((op.src, "string"),))
        case ops.VarAddr():
            return RegisterUse(op.dst, "int")
        case ops.LoadElem():
            return RegisterUse(op.dst, _value_kind(program, op.var), _elem_keys(program, op.var, op.keys))
        case ops.StoreElem():
            keys = _elem_keys(program, op.var, op.keys)
            return RegisterUse(None, None, (*keys, (op.src, _value_kind(program, op.var))))
        case ops.ElemAddr():
            return RegisterUse(op.dst, "int", _elem_keys(program, op.var, op.keys))
        case ops.LoadMem():
            return RegisterUse(op.dst, "int", ((op.addr, "int"),))
        case ops.StoreMem():
            return RegisterUse(None, None, ((op.addr, "int"), (op.src, "int")))
        case ops.LoadStr():
            return RegisterUse(op.dst, "string", ((op.addr, "int"),))
        case ops.StoreStr():
            return RegisterUse(None, None, ((op.addr, "int"), (op.src, "string")))
        case ops.StrAddr():
            return RegisterUse(op.dst, "int", ((op.src, "string"),))
        case ops.CopyMem():
            return RegisterUse(None, None, ((op.target, "int"), (op.source, "int")))
        case ops.Call():
            info = CALLS[op.name]
            return RegisterUse(op.dst, info.kind, tuple(zip(op.args, _arg_kinds(op, info), strict=False)))
        case _:
            assert_never(op)


def _arg_kinds(op: ops.Call, info: CallInfo) -> tuple[Kind, ...]:
    # strtok() without its string goes on with the one before: the delimiters are all it takes then
    return info.args[1:] if op.name == "strtok" and len(op.args) == 1 else info.args
