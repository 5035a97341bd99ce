"""Which programs need ``-w``: those that change more than their own output."""

from __future__ import annotations

from probekit.buffers import actions as acts
from probekit.ir.ops import Program

__all__ = ("destructive_action",)

_DESTRUCTIVE = (acts.System, acts.Freopen, acts.Raise, acts.Stop, acts.Panic, acts.Breakpoint, acts.Chill)


def destructive_action(program: Program) -> str:
    """The name of the first destructive action of a program, or nothing."""
    for clause in program.clauses:
        for action in clause.record.actions if clause.record is not None else ():
            if isinstance(action, _DESTRUCTIVE):
                return type(action).__name__.lower()
    return ""
