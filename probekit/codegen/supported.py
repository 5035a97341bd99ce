"""What the code generator has: a clause with anything else is refused by name, before anything is touched.

missing(clause, program)   ->  ["the subroutine json()"]
"""

from __future__ import annotations

from probekit.codegen.builtin_vars import TASK_TEXTS
from probekit.codegen.calls import GUEST_CALLS
from probekit.codegen.reg_alloc import FACTS
from probekit.ir import ops
from probekit.ir.names import BUILTINS
from probekit.ir.ops import Clause, Op

__all__ = ("GUEST_BUILTINS", "describe", "missing")

GUEST_BUILTINS = frozenset(
    (
        *FACTS,
        *(name for name, info in BUILTINS.items() if info.per_probe),
        *TASK_TEXTS,
        *("epid", "errno", "stackdepth", "timestamp", "vtimestamp", "walltimestamp"),
    )
)
"""The built-in variables that code in the guest has. Of operations it has all."""


def describe(op: Op) -> str:
    """An operation that the guest does not have, in the user's words."""
    match op:
        case ops.Call(name=name):
            return f"the subroutine {name}()"
        case ops.Builtin(name=name):
            return f"the built-in variable {name}"
        case _:
            return type(op).__name__


def missing(clause: Clause) -> list[str]:
    """What a clause asks for that the code generator does not have; empty when it can be compiled."""
    found: dict[str, None] = {}
    for op in (op for block in clause.blocks for op in block.ops):
        match op:
            case ops.Call(name=name) if name not in GUEST_CALLS:
                found[describe(op)] = None
            case ops.Builtin(name=name) if name not in GUEST_BUILTINS:
                found[describe(op)] = None
            case _:
                pass
    return list(found)
