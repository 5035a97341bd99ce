"""One clause as assembly: every op works on frame slots through ``rax`` and friends; jumps only go forward.

r2 = cmp eq r0, r1      mov rax, [rsp]; cmp rax, [rsp+8]; sete al; movzx eax, al; mov [rsp+0x10], rax
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

from probekit.buffers.actions import Field
from probekit.buffers.layout import RECORD_HEADER, FaultKind, HeaderWord
from probekit.codegen.aggregate import aggregate
from probekit.codegen.context import (
    ARG_FRAME,
    FRAME_RAX,
    FRAME_SITE,
    FRAME_STACK_ARGS,
    SITE_ENTRY_SIZE,
    SITE_FIELDS,
    Context,
    ProbeKind,
)
from probekit.codegen.demand import idle_registers
from probekit.codegen.frame import Frame
from probekit.codegen.routines import Routines
from probekit.codegen.runtime import header
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

_SETCC = {
    CmpOp.EQ: "sete",
    CmpOp.NE: "setne",
    CmpOp.SLT: "setl",
    CmpOp.SLE: "setle",
    CmpOp.SGT: "setg",
    CmpOp.SGE: "setge",
    CmpOp.ULT: "setb",
    CmpOp.ULE: "setbe",
    CmpOp.UGT: "seta",
    CmpOp.UGE: "setae",
}

_EXTEND = {
    (8, True): "movsx rax, byte ptr [rsp + {0:#x}]",
    (16, True): "movsx rax, word ptr [rsp + {0:#x}]",
    (32, True): "movsxd rax, dword ptr [rsp + {0:#x}]",
    (8, False): "movzx eax, byte ptr [rsp + {0:#x}]",
    (16, False): "movzx eax, word ptr [rsp + {0:#x}]",
    (32, False): "mov eax, dword ptr [rsp + {0:#x}]",
}

_STORE = {1: "mov byte ptr [rdi], al", 2: "mov word ptr [rdi], ax", 4: "mov dword ptr [rdi], eax"}


class ClauseEmitter:
    """Writes the assembly of one clause into one thunk. ``kind``: what the probed sites are, for the arguments."""

    def __init__(
        self, clause: Clause, *, kind: ProbeKind, context: Context, frame: Frame, routines: Routines, label: str
    ) -> None:
        self._clause = clause
        self._kind = kind
        self._context = context
        self._frame = frame
        self._routines = routines
        self._label = label
        self._serial = 0
        self._idle = idle_registers(clause)

    def lines(self) -> Iterator[str]:
        """The clause; control leaves at its end. A fault jumps to the same end."""
        if self._clause.record is not None:
            yield f"mov qword ptr [rsp + {self._frame.record:#x}], 0"
        for index, block in enumerate(self._clause.blocks):
            yield f"{self._label}_b{index}:"
            if index == self._clause.body:
                yield from self._open_record()
            for op in block.ops:
                yield from self._op(op)
            yield from self._terminator(block.end)
        yield from self._close_record()
        yield from self._faults()
        yield f"{self._label}_end:"

    def _unique(self) -> str:
        self._serial += 1
        return f"{self._label}_u{self._serial}"

    def _set(self, dst: int) -> str:
        return f"mov {self._frame.reg(dst)}, rax"

    def _op(self, op: Op) -> Iterator[str]:
        reg = self._frame.reg
        match op:
            case Int(dst=dst, value=value):
                yield f"mov rax, {value & _MASK:#x}"
                yield self._set(dst)
            case Str(dst=dst, value=value):
                yield f"mov rax, {self._context.strings + self._context.constants[value]:#x}"
                yield self._set(dst)
            case Arg(dst=dst, index=index):
                yield from self._arg(index)
                yield self._set(dst)
            case Builtin(dst=dst, name=name):
                if dst not in self._idle:
                    yield from self._builtin(name)
                    yield self._set(dst)
            case Bin():
                yield from self._bin(op)
                yield self._set(op.dst)
            case Cmp(dst=dst, op=cmp_op, left=left, right=right):
                yield f"mov rax, {reg(left)}"
                yield f"cmp rax, {reg(right)}"
                yield from (f"{_SETCC[cmp_op]} al", "movzx eax, al", self._set(dst))
            case StrCmp(dst=dst, op=cmp_op, left=left, right=right):
                yield f"mov rdi, {reg(left)}"
                yield f"mov rsi, {reg(right)}"
                yield f"call {self._routines.compare:#x}"
                yield from ("cmp eax, 0", f"{_SETCC[cmp_op]} al", "movzx eax, al", self._set(dst))
            case Ext(dst=dst, src=src, bits=bits, signed=signed):
                yield _EXTEND[bits, signed].format(src * 8)
                yield self._set(dst)
            case LoadVar(dst=dst, var=var):
                yield from self._variable(var)
                yield f"mov rax, qword ptr {self._variable_operand(var)}"
                yield self._set(dst)
            case StoreVar(var=var, src=src):
                yield from self._variable(var)
                yield f"mov rax, {reg(src)}"
                yield f"mov qword ptr {self._variable_operand(var)}, rax"
            case Emit(field=field, src=src):
                yield from self._emit(field, src)
            case Aggregate():
                yield from aggregate(op, self._context, self._frame, self._routines, self._unique())
            case _:
                assert_never(op)

    def _arg(self, index: int) -> Iterator[str]:
        """rax = argN. At a return (FBT): arg0 is the exit's offset in the function, arg1 the returned value."""
        if self._kind == "return":
            match index:
                case 0:
                    yield from self._site_field("offset")
                case 1:
                    yield f"mov rax, qword ptr [rbp + {FRAME_RAX}]"
                case _:
                    yield "xor eax, eax"
        elif index < len(ARG_FRAME):
            yield f"mov rax, qword ptr [rbp + {ARG_FRAME[index]}]"
        else:
            yield f"mov rax, qword ptr [rbp + {FRAME_STACK_ARGS + 8 * (index - len(ARG_FRAME))}]"

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
            yield from self._task_fact(name)

    def _task_fact(self, name: str) -> Iterator[str]:
        task = self._context.task
        if task is None:
            raise UnsupportedError(
                f"{name} needs the kernel's type information, which this guest does not have",
                feature=name,
                hint="its kernel was built without CONFIG_DEBUG_INFO_BTF",
            )
        if name == "cpu":
            yield f"movsxd rax, dword ptr gs:[{task.cpu:#x}]"
            return
        yield f"mov rax, qword ptr gs:[{task.current:#x}]"
        match name:
            case "pid":
                yield f"movsxd rax, dword ptr [rax + {task.tgid:#x}]"
            case "tid":
                yield f"movsxd rax, dword ptr [rax + {task.pid:#x}]"
            case "execname":
                yield f"add rax, {task.comm:#x}"
            case _:
                raise UnsupportedError(f"{name} is not implemented in the guest engine", feature=name)

    def _bin(self, op: Bin) -> Iterator[str]:
        reg = self._frame.reg
        yield f"mov rax, {reg(op.left)}"
        if op.op in _SIMPLE:
            yield f"{_SIMPLE[op.op]} rax, {reg(op.right)}"
        elif op.op in _SHIFTS:
            yield f"mov rcx, {reg(op.right)}"
            yield f"{_SHIFTS[op.op]} rax, cl"
        else:
            yield from self._divide(op)

    def _divide(self, op: Bin) -> Iterator[str]:
        """Division: by zero is a fault; -2**63 / -1 wraps instead of trapping."""
        yield f"mov rcx, {self._frame.reg(op.right)}"
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
        yield f"mov rdi, qword ptr [rsp + {self._frame.record:#x}]"
        yield f"add rdi, {RECORD_HEADER.size + field.offset:#x}"
        if field.kind != "string":
            yield f"mov rax, {self._frame.reg(src)}"
            yield _STORE.get(field.size, "mov qword ptr [rdi], rax")
        elif field.size == 16:
            yield f"mov rsi, {self._frame.reg(src)}"
            yield from ("mov rax, qword ptr [rsi]", "mov rcx, qword ptr [rsi + 8]")
            yield from ("mov qword ptr [rdi], rax", "mov qword ptr [rdi + 8], rcx")
        else:
            yield f"mov rsi, {self._frame.reg(src)}"
            yield f"mov ecx, {field.size:#x}"
            yield f"call {self._routines.copy:#x}"

    def _terminator(self, end: Terminator) -> Iterator[str]:
        match end:
            case Jump(target=target):
                yield f"jmp {self._label}_b{target}"
            case Branch(cond=cond, then=then, orelse=orelse):
                yield f"cmp {self._frame.reg(cond)}, 0"
                yield f"jne {self._label}_b{then}"
                yield f"jmp {self._label}_b{orelse}"
            case Return():
                yield f"jmp {self._label}_return"
            case _:
                assert_never(end)

    def _close_record(self) -> Iterator[str]:
        """Publish the open record, if there is one: the head moves behind it, after all of it is written."""
        yield f"{self._label}_return:"
        if self._clause.record is not None:
            yield f"cmp qword ptr [rsp + {self._frame.record:#x}], 0"
            yield f"je {self._label}_end"
            yield f"add {header(HeaderWord.HEAD)}, {RECORD_HEADER.size + self._clause.record.size:#x}"

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
