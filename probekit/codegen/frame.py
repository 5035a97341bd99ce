"""A thunk's frame below ``rbp``: virtual registers, clause-local variables, key scratch, the open record.

rsp + 0                    virtual registers of the clause that runs, 8 bytes each
    + locals               this-> variables, shared by the clauses of one firing
    + key                  the aggregation key being built
    + record               address of the open record
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from probekit.ir.ops import Clause, Variable

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

    def reg(self, reg: int) -> str:
        """The operand of a virtual register."""
        return f"qword ptr [rsp + {reg * _WORD:#x}]"


def plan_frame(clauses: Sequence[Clause], variables: Sequence[Variable], key_words: int) -> Frame:
    """The frame that serves all of ``clauses``. ``key_words``: of the longest aggregation key they use."""
    offset = max((c.registers for c in clauses), default=0) * _WORD
    local_slots: dict[int, int] = {}
    for variable in variables:
        if variable.scope == "local":
            local_slots[variable.index] = offset
            offset += _WORD
    key = offset
    record = key + key_words * _WORD
    return Frame(size=-(-(record + _WORD) // 16) * 16, local_slots=local_slots, key=key, record=record)
