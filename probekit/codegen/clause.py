"""Write one clause as assembly. Every operation works through ``rax`` and a few others; jumps only go forward.

r2 = cmp slt r0, r1     mov rax, [rsp]; cmp rax, [rsp+8]; setl al; movzx eax, al; mov [rsp+0x10], rax
r2 = cmp slt r0, r1     mov rax, [rsp]; cmp rax, [rsp+8]; jge b2          when only a branch reads r2
branch r2, b1, b2
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeGuard, assert_never

from probekit.buffers.layout import FaultKind
from probekit.codegen import costs
from probekit.codegen.aggregate import update_agg
from probekit.codegen.arithmetic import CONDITIONS, OPPOSITE, binary, compare, compare_to_bool, extend
from probekit.codegen.builtin_vars import argument, builtin
from probekit.codegen.calls import GUEST_SUBROUTINES, call_subroutine
from probekit.codegen.context import CodegenContext
from probekit.codegen.emit_context import EmitContext
from probekit.codegen.frame import Frame
from probekit.codegen.memory import memory_op, variable_op
from probekit.codegen.operands import OperandEmitter
from probekit.codegen.record import RecordEmitter
from probekit.codegen.reg_alloc import FiringKind, allocate_registers
from probekit.codegen.runtime.registry import AddressOf
from probekit.codegen.supported import describe_op
from probekit.errors import UnsupportedError
from probekit.ir.ops import (
    Bin,
    Branch,
    CallSubroutine,
    Clause,
    Cmp,
    Copy,
    CopyMem,
    ElemAddress,
    Emit,
    EmitMem,
    Ext,
    Int,
    Jump,
    LoadArg,
    LoadBuiltin,
    LoadElem,
    LoadMem,
    LoadStr,
    LoadVar,
    Op,
    Return,
    StoreElem,
    StoreMem,
    StoreStr,
    StoreVar,
    Str,
    StrAddress,
    StrCmp,
    Terminator,
    UpdateAgg,
    VarAddress,
)

__all__ = ("ClauseEmitter",)

_MASK = (1 << 64) - 1


def _targets(end: Terminator) -> tuple[int, ...]:
    match end:
        case Jump(target=target):
            return (target,)
        case Branch(then=then, orelse=orelse):
            return (then, orelse)
        case _:
            return ()


class ClauseEmitter:
    """Writes the assembly of one clause into one thunk.

    ``kind``: what the probed sites are. ``frame``: the thunk's. ``label``: what all labels of the clause begin with.
    ``leave``: the label where the firing ends.
    """

    def __init__(
        self,
        clause: Clause,
        *,
        kind: FiringKind,
        context: CodegenContext,
        frame: Frame,
        address_of: AddressOf,
        label: str,
        leave: str,
    ) -> None:
        self._clause = clause
        self._context = context
        self._frame = frame
        self._label = label
        self._labels_made = 0
        self._allocation = allocate_registers(clause, kind, context.program)
        self._operands = OperandEmitter(self._allocation, context, kind)
        self._emit = EmitContext(context, self._operands, address_of, self._new_label, self._fault_label)
        self._record = RecordEmitter(clause, self._emit, slot=frame.record, label=label, leave=leave)
        self._op_index = 0  # of the operation in its block
        self._actions_begun = 0
        self._actions_at_block = [0] * len(clause.blocks)  # begun when a block starts: the same on every path to it
        self._fault_labels: dict[tuple[FaultKind | None, int, int], str] = {}
        self._flags: str | None = None  # the condition code that a comparison has left for the branch after it

    def lines(self) -> Iterator[str]:
        """Yield the lines of the clause. Control leaves at its end; a fault goes to the same end."""
        yield from costs.start_timing(self._clause.index, self._context, self._frame, self._label)
        yield from self._record.prepare()
        if self._context.scratch.alloca_size:
            yield f"lea rax, {self._context.in_scratch(self._context.scratch.alloca)}"
            yield f"mov qword ptr {self._context.in_scratch(self._context.scratch.alloca_next)}, rax"
        for index in range(len(self._clause.blocks)):
            yield from self._block(index)
        yield from self._record.close()
        yield from self._record.faults(self._fault_labels)
        yield f"{self._label}_end:"
        yield from costs.stop_timing(self._clause.index, self._context, self._frame, self._label)

    def _block(self, index: int) -> Iterator[str]:
        block = self._clause.blocks[index]
        self._operands.in_rax = self._flags = None
        self._actions_begun = self._actions_at_block[index]
        yield f"{self._label}_b{index}:"
        if index == self._clause.body:
            yield from self._record.open()
        ops = [(n, op) for n, op in enumerate(block.ops) if self._allocation.has_code(op)]
        for number, op in ops:
            self._op_index = number
            if op is ops[-1][1] and self._only_branch_reads(op, block.end):
                yield from compare(op, self._emit)
                self._flags = CONDITIONS[op.op]
            else:
                yield from self._op(op)
            if isinstance(op, Emit | EmitMem):
                self._actions_begun += 1
        for target in _targets(block.end):
            self._actions_at_block[target] = self._actions_begun
        yield from self._terminator(block.end, index)

    def _only_branch_reads(self, op: Op, end: Terminator) -> TypeGuard[Cmp | StrCmp]:
        """Return True for a comparison that only the branch at the block's end reads."""
        return (
            isinstance(op, (Cmp, StrCmp))
            and isinstance(end, Branch)
            and op.dst == end.cond
            and op.dst not in self._allocation.slots
        )

    def _new_label(self) -> str:
        self._labels_made += 1
        return f"{self._label}_u{self._labels_made}"

    def _op(self, op: Op) -> Iterator[str]:
        operands = self._operands
        match op:
            case Int(dst=dst, value=value):
                yield f"mov rax, {value & _MASK:#x}"
                yield from operands.set_from_rax(dst)
            case Str(dst=dst, value=value):
                yield f"mov rax, {self._context.string_pool + self._context.pool_offsets[value]:#x}"
                yield from operands.set_from_rax(dst)
            case LoadArg():
                yield from argument(op, self._emit)
            case LoadBuiltin():
                yield from builtin(op, self._clause.index, self._emit)
            case Bin():
                yield from binary(op, self._emit)
            case Cmp() | StrCmp():
                yield from compare_to_bool(op, self._emit)
            case Ext():
                yield from extend(op, self._emit)
            case LoadVar() | StoreVar() | VarAddress() | LoadElem() | StoreElem() | ElemAddress():
                yield from variable_op(op, self._emit, self._frame.local_slots)
            case LoadMem() | StoreMem() | LoadStr() | StoreStr() | StrAddress() | CopyMem() | Copy():
                yield from memory_op(op, self._emit)
            case CallSubroutine(name=name) if name in GUEST_SUBROUTINES:
                yield from call_subroutine(op, self._emit)
            case Emit():
                yield from self._record.field(op)
            case EmitMem():
                yield from self._record.memory_field(op)
            case UpdateAgg():
                yield from update_agg(op, self._emit)
                operands.in_rax = None
            case _:
                feature = describe_op(op)
                raise UnsupportedError(f"{feature} in the guest is not implemented yet", feature=feature)

    def _terminator(self, end: Terminator, index: int) -> Iterator[str]:
        """Go on to the next block: without a jump where control falls into it."""
        match end:
            case Jump(target=target):
                if target != index + 1:
                    yield f"jmp {self._label}_b{target}"
            case Branch(cond=cond, then=then, orelse=orelse):
                condition = self._flags or "ne"
                if self._flags is None:
                    yield from self._operands.load_first("rax", cond)
                    yield "test rax, rax"
                if then == index + 1:
                    yield f"j{OPPOSITE[condition]} {self._label}_b{orelse}"
                    return
                yield f"j{condition} {self._label}_b{then}"
                if orelse != index + 1:
                    yield f"jmp {self._label}_b{orelse}"
            case Return():
                if index != len(self._clause.blocks) - 1:
                    yield f"jmp {self._label}_return"
            case _:
                assert_never(end)

    def _fault_label(self, kind: FaultKind | None) -> str:
        key = (kind, self._actions_begun, self._op_index)
        return self._fault_labels.setdefault(key, f"{self._label}_f{len(self._fault_labels)}")
