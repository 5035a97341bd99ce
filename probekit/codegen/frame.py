"""A thunk's frame below ``rbp``: registers, clause-local variables, key scratch, the open record.

rsp + 0                    registers of the clause that runs, 8 bytes each, of those that need a slot
    + locals               integers of this->, shared by the clauses of one firing
    + record               address of the open record
    + clock                when the clause began, where that is measured

Keys, strings and whatever else may be long are in the CPU's scratch memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from probekit.codegen.reg_alloc import ProbeKind, plan_values
from probekit.ir.ops import Clause, LoadVar, Program, StoreVar

__all__ = (
    "ARG_FRAME",
    "FRAME_CALLER",
    "FRAME_FLAGS",
    "FRAME_RAX",
    "FRAME_SITE",
    "FRAME_STACK_ARGS",
    "MAX_FRAME",
    "SAVED",
    "SAVED_MORE",
    "Frame",
    "plan_frame",
)

SAVED = ("rax", "rcx", "rdx", "rsi", "rdi", "rbx", "rbp")
"""Pushed in this order behind the flags."""
SAVED_MORE = ("r8", "r9", "r10", "r11")
"""Pushed below ``rbp``, the first so many as something uses."""
ARG_FRAME = (16, 24, 32, 40, -8, -16)
"""rbp offsets of the System V argument registers rdi rsi rdx rcx r8 r9."""
FRAME_RAX = 48
FRAME_FLAGS = 56
FRAME_SITE = 72
FRAME_CALLER = 80
"""rbp offset of the probed function's return address, at its entry and where it returns."""
FRAME_STACK_ARGS = 88
"""rbp offset of the seventh argument at a function's entry: behind the return address at +80."""


MAX_FRAME = 2048
"""Bytes of kernel stack that one firing may use below its saved registers."""

_WORD = 8


@dataclass(frozen=True, slots=True)
class Frame:
    """Offsets from ``rsp`` in bytes. ``local_slots``: variable index to its offset."""

    size: int
    local_slots: dict[int, int]
    record: int
    clock: int


def plan_frame(clauses: Sequence[Clause], kind: ProbeKind, program: Program, *, measured: bool = False) -> Frame:
    """The frame that serves all of ``clauses``. ``measured``: their time is taken."""
    offset = max((len(plan_values(c, kind, program).slots) for c in clauses), default=0) * _WORD
    used = {op.var for c in clauses for block in c.blocks for op in block.ops if isinstance(op, (LoadVar, StoreVar))}
    local_slots: dict[int, int] = {}
    for variable in program.variables:
        if variable.scope == "local" and variable.kind == "int" and variable.index in used:
            local_slots[variable.index] = offset
            offset += _WORD
    size = offset + (2 * _WORD if measured else _WORD)
    return Frame(size=-(-size // 16) * 16, local_slots=local_slots, record=offset, clock=offset + _WORD)
