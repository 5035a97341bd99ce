"""One clause as assembly: every op works through ``rax`` and friends; jumps only go forward.

r2 = cmp slt r0, r1     mov rax, [rsp]; cmp rax, [rsp+8]; setl al; movzx eax, al; mov [rsp+0x10], rax
r2 = cmp slt r0, r1     mov rax, [rsp]; cmp rax, [rsp+8]; jge b2          when only a branch reads r2
branch r2, b1, b2
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeGuard, assert_never

from probekit.buffers.actions import Exit, Field
from probekit.buffers.layout import RECORD_HEADER, FaultKind, HeaderWord
from probekit.codegen.aggregate import aggregate
from probekit.codegen.context import (
    FRAME_SITE,
    SITE_ENTRY_SIZE,
    SITE_FIELDS,
    Context,
    ProbeKind,
)
from probekit.codegen.frame import Frame
from probekit.codegen.operands import Operands
from probekit.codegen.routines import Routines
from probekit.codegen.runtime import header
from probekit.codegen.support import describe
from probekit.codegen.values import plan_values
from probekit.errors import UnsupportedError
from probekit.ir.ops import (
    BUILTINS,
    Aggregate,
    Arg,
    Bin,
    BinOp,
    Branch,
    Builtin,
    Clause,
    Cmp,
    CmpOp,
    Emit,
    Ext,
    Int,
    Jump,
    LoadVar,
    Op,
    Return,
    StoreVar,
    Str,
    StrCmp,
    Terminator,
)

__all__ = ("ClauseEmitter",)

_MASK = (1 << 64) - 1

_SIMPLE = {BinOp.ADD: "add", BinOp.SUB: "sub", BinOp.AND: "and", BinOp.OR: "or", BinOp.XOR: "xor", BinOp.MUL: "imul"}
_SHIFTS = {BinOp.SHL: "shl", BinOp.SAR: "sar", BinOp.SHR: "shr"}
_DIVISIONS = {BinOp.SDIV: "rax", BinOp.UDIV: "rax", BinOp.SREM: "rdx", BinOp.UREM: "rdx"}

_CONDITIONS = {
    CmpOp.EQ: "e",
    CmpOp.NE: "ne",
    CmpOp.SLT: "l",
    CmpOp.SLE: "le",
    CmpOp.SGT: "g",
    CmpOp.SGE: "ge",
    CmpOp.ULT: "b",
    CmpOp.ULE: "be",
    CmpOp.UGT: "a",
    CmpOp.UGE: "ae",
}
_OPPOSITE = {"e": "ne", "l": "ge", "le": "g", "b": "ae", "be": "a"}
_OPPOSITE |= {other: condition for condition, other in _OPPOSITE.items()}

_EXTEND = {
    (8, True): "movsx rax, al",
    (16, True): "movsx rax, ax",
    (32, True): "movsxd rax, eax",
    (8, False): "movzx eax, al",
    (16, False): "movzx eax, ax",
    (32, False): "mov eax, eax",
}

_LOW = {1: "mov byte ptr {}, al", 2: "mov word ptr {}, ax", 4: "mov dword ptr {}, eax"}


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
        self._kind = kind
        self._context = context
        self._frame = frame
        self._routines = routines
        self._label = label
        self._leave = leave
        self._serial = 0
        self._values = plan_values(clause, kind)
        self._operands = Operands(self._values, context, kind)
        self._flags: str | None = (
            None  # the condition in which a comparison for the branch behind it has left the flags
        )

    @property
    def _always_records(self) -> bool:
        """True when no predicate stands between the clause's start and its record."""
        return self._clause.body == 0

    def lines(self) -> Iterator[str]:
        """The clause; control leaves at its end. A fault jumps to the same end."""
        if self._clause.record is not None and not self._always_records:
            yield f"mov qword ptr [rsp + {self._frame.record:#x}], 0"
        for index in range(len(self._clause.blocks)):
            yield from self._block(index)
        yield from self._close_record()
        yield from self._faults()
        yield f"{self._label}_end:"

    def _block(self, index: int) -> Iterator[str]:
        block = self._clause.blocks[index]
        self._operands.held = self._flags = None
        yield f"{self._label}_b{index}:"
        if index == self._clause.body:
            yield from self._open_record()
        ops = [op for op in block.ops if self._values.has_code(op)]
        for op in ops:
            if op is ops[-1] and self._decides(op, block.end):
                yield from self._compare(op)
                self._flags = _CONDITIONS[op.op]
            else:
                yield from self._op(op)
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
            case Arg(dst=dst, index=index):
                yield from self._arg(index)
                yield from operands.set(dst)
            case Builtin(dst=dst, name=name):
                yield from self._builtin(name)
                yield from operands.set(dst)
            case Bin():
                yield from self._bin(op)
                yield from operands.set(op.dst)
            case Cmp(dst=dst) | StrCmp(dst=dst):
                yield from self._compare(op)
                yield from (f"set{_CONDITIONS[op.op]} al", "movzx eax, al")
                yield from operands.set(dst)
            case Ext(dst=dst, src=src, bits=bits, signed=signed):
                yield from operands.take("rax", src)
                yield _EXTEND[bits, signed]
                yield from operands.set(dst)
            case LoadVar(dst=dst, var=var):
                yield from self._variable(var)
                yield f"mov rax, qword ptr {self._variable_operand(var)}"
                yield from operands.set(dst)
            case StoreVar(var=var, src=src):
                yield from self._variable(var)
                yield from operands.store(self._variable_operand(var), src)
                operands.held = None
            case Emit(field=field, src=src):
                yield from self._emit(field, src)
                operands.held = None
            case Aggregate():
                yield from aggregate(op, self._context, self._frame, operands, self._routines, self._unique())
                operands.held = None
            case _:
                what = describe(op)
                raise UnsupportedError(f"{what} in the guest is not implemented yet", feature=what)

    def _compare(self, op: Cmp | StrCmp) -> Iterator[str]:
        """Set the flags for ``op.op``."""
        operands = self._operands
        if isinstance(op, Cmp):
            yield from operands.take("rax", op.left)
            yield from operands.right("cmp", op.right)
        else:
            yield from operands.take("rdi", op.left)
            yield from operands.load("rsi", op.right)
            yield f"call {self._routines.compare:#x}"
            yield "test eax, eax"

    def _arg(self, index: int) -> Iterator[str]:
        """rax = argN. At a return (FBT), arg0 is the exit's offset in the function."""
        if self._kind == "return" and index == 0:
            yield from self._site_field("offset")
        else:
            yield from self._operands.argument(index)

    def _site_field(self, field: str) -> Iterator[str]:
        """eax = a field of this site's entry in the site table."""
        yield f"mov eax, dword ptr [rbp + {FRAME_SITE}]"
        yield f"imul rax, rax, {SITE_ENTRY_SIZE}"
        yield f"mov rcx, {self._context.sites + SITE_FIELDS[field]:#x}"
        yield "mov eax, dword ptr [rcx + rax]"

    def _builtin(self, name: str) -> Iterator[str]:
        info = BUILTINS[name]
        if name == "id":
            yield from self._site_field("id")
        elif info.per_probe:
            yield from self._site_field(name)
            yield f"mov rcx, {self._context.strings:#x}"
            yield "add rax, rcx"
        elif name == "epid":
            yield f"mov eax, {self._clause.index + 1:#x}"
        elif name == "timestamp":
            if self._context.clock is None:
                raise UnsupportedError("this kernel has no clock that a probe may read", feature="timestamp")
            yield f"call {self._context.clock:#x}"
        else:
            yield from self._operands.fact(name)

    def _bin(self, op: Bin) -> Iterator[str]:
        operands = self._operands
        yield from operands.take("rax", op.left)
        if op.op in _SIMPLE:
            yield from operands.right(_SIMPLE[op.op], op.right)
        elif op.op in _SHIFTS:
            count = operands.constant(op.right)
            if count is not None:
                yield f"{_SHIFTS[op.op]} rax, {count & 63}"
            else:
                yield from operands.load("rcx", op.right)
                yield f"{_SHIFTS[op.op]} rax, cl"
        else:
            yield from self._divide(op)

    def _divide(self, op: Bin) -> Iterator[str]:
        """Division: by zero is a fault; -2**63 / -1 wraps instead of trapping."""
        yield from self._operands.load("rcx", op.right)
        yield "test rcx, rcx"
        yield f"jz {self._label}_divzero"
        if op.op in (BinOp.UDIV, BinOp.UREM):
            yield "xor edx, edx"
            yield "div rcx"
        else:
            label = self._unique()
            yield "cmp rcx, -1"
            yield f"jne {label}_div"
            yield "neg rax"
            yield "xor edx, edx"
            yield f"jmp {label}_done"
            yield f"{label}_div:"
            yield "cqo"
            yield "idiv rcx"
            yield f"{label}_done:"
        if _DIVISIONS[op.op] == "rdx":
            yield "mov rax, rdx"

    def _variable(self, var: int) -> Iterator[str]:
        """rcx = the address of a global's slot; locals need nothing."""
        if var not in self._frame.local_slots:
            index = next(i for i, v in enumerate(self._context.globals_) if v.index == var)
            yield f"mov rcx, {self._context.variables + 8 * index:#x}"

    def _variable_operand(self, var: int) -> str:
        slot = self._frame.local_slots.get(var)
        return "[rcx]" if slot is None else f"[rsp + {slot:#x}]"

    def _open_record(self) -> Iterator[str]:
        """Take ring space for the record and write its header; with no space the whole clause is dropped."""
        if self._clause.record is None:
            return
        size = RECORD_HEADER.size + self._clause.record.size
        yield f"mov ecx, {size:#x}"
        yield f"call {self._routines.reserve:#x}"
        yield "test rax, rax"
        yield f"jz {self._label}_end"
        yield f"mov qword ptr [rsp + {self._frame.record:#x}], rax"
        yield from self._record_header(size, fault=0)

    def _record_header(self, size: int, *, fault: int) -> Iterator[str]:
        """The header of the record at rax."""
        yield "mov rdi, rax"
        yield f"mov dword ptr [rdi], {size:#x}"
        yield f"mov dword ptr [rdi + 4], {self._clause.index:#x}"
        yield "rdtsc"
        yield "mov dword ptr [rdi + 8], eax"
        yield "mov dword ptr [rdi + 0xc], edx"
        yield f"mov eax, dword ptr [rbp + {FRAME_SITE}]"
        yield "mov dword ptr [rdi + 0x10], eax"
        yield f"mov dword ptr [rdi + 0x14], {fault:#x}"

    def _emit(self, index: int, src: int) -> Iterator[str]:
        if self._clause.record is None:
            raise AssertionError("a clause that records has a record plan")
        field: Field = self._clause.record.fields[index]
        if field.kind == "probe":
            return
        operands = self._operands
        place = RECORD_HEADER.size + field.offset
        if field.kind != "string":
            yield from operands.take("rax", src)
            yield f"mov rdi, qword ptr [rsp + {self._frame.record:#x}]"
            yield _LOW.get(field.size, "mov qword ptr {}, rax").format(f"[rdi + {place:#x}]")
            return
        yield from operands.take("rsi", src)
        yield f"mov rdi, qword ptr [rsp + {self._frame.record:#x}]"
        if field.size == 16:  # a task's name, or a constant of the pool: both are that long in memory
            yield from ("mov rax, qword ptr [rsi]", "mov rcx, qword ptr [rsi + 8]")
            yield f"mov qword ptr [rdi + {place:#x}], rax"
            yield f"mov qword ptr [rdi + {place + 8:#x}], rcx"
        else:
            yield f"add rdi, {place:#x}"
            yield f"mov ecx, {field.size:#x}"
            yield f"call {self._routines.copy:#x}"

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
                    yield f"j{_OPPOSITE[condition]} {self._label}_b{orelse}"
                    return
                yield f"j{condition} {self._label}_b{then}"
                if orelse != index + 1:
                    yield f"jmp {self._label}_b{orelse}"
            case Return():
                if index != len(self._clause.blocks) - 1:
                    yield f"jmp {self._label}_return"
            case _:
                assert_never(end)

    def _close_record(self) -> Iterator[str]:
        """Publish the open record, if there is one: the head moves behind it, after all of it is written.

        Where the record says ``exit()``, from now on nothing fires: no later clause of this firing, no other CPU.
        """
        yield f"{self._label}_return:"
        record = self._clause.record
        if record is None:
            return
        if not self._always_records:
            yield f"cmp qword ptr [rsp + {self._frame.record:#x}], 0"
            yield f"je {self._label}_end"
        yield f"add {header(HeaderWord.HEAD)}, {RECORD_HEADER.size + record.size:#x}"
        if any(isinstance(action, Exit) for action in record.actions):
            yield f"mov rcx, {self._context.activity:#x}"
            yield "mov qword ptr [rcx], 1"
            yield f"jmp {self._leave}"

    def _faults(self) -> Iterator[str]:
        """The one fault there is: the open record is abandoned and a fault record takes its place."""
        if not any(isinstance(o, Bin) and o.op in _DIVISIONS for b in self._clause.blocks for o in b.ops):
            return
        yield f"jmp {self._label}_end"
        yield f"{self._label}_divzero:"
        yield f"inc {header(HeaderWord.FAULTS)}"
        yield f"mov ecx, {RECORD_HEADER.size:#x}"
        yield f"call {self._routines.reserve:#x}"
        yield "test rax, rax"
        yield f"jz {self._label}_end"
        yield from self._record_header(RECORD_HEADER.size, fault=FaultKind.DIVZERO)
        yield f"add {header(HeaderWord.HEAD)}, {RECORD_HEADER.size:#x}"
