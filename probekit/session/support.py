"""What an engine does not have yet is refused by name before anything is touched, never approximated."""

from __future__ import annotations

from probekit.buffers import actions as acts
from probekit.codegen.support import missing
from probekit.enabling.ecb import Matching
from probekit.errors import UnsupportedError
from probekit.ir.ops import Aggregate, Clause, Program

__all__ = ("refuse_for_guest",)

_COMMON = (acts.Trace, acts.Printf, acts.Exit, acts.Default, acts.Printa, acts.Clear, acts.Trunc)
_ON_HOST = (acts.Normalize, acts.Denormalize, acts.Setopt, acts.System, acts.Freopen, acts.Ftruncate, acts.Symbol)
_READ = (*_COMMON, *_ON_HOST)
"""Actions that need nothing where the clause runs but a record."""

_GUEST_FUNCTIONS = frozenset(("count", "sum", "avg", "min", "max", "quantize"))
_FIELDS = frozenset(("int", "uint", "string", "probe"))


def refuse_for_guest(program: Program, matching: Matching, engine: str) -> None:
    """Raise :class:`UnsupportedError` when a clause of a guest probe asks for more than ``engine`` has."""
    used = {number for ecb in matching.of_kind("entry", "return") for number in ecb.clauses}
    for number in sorted(used):
        clause = program.clauses[number]
        for what in _missing(program, clause, engine):
            message = f"line {clause.line}: {what} in the guest is not implemented yet"
            raise UnsupportedError(message, feature=what, hint="--engine stop may have it" if engine == "guest" else "")


def _missing(program: Program, clause: Clause, engine: str) -> list[str]:
    found: list[str] = missing(clause, program) if engine == "guest" else []
    for action in clause.record.actions if clause.record is not None else ():
        if not isinstance(action, _READ):
            found.append(f"{type(action).__name__.lower()}()")
        elif isinstance(action, acts.Clear | acts.Trunc) and program.aggregations[action.agg].func in ("min", "max"):
            found.append(f"{type(action).__name__.lower()}() of a min() or max()")
    for field in clause.record.fields if clause.record is not None else ():
        if field.kind not in _FIELDS:
            found.append(f"recording {field.kind}")
    for block in clause.blocks:
        for op in block.ops:
            if engine == "guest" and isinstance(op, Aggregate):
                func = program.aggregations[op.agg].func
                found += [f"{func}()"] if func not in _GUEST_FUNCTIONS else []
    return found
