"""Find what the code generator does not have. A clause that asks for it is refused before anything is touched.

unsupported_features(clause)   ->  ["the built-in variable ucaller"]
"""

from __future__ import annotations

from probekit.codegen.builtin_vars import TASK_STRINGS
from probekit.codegen.calls import GUEST_SUBROUTINES
from probekit.codegen.reg_alloc import REMATERIALIZED_BUILTINS
from probekit.ir import ops
from probekit.ir.names import BUILTINS
from probekit.ir.ops import Clause, Op

__all__ = ("GUEST_BUILTINS", "describe_op", "unsupported_features")

GUEST_BUILTINS = frozenset(
    (
        *REMATERIALIZED_BUILTINS,
        *(name for name, info in BUILTINS.items() if info.per_probe),
        *TASK_STRINGS,
        *("curabi", "epid", "errno", "stackdepth", "timestamp", "vtimestamp", "walltimestamp"),
    )
)
"""The built-in variables that code in the guest has. It has all operations."""


def describe_op(op: Op) -> str:
    """Name an operation that code in the guest does not have, in the user's words."""
    match op:
        case ops.CallSubroutine(name=name):
            return f"the subroutine {name}()"
        case ops.LoadBuiltin(name=name):
            return f"the built-in variable {name}"
        case _:
            return type(op).__name__


def unsupported_features(clause: Clause) -> list[str]:
    """Name what a clause asks for that the code generator does not have, each once, in order; empty when nothing."""
    found: dict[str, None] = {}
    for op in (op for block in clause.blocks for op in block.ops):
        match op:
            case ops.CallSubroutine(name=name) if name not in GUEST_SUBROUTINES:
                found[describe_op(op)] = None
            case ops.LoadBuiltin(name=name) if name not in GUEST_BUILTINS:
                found[describe_op(op)] = None
            case _:
                pass
    return list(found)
