"""One clause as assembly: every op works through ``rax`` and friends; jumps only go forward.

r2 = cmp slt r0, r1     mov rax, [rsp]; cmp rax, [rsp+8]; setl al; movzx eax, al; mov [rsp+0x10], rax
r2 = cmp slt r0, r1     mov rax, [rsp]; cmp rax, [rsp+8]; jge b2          when only a branch reads r2
branch r2, b1, b2
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeGuard, assert_never

from probekit.buffers.layout import FaultKind
from probekit.codegen import costs
from probekit.codegen.aggregate import aggregate
from probekit.codegen.arithmetic import CONDITIONS, OPPOSITE, binary, compare, extend, truth_value
from probekit.codegen.builtin_vars import argument, builtin
from probekit.codegen.calls import GUEST_CALLS, call
from probekit.codegen.context import Context
from probekit.codegen.emit_context import EmitContext
from probekit.codegen.frame import Frame
from probekit.codegen.memory import memory_op, variable_op
from probekit.codegen.operands import Operands
from probekit.codegen.record import RecordEmitter
from probekit.codegen.reg_alloc import ProbeKind, plan_values
from probekit.codegen.runtime.registry import Routines
from probekit.codegen.supported import describe
from probekit.errors import UnsupportedError
from probekit.ir.ops import (
    Aggregate,
    Arg,
    Bin,
    Branch,
    Builtin,
    Call,
    Clause,
    Cmp,
    Copy,
    CopyMem,
    ElemAddr,
    Emit,
    EmitMem,
    Ext,
    Int,
    Jump,
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
    StrAddr,
    StrCmp,
    Terminator,
    VarAddr,
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

    ``kind``: what the probed sites are, for the arguments. ``label``: begins all of its labels. ``leave``: the label
    where the firing ends.
    """

    def __init__(
        self,
        clause: Clause,
        *,
        kind: ProbeKind,
        context: Context,
        frame: Frame,
        routines: Routines,
        label: str,
        leave: str,
    ) -> None:
        self._clause = clause
        self._context = context
        self._frame = frame
        self._label = label
        self._serial = 0
        self._values = plan_values(clause, kind, context.program)
        self._operands = Operands(self._values, context, kind)
        self._emit = EmitContext(context, self._operands, routines, self._unique, self._fault)
        self._record = RecordEmitter(clause, self._emit, slot=frame.record, label=label, leave=leave)
        self._place = 0  # of the operation in its block
        self._actions = 0  # how many have begun
        self._begun = [0] * len(clause.blocks)  # the same at the start of each block: all ways there have as many
        self._fault_labels: dict[tuple[FaultKind | None, int, int], str] = {}
        self._flags: str | None = (
            None  # the condition in which a comparison for the branch behind it has left the flags
        )

    def lines(self) -> Iterator[str]:
        """The clause; control leaves at its end. A fault jumps to the same end."""
        yield from costs.begin(self._clause.index, self._context, self._frame, self._label)
        yield from self._record.prepare()
        if self._context.scratch.memory_size:
            yield f"lea rax, {self._context.in_scratch(self._context.scratch.memory)}"
            yield f"mov qword ptr {self._context.in_scratch(self._context.scratch.free)}, rax"
        for index in range(len(self._clause.blocks)):
            yield from self._block(index)
        yield from self._record.close()
        yield from self._record.faults(self._fault_labels)
        yield f"{self._label}_end:"
        yield from costs.end(self._clause.index, self._context, self._frame, self._label)

    def _block(self, index: int) -> Iterator[str]:
        block = self._clause.blocks[index]
        self._operands.held = self._flags = None
        self._actions = self._begun[index]
        yield f"{self._label}_b{index}:"
        if index == self._clause.body:
            yield from self._record.open()
        ops = [(place, op) for place, op in enumerate(block.ops) if self._values.has_code(op)]
        for place, op in ops:
            self._place = place
            if op is ops[-1][1] and self._decides(op, block.end):
                yield from compare(op, self._emit)
                self._flags = CONDITIONS[op.op]
            else:
                yield from self._op(op)
            if isinstance(op, Emit | EmitMem):
                self._actions += 1
        for target in _targets(block.end):
            self._begun[target] = self._actions
        yield from self._terminator(block.end, index)

    def _decides(self, op: Op, end: Terminator) -> TypeGuard[Cmp | StrCmp]:
        """True for a comparison that only the branch behind it reads."""
        return (
            isinstance(op, (Cmp, StrCmp))
            and isinstance(end, Branch)
            and op.dst == end.cond
            and op.dst not in self._values.slots
        )

    def _unique(self) -> str:
        self._serial += 1
        return f"{self._label}_u{self._serial}"

    def _op(self, op: Op) -> Iterator[str]:
        operands = self._operands
        match op:
            case Int(dst=dst, value=value):
                yield f"mov rax, {value & _MASK:#x}"
                yield from operands.set(dst)
            case Str(dst=dst, value=value):
                yield f"mov rax, {self._context.strings + self._context.constants[value]:#x}"
                yield from operands.set(dst)
            case Arg():
                yield from argument(op, self._emit)
            case Builtin():
                yield from builtin(op, self._clause.index, self._emit)
            case Bin():
                yield from binary(op, self._emit)
            case Cmp() | StrCmp():
                yield from truth_value(op, self._emit)
            case Ext():
                yield from extend(op, self._emit)
            case LoadVar() | StoreVar() | VarAddr() | LoadElem() | StoreElem() | ElemAddr():
                yield from variable_op(op, self._emit, self._frame.local_slots)
            case LoadMem() | StoreMem() | LoadStr() | StoreStr() | StrAddr() | CopyMem() | Copy():
                yield from memory_op(op, self._emit)
            case Call(name=name) if name in GUEST_CALLS:
                yield from call(op, self._emit)
            case Emit():
                yield from self._record.field(op)
            case EmitMem():
                yield from self._record.memory_field(op)
            case Aggregate():
                yield from aggregate(op, self._emit)
                operands.held = None
            case _:
                what = describe(op)
                raise UnsupportedError(f"{what} in the guest is not implemented yet", feature=what)

    def _terminator(self, end: Terminator, index: int) -> Iterator[str]:
        """Go on: nothing is said where control falls into the block that is meant."""
        match end:
            case Jump(target=target):
                if target != index + 1:
                    yield f"jmp {self._label}_b{target}"
            case Branch(cond=cond, then=then, orelse=orelse):
                condition = self._flags or "ne"
                if self._flags is None:
                    yield from self._operands.take("rax", cond)
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

    def _fault(self, kind: FaultKind | None) -> str:
        """The label where a fault of the operation at hand goes; ``rax`` there is the word at fault."""
        key = (kind, self._actions, self._place)
        return self._fault_labels.setdefault(key, f"{self._label}_f{len(self._fault_labels)}")
