"""A thunk's frame below ``rbp``: registers, clause-local variables, key scratch, the open record.

rsp + 0                    registers of the clause that runs, 8 bytes each, of those that need a slot
    + locals               this-> variables, shared by the clauses of one firing
    + key                  the aggregation key being built
    + record               address of the open record
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from probekit.codegen.context import ProbeKind
from probekit.codegen.values import plan_values
from probekit.ir.ops import Clause, LoadVar, StoreVar, Variable

__all__ = ("MAX_FRAME", "Frame", "plan_frame")

MAX_FRAME = 2048
"""Bytes of kernel stack that one firing may use below its saved registers."""

_WORD = 8


@dataclass(frozen=True, slots=True)
class Frame:
    """Offsets from ``rsp`` in bytes. ``local_slots``: variable index to its offset."""

    size: int
    local_slots: dict[int, int]
    key: int
    record: int


def plan_frame(clauses: Sequence[Clause], kind: ProbeKind, variables: Sequence[Variable], key_words: int) -> Frame:
    """The frame that serves all of ``clauses``. ``key_words``: of the longest aggregation key they use."""
    offset = max((len(plan_values(c, kind).slots) for c in clauses), default=0) * _WORD
    used = {op.var for c in clauses for block in c.blocks for op in block.ops if isinstance(op, (LoadVar, StoreVar))}
    local_slots: dict[int, int] = {}
    for variable in variables:
        if variable.scope == "local" and variable.index in used:
            local_slots[variable.index] = offset
            offset += _WORD
    key = offset
    record = key + key_words * _WORD
    return Frame(size=-(-(record + _WORD) // 16) * 16, local_slots=local_slots, key=key, record=record)
