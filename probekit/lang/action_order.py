"""Check the order of the actions in a clause that commits or speculates.

A clause's record goes either to the principal buffer or to one speculation. So ``speculate()`` comes before all
recording, and ``commit()`` stands in a clause that records nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from probekit.lang import typed
from probekit.lang.builtins import DESTRUCTIVE
from probekit.lang.diagnostics import refuse
from probekit.lang.source import Span
from probekit.lang.typed import TypedStatement
from probekit.records import mutable_record

__all__ = ("check_order",)


@mutable_record
class _Seen:
    """What the statements so far have done."""

    recorded: bool = False
    committed: bool = False
    speculated: bool = False


def check_order(statements: Iterable[tuple[TypedStatement, Span]]) -> None:
    """Refuse a clause whose actions cannot stand in this order. Raises :class:`Refusal`."""
    seen = _Seen()
    for statement, span in statements:
        _check(statement, span, seen)


def _check(statement: TypedStatement, span: Span, seen: _Seen) -> None:
    match statement:
        case typed.AggregationUpdate():
            if seen.committed:
                raise refuse("D_AGG_COMM", span, "an aggregation cannot follow commit()")
            if seen.speculated:
                raise refuse("D_AGG_SPEC", span, "an aggregation cannot follow speculate()")
            seen.recorded = True
        case typed.ActionCall(action="commit"):
            if seen.committed:
                raise refuse("D_COMM_COMM", span, "commit() cannot follow commit()")
            if seen.recorded:
                raise refuse("D_COMM_DREC", span, "commit() cannot follow what records data")
            seen.committed = True
        case typed.ActionCall(action="speculate"):
            if seen.speculated:
                raise refuse("D_SPEC_SPEC", span, "speculate() cannot follow speculate()")
            if seen.committed:
                raise refuse("D_SPEC_COMM", span, "speculate() cannot follow commit()")
            if seen.recorded:
                raise refuse("D_SPEC_DREC", span, "speculate() cannot follow what records data")
            seen.speculated = True
        case typed.ActionCall(action="discard"):
            pass
        case typed.ActionCall(action=name):
            if seen.speculated and name in DESTRUCTIVE:
                raise refuse("D_ACT_SPEC", span, f"{name}() cannot follow speculate()")
            if seen.speculated and name == "exit":
                raise refuse("D_EXIT_SPEC", span, "exit() cannot follow speculate()")
            if name in DESTRUCTIVE:
                return
            if seen.committed and statement.records:
                raise refuse("D_DREC_COMM", span, f"{name}() records data and cannot follow commit()")
            seen.recorded = seen.recorded or (statement.records and not seen.speculated)
        case _:
            pass
