"""What the code generator has: a clause with anything else is refused by name, before anything is touched.

missing(clause, program)   ->  ["the subroutine strlen()"]
"""

from __future__ import annotations

from probekit.ir import ops
from probekit.ir.ops import Clause, Op, Program

__all__ = ("GUEST_OPS", "describe", "missing")

GUEST_OPS: frozenset[type[Op]] = frozenset(
    (
        *(ops.Int, ops.Str, ops.Arg, ops.Builtin, ops.Bin, ops.Cmp, ops.StrCmp, ops.Ext),
        *(ops.LoadVar, ops.StoreVar, ops.Emit, ops.Aggregate),
    )
)
"""The operations that become code in the guest."""

_BUILTINS = frozenset(
    ("cpu", "epid", "execname", "id", "pid", "probefunc", "probemod", "probename", "probeprov", "tid", "timestamp")
)

_NAMES: dict[type[Op], str] = {
    ops.Copy: "a string that is worked out once and used twice",
    ops.CopyMem: "copying a struct or array",
    ops.ElemAddr: "an associative array of structs",
    ops.EmitMem: "recording memory",
    ops.LoadElem: "an associative array",
    ops.LoadMem: "reading through a pointer",
    ops.LoadStr: "reading a string through a pointer",
    ops.StoreElem: "an associative array",
    ops.StoreMem: "writing through a pointer",
    ops.StoreStr: "writing a string to memory",
    ops.StrAddr: "the address of a string",
    ops.VarAddr: "a struct or array variable",
}


def describe(op: Op) -> str:
    """An operation that the guest does not have, in the user's words."""
    return f"the subroutine {op.name}()" if isinstance(op, ops.Call) else _NAMES.get(type(op), type(op).__name__)


def missing(clause: Clause, program: Program) -> list[str]:
    """What a clause asks for that the code generator does not have; empty when it can be compiled."""
    found: dict[str, None] = {}
    for op in (op for block in clause.blocks for op in block.ops):
        if (what := _missing(op, program)) is not None:
            found[what] = None
    return list(found)


def _missing(op: Op, program: Program) -> str | None:
    if type(op) not in GUEST_OPS:
        return describe(op)
    match op:
        case ops.LoadVar(var=var) | ops.StoreVar(var=var):
            variable = program.variables[var]
            if variable.kind != "int":
                return f"the {variable.kind} variable {variable.name}"
            if variable.scope == "self":
                return f"the thread-local variable self->{variable.name}"
        case ops.Builtin(name=name) if name not in _BUILTINS:
            return f"the built-in variable {name}"
        case ops.Aggregate(weight=weight) if weight is not None:
            return "an increment of a histogram"
        case _:
            pass
    return None
