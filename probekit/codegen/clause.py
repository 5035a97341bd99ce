"""One clause as assembly: every op works through ``rax`` and friends; jumps only go forward.

r2 = cmp slt r0, r1     mov rax, [rsp]; cmp rax, [rsp+8]; setl al; movzx eax, al; mov [rsp+0x10], rax
r2 = cmp slt r0, r1     mov rax, [rsp]; cmp rax, [rsp+8]; jge b2          when only a branch reads r2
branch r2, b1, b2
"""

from __future__ import annotations

from collections.abc import Iterator
from signal import SIGSTOP
from typing import TypeGuard, assert_never

from probekit.buffers.actions import Exit, Field
from probekit.buffers.layout import FAULT_WORDS, RECORD_HEADER, FaultKind, HeaderWord
from probekit.codegen import costs
from probekit.codegen.aggregate import aggregate
from probekit.codegen.builtin_vars import TASK_TEXTS, task_text
from probekit.codegen.calls import GUEST_CALLS, call
from probekit.codegen.context import MAX_ERRNO, SITE_ENTRY_SIZE, SITE_FIELDS, Context
from probekit.codegen.demand import panics, routine_of, stops
from probekit.codegen.emit_context import Here
from probekit.codegen.frame import FRAME_RAX, FRAME_SITE, Frame
from probekit.codegen.memory import load_memory, memory_op, variable_op
from probekit.codegen.operands import Operands
from probekit.codegen.record import speculative_actions
from probekit.codegen.reg_alloc import RETURNS, ProbeKind, plan_values
from probekit.codegen.runtime.core import header
from probekit.codegen.runtime.registry import Routines
from probekit.codegen.storage import MOST_FRAMES
from probekit.codegen.supported import describe
from probekit.errors import InternalError, UnsupportedError
from probekit.ir.names import BUILTINS
from probekit.ir.ops import (
    Aggregate,
    Arg,
    Bin,
    BinOp,
    Branch,
    Builtin,
    Call,
    Clause,
    Cmp,
    CmpOp,
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
_TSC_SHIFT = 46  # leaves 18 bits of 64 for nanoseconds a tick, and is as exact as years need

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
        self._kind = kind
        self._context = context
        self._frame = frame
        self._routines = routines
        self._label = label
        self._leave = leave
        self._serial = 0
        self._values = plan_values(clause, kind, context.program)
        self._operands = Operands(self._values, context, kind)
        self._here = Here(context, self._operands, routines, self._unique, self._fault)
        self._place = 0  # of the operation in its block
        self._actions = 0  # how many have begun
        self._begun = [0] * len(clause.blocks)  # the same at the start of each block: all ways there have as many
        self._fault_labels: dict[tuple[FaultKind | None, int, int], str] = {}
        self._flags: str | None = (
            None  # the condition in which a comparison for the branch behind it has left the flags
        )

    @property
    def _always_records(self) -> bool:
        """True when no predicate stands between the clause's start and its record."""
        return self._clause.body == 0

    @property
    def _exits(self) -> bool:
        """The clause calls ``exit()``."""
        record = self._clause.record
        return record is not None and any(isinstance(action, Exit) for action in record.actions)

    def lines(self) -> Iterator[str]:
        """The clause; control leaves at its end. A fault jumps to the same end."""
        yield from costs.begin(self._clause.index, self._context, self._frame, self._label)
        if self._clause.record is not None and not self._always_records:
            yield f"mov qword ptr [rsp + {self._frame.record:#x}], 0"
        if self._context.scratch.memory_size:
            yield f"lea rax, {self._context.in_scratch(self._context.scratch.memory)}"
            yield f"mov qword ptr {self._context.in_scratch(self._context.scratch.free)}, rax"
        for index in range(len(self._clause.blocks)):
            yield from self._block(index)
        yield from self._close_record()
        yield from self._faults()
        yield f"{self._label}_end:"
        yield from costs.end(self._clause.index, self._context, self._frame, self._label)

    def _block(self, index: int) -> Iterator[str]:
        block = self._clause.blocks[index]
        self._operands.held = self._flags = None
        self._actions = self._begun[index]
        yield f"{self._label}_b{index}:"
        if index == self._clause.body:
            yield from self._open_record()
        ops = [(place, op) for place, op in enumerate(block.ops) if self._values.has_code(op)]
        for place, op in ops:
            self._place = place
            if op is ops[-1][1] and self._decides(op, block.end):
                yield from self._compare(op)
                self._flags = _CONDITIONS[op.op]
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
            case Arg(dst=dst, index=index):
                yield from self._arg(index)
                yield from operands.set(dst)
            case Builtin(dst=dst, name=name) if name in TASK_TEXTS:
                yield from task_text(name, dst, self._here)
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
            case LoadVar() | StoreVar() | VarAddr() | LoadElem() | StoreElem() | ElemAddr():
                yield from variable_op(op, self._here, self._frame.local_slots)
            case LoadMem() | StoreMem() | LoadStr() | StoreStr() | StrAddr() | CopyMem() | Copy():
                yield from memory_op(op, self._here)
            case Call(name=name) if name in GUEST_CALLS:
                yield from call(op, self._here)
            case Emit(field=field, src=src):
                yield from self._emit(field, src)
                operands.held = None
            case EmitMem(field=field, addr=addr):
                yield from self._emit_memory(field, addr)
                operands.held = None
            case Aggregate():
                yield from aggregate(op, self._here)
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
            yield self._here.call("compare")
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
            yield from self._timestamp()
        elif name == "walltimestamp":
            if self._context.kernel.wall is None:
                raise UnsupportedError("this kernel has no wall clock that a probe may read", feature=name)
            yield f"call {self._context.kernel.wall:#x}"
        elif name == "vtimestamp":
            yield self._here.call("run_time")
        elif name == "errno":
            yield from self._error()
        elif name == "stackdepth":
            yield from self._unwind(MOST_FRAMES)
        elif name == "caller" and self._kind == "instruction":
            yield from self._unwind(1)
            yield f"mov rax, qword ptr {self._context.in_scratch(self._context.scratch.bounce)}"
        else:
            yield from self._operands.fact(name)

    def _timestamp(self) -> Iterator[str]:
        """rax = nanoseconds: by the time stamp counter where all CPUs share it, else by the kernel's clock."""
        context = self._context
        if context.tsc_khz:
            scale = (1_000_000 << _TSC_SHIFT) // context.tsc_khz
            yield from ("rdtsc", "shl rdx, 32", "or rax, rdx", f"mov rcx, {scale:#x}", "mul rcx")
            yield f"shrd rax, rdx, {_TSC_SHIFT}"
        elif context.clock is not None:
            yield f"call {context.clock:#x}"
        else:
            raise UnsupportedError("this kernel has no clock that a probe may read", feature="timestamp")

    def _error(self) -> Iterator[str]:
        """rax = the error that the function returns, as a number above 0; 0 for any other value, and where none is."""
        if self._kind not in RETURNS:
            yield "xor eax, eax"
            return
        label = self._unique()
        yield f"mov eax, dword ptr [rbp + {FRAME_RAX}]"
        yield "neg eax"
        yield f"cmp eax, {MAX_ERRNO:#x}"
        yield f"jbe {label}"
        yield "xor eax, eax"
        yield f"{label}:"

    def _unwind(self, frames: int) -> Iterator[str]:
        """rax = how many callers there are, at most ``frames``; the bounce buffer has their addresses."""
        yield f"lea rdi, {self._context.in_scratch(self._context.scratch.bounce)}"
        yield f"mov ecx, {frames:#x}"
        yield self._here.call(self._here.unwinder)

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
        yield f"jz {self._fault(FaultKind.DIVZERO)}"
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

    def _open_record(self) -> Iterator[str]:
        """Take ring space for the record and write its header; with no space the whole clause is dropped."""
        if self._clause.record is None:
            return
        size = RECORD_HEADER.size + self._clause.record.size
        yield f"mov ecx, {size:#x}"
        yield self._here.call("reserve")
        yield "test rax, rax"
        yield f"jz {self._label}_end"
        yield f"mov qword ptr [rsp + {self._frame.record:#x}], rax"
        yield from self._record_header(size)
        yield "mov dword ptr [rdi + 0x14], 0"

    def _record_header(self, size: int) -> Iterator[str]:
        """The header of the record at rax."""
        yield "mov rdi, rax"
        yield f"mov dword ptr [rdi], {size:#x}"
        yield f"mov dword ptr [rdi + 4], {self._clause.index:#x}"
        yield "rdtsc"
        yield "mov dword ptr [rdi + 8], eax"
        yield "mov dword ptr [rdi + 0xc], edx"
        yield f"mov eax, dword ptr [rbp + {FRAME_SITE}]"
        yield "mov dword ptr [rdi + 0x10], eax"

    def _emit(self, index: int, src: int) -> Iterator[str]:
        if self._clause.record is None:
            raise InternalError("a clause that records has a record plan")
        field: Field = self._clause.record.fields[index]
        if field.kind == "probe":
            return
        operands = self._operands
        place = RECORD_HEADER.size + field.offset
        if field.kind == "stack":
            yield from operands.take("rsi", src)
            yield f"mov rdi, qword ptr [rsp + {self._frame.record:#x}]"
            yield f"add rdi, {place:#x}"
            yield f"mov ecx, {field.size // 8:#x}"
            yield self._here.call("frames")
            return
        if field.kind != "string":
            yield from operands.take("rax", src)
            yield f"mov rdi, qword ptr [rsp + {self._frame.record:#x}]"
            yield _LOW.get(field.size, "mov qword ptr {}, rax").format(f"[rdi + {place:#x}]")
            if routine := routine_of(index, self._clause.record):
                yield from ("mov rsi, rax", self._here.call(routine), f"jb {self._fault(None)}")
            return
        yield from operands.take("rsi", src)
        yield f"mov rdi, qword ptr [rsp + {self._frame.record:#x}]"
        if field.size == 16 and src in self._values.padded:
            yield from ("mov rax, qword ptr [rsi]", "mov rcx, qword ptr [rsi + 8]")
            yield f"mov qword ptr [rdi + {place:#x}], rax"
            yield f"mov qword ptr [rdi + {place + 8:#x}], rcx"
        else:
            yield f"add rdi, {place:#x}"
            yield f"mov ecx, {field.size:#x}"
            yield self._here.call("copy")

    def _emit_memory(self, index: int, addr: int) -> Iterator[str]:
        if self._clause.record is None:
            raise InternalError("a clause that records has a record plan")
        field: Field = self._clause.record.fields[index]
        target = (
            f"mov rdi, qword ptr [rsp + {self._frame.record:#x}]",
            f"add rdi, {RECORD_HEADER.size + field.offset:#x}",
        )
        if field.size:
            yield from load_memory(addr, target, field.size, self._here)

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
        at = f"qword ptr [rsp + {self._frame.record:#x}]"
        if stops(record):
            yield from (f"mov esi, {SIGSTOP:#x}", self._here.call("signal"), f"jb {self._fault(None)}")
        yield from speculative_actions(record, at, self._here, f"{self._label}_end")
        yield f"add {header(HeaderWord.HEAD)}, {RECORD_HEADER.size + record.size:#x}"
        if panics(record):
            yield self._here.call("panic")
        if self._exits:
            yield f"mov rcx, {self._context.activity:#x}"
            yield "mov qword ptr [rcx], 1"
            yield f"jmp {self._leave}"

    def _fault(self, kind: FaultKind | None) -> str:
        """The label where a fault of the operation at hand goes; ``rax`` there is the word at fault."""
        key = (kind, self._actions, self._place)
        return self._fault_labels.setdefault(key, f"{self._label}_f{len(self._fault_labels)}")

    def _faults(self) -> Iterator[str]:
        """The open record is abandoned and a fault record takes its place: which fault, and where in the clause."""
        if not self._fault_labels:
            return
        word = self._context.in_scratch(self._context.scratch.temp)
        at = self._context.in_scratch(self._context.scratch.temp + 8)
        which = self._context.in_scratch(self._context.scratch.temp + 16)
        size = RECORD_HEADER.size + FAULT_WORDS.size
        if not self._exits:
            yield f"jmp {self._label}_end"
        for (kind, actions, place), label in self._fault_labels.items():
            yield f"{label}:"
            if kind is not None:
                yield f"mov edx, {kind:#x}"
            if kind is FaultKind.DIVZERO:
                yield "xor eax, eax"
            yield f"mov rcx, {actions << 32 | place:#x}"
            yield f"jmp {self._label}_fault"
        yield f"{self._label}_fault:"
        yield from (f"mov qword ptr {word}, rax", f"mov qword ptr {at}, rcx", f"mov dword ptr {which}, edx")
        yield f"inc {header(HeaderWord.FAULTS)}"
        yield f"mov ecx, {size:#x}"
        yield self._here.call("reserve")
        yield "test rax, rax"
        yield f"jz {self._label}_end"
        yield from self._record_header(size)
        yield from (f"mov eax, dword ptr {which}", "mov dword ptr [rdi + 0x14], eax")
        first = RECORD_HEADER.size
        yield from (f"mov rax, qword ptr {word}", f"mov qword ptr [rdi + {first:#x}], rax")
        yield from (f"mov rax, qword ptr {at}", "mov ecx, eax", "shr rax, 32")
        yield from (f"mov qword ptr [rdi + {first + 8:#x}], rax", "shl ecx, 2")
        yield f"mov qword ptr [rdi + {first + 16:#x}], rcx"
        yield f"add {header(HeaderWord.HEAD)}, {size:#x}"
