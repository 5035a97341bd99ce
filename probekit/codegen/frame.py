"""Plan a thunk's frame below ``rbp``: the clause's registers, its clause-local integers, the open record.

    rsp + 0                the registers of the running clause that need a slot, 8 bytes each
        + locals           integers of this->, shared by the clauses of one firing
        + record           address of the open record
        + clock            when the clause began, where that is measured

Keys, strings and whatever else may be long are in the CPU's scratch memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from probekit.codegen.reg_alloc import FiringKind, allocate_registers
from probekit.ir.ops import Clause, LoadVar, Program, StoreVar

__all__ = (
    "ARG_FRAME",
    "FRAME_CALLER",
    "FRAME_FLAGS",
    "FRAME_RAX",
    "FRAME_SITE",
    "FRAME_STACK_ARGS",
    "MAX_FRAME",
    "OPTIONAL_REGISTERS",
    "SAVED_REGISTERS",
    "Frame",
    "plan_frame",
)

SAVED_REGISTERS = ("rax", "rcx", "rdx", "rsi", "rdi", "rbx", "rbp")
"""The registers that every thunk pushes, in this order, after the flags."""
OPTIONAL_REGISTERS = ("r8", "r9", "r10", "r11")
"""The registers that a thunk pushes below ``rbp``: as many of them as its code uses."""
ARG_FRAME = (16, 24, 32, 40, -8, -16)
"""The ``rbp`` offsets of the argument registers rdi rsi rdx rcx r8 r9 (System V ABI)."""
FRAME_RAX = 48
FRAME_FLAGS = 56
FRAME_SITE = 72
FRAME_CALLER = 80
"""The ``rbp`` offset of the probed function's return address, at its entry and where it returns."""
FRAME_STACK_ARGS = 88
"""The ``rbp`` offset of the seventh argument at a function's entry, right above the return address."""

MAX_FRAME = 2048
"""The most bytes of kernel stack that one firing may use below its saved registers."""

_WORD = 8


@dataclass(frozen=True, slots=True)
class Frame:
    """Where everything is in a frame: offsets from ``rsp`` in bytes."""

    size: int
    """Bytes of the whole frame, a multiple of 16."""
    local_slots: dict[int, int]
    """The offset of each clause-local integer, by the variable's index."""
    record: int
    """The offset of the open record's address."""
    clock: int
    """The offset of the time when the clause began; past the frame where nothing is measured."""


def plan_frame(clauses: Sequence[Clause], kind: FiringKind, program: Program, *, measured: bool = False) -> Frame:
    """Return the frame that serves all of ``clauses``. ``measured``: their time is taken."""
    offset = max((len(allocate_registers(c, kind, program).slots) for c in clauses), default=0) * _WORD
    used = {op.var for c in clauses for block in c.blocks for op in block.ops if isinstance(op, (LoadVar, StoreVar))}
    local_slots: dict[int, int] = {}
    for variable in program.variables:
        if variable.scope == "local" and variable.kind == "int" and variable.index in used:
            local_slots[variable.index] = offset
            offset += _WORD
    size = offset + (2 * _WORD if measured else _WORD)
    return Frame(size=-(-size // 16) * 16, local_slots=local_slots, record=offset, clock=offset + _WORD)
