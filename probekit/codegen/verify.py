"""Decode the finished bytes of an image, its routines and thunks, again, and check what they may do in a guest.

- every byte is an instruction of a short list, or padding; no SSE, no x87, nothing privileged but ``cli``
- a thunk only goes forward; a routine's loops stay inside of it; calls go to routines that were placed before the
  caller, so that they cannot go in a circle, and to the few kernel functions that are allowed
- a thunk stores on its stack, in this CPU's block, and through registers that were set from the block, from an address
  of the data memory, from a routine that returns such a pointer, or that ``may_store`` has checked
- the size and the stack are bounded

Code that breaks a rule is a bug of probekit. It is found here, before anything is enabled. What is not in the image is
not checked here: the stubs of sites, the watchdog's function, the handler of INT3, the functions that measure costs and
that register tracepoints. They are short and of fixed form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from iced_x86 import (
    Code,
    Decoder,
    FlowControl,
    Instruction,
    InstructionInfoFactory,
    Mnemonic,
    OpAccess,
    OpKind,
    Register,
    RegisterExt,
)

from probekit.codegen.context import CodegenContext
from probekit.codegen.runtime.registry import AGG_FIND_PREFIX
from probekit.errors import InternalError

__all__ = ("MAX_IMAGE", "MAX_STACK", "CodeError", "CodeLayout", "verify_code")

MAX_IMAGE = 4 << 20
"""The most bytes of code that one enabling may have."""

MAX_STACK = 4096
"""The most bytes of kernel stack for one firing: registers, frame, the deepest chain of routines (not the kernel's)."""

_ALLOWED = frozenset(
    """
    adc add and bsr bswap call clc cli cmp cmpxchg cqo dec div idiv imul inc int3 ja jae jb jbe je jg jge jl jle jmp
    jne jns js lea mov movsx movsxd movzx mul neg not or pause pop popfq push pushfq rdtsc ret ror sar sbb seta setae
    setb setbe sete setg setge setl setle setne shl shr shrd stc sub test xadd xchg xor
    """.split()
)
_MNEMONICS = {value: name.lower() for name, value in vars(Mnemonic).items() if isinstance(value, int)}
_WRITES = frozenset((OpAccess.WRITE, OpAccess.COND_WRITE, OpAccess.READ_WRITE, OpAccess.READ_COND_WRITE))
_IMMEDIATES = frozenset((OpKind.IMMEDIATE32, OpKind.IMMEDIATE64, OpKind.IMMEDIATE32TO64, OpKind.IMMEDIATE8TO64))
_POINTER_ROUTINES = frozenset(
    ("alloca", "element_address", "element_create", "reserve", "thread_create", "thread_find")
)
"""Routines whose result is the address of something of ours, or 0. Those of ``AGG_FIND_PREFIX`` are such ones too."""

_RDI_KEEPERS = frozenset(("copy_words", "in_alloca", "llquantize_bucket", "may_store", "thread_create", "thread_find"))
"""Routines that do not change ``rdi``."""

_RSP, _RBX, _RDI, _RAX, _GS = map(int, (Register.RSP, Register.RBX, Register.RDI, Register.RAX, Register.GS))
_CALLER_SAVED = tuple(getattr(Register, name) for name in ("RAX", "RCX", "RDX", "RSI", "RDI", "R8", "R9", "R10", "R11"))


class CodeError(InternalError):
    """Generated code breaks a rule; it was found before anything was enabled."""

    def __init__(self, reason: str, addr: int) -> None:
        super().__init__(f"the generated code at {addr:#x} breaks a rule: {reason}; nothing was enabled")
        self.addr = addr
        """The address of the instruction, or of the piece of code."""


@dataclass(frozen=True, slots=True)
class CodeLayout:
    """Where everything is in an image. A piece of code ends where the next one begins."""

    addr: int
    """Address of the image."""
    code: bytes
    """All of it."""
    routines: Mapping[str, int]
    """Address of each routine."""
    records: Mapping[int, int]
    """By the address of each thunk, the offset from ``rsp`` where it keeps the address of its open record."""


@dataclass(slots=True)
class _Piece:
    """One routine or thunk, decoded."""

    start: int
    """Address of its first byte."""
    end: int
    """Address after its last byte."""
    name: str = ""
    """The routine's name; empty for a thunk."""
    insns: list[Instruction] = field(default_factory=list)
    """Its instructions, without the padding at its end."""
    stack_depth: int = 0
    """Bytes of stack that it needs, with everything that it calls."""

    @property
    def is_thunk(self) -> bool:
        """True for a thunk, False for a routine."""
        return not self.name


def verify_code(layout: CodeLayout, context: CodegenContext) -> None:
    """Check the routines and thunks of an image. Raises :class:`CodeError` for the first broken rule."""
    if len(layout.code) > MAX_IMAGE:
        raise CodeError(f"{len(layout.code)} bytes of code are too many", layout.addr)
    pieces = _pieces(layout)
    placed: dict[int, _Piece] = {}
    kernel = _kernel_functions(context)
    for piece in pieces:
        starts = {insn.ip for insn in piece.insns}
        calls = _check_flow(piece, starts, placed, kernel)
        piece.stack_depth = _own_stack(piece) + max(
            (8 + placed[t].stack_depth for t in calls if t in placed), default=0
        )
        if piece.stack_depth > MAX_STACK:
            raise CodeError(f"{piece.stack_depth} bytes of stack are too many", piece.start)
        if piece.is_thunk:
            _StoreChecker(piece, layout, context, placed).check()
        else:
            placed[piece.start] = piece


def _pieces(layout: CodeLayout) -> list[_Piece]:
    starts = {addr: name for name, addr in layout.routines.items()} | dict.fromkeys(layout.records, "")
    order = sorted(starts)
    if not order:
        return []
    ends = [*order[1:], layout.addr + len(layout.code)]
    pieces = [_Piece(start, end, starts[start]) for start, end in zip(order, ends, strict=True)]
    if order[0] != layout.addr:
        raise CodeError("the first routine is not where the code begins", layout.addr)
    for piece in pieces:
        piece.insns = _decode(layout.code[piece.start - layout.addr : piece.end - layout.addr], piece.start)
    return pieces


def _decode(code: bytes, addr: int) -> list[Instruction]:
    """Return the instructions without the padding at the end. Raises :class:`CodeError` for one that is not allowed."""
    insns = list(Decoder(64, code.rstrip(b"\xcc"), ip=addr))  # int3
    for insn in insns:
        if insn.code == Code.INVALID:
            raise CodeError("it is no instruction", insn.ip)
        if _MNEMONICS[insn.mnemonic] not in _ALLOWED:
            raise CodeError(f"{_MNEMONICS[insn.mnemonic]} is not on the list of instructions", insn.ip)
        for number in range(insn.op_count):
            if insn.op_kind(number) == OpKind.REGISTER and not RegisterExt.is_gpr(insn.op_register(number)):
                raise CodeError("a register that is not a general-purpose one", insn.ip)
    return insns


def _kernel_functions(context: CodegenContext) -> frozenset[int]:
    kernel = context.kernel
    found = [*kernel.load.values(), kernel.user_copy, kernel.user_text, kernel.stack, kernel.wall, context.clock]
    found += [kernel.to_user, kernel.user_okay, kernel.send_signal, kernel.panic]
    if kernel.run_time is not None:
        found.append(kernel.run_time.now)
    return frozenset(addr for addr in found if addr is not None)


def _check_flow(
    piece: _Piece, starts: set[int], placed: Mapping[int, _Piece], kernel: frozenset[int]
) -> frozenset[int]:
    """Check where control goes, and return the addresses that the piece calls."""
    calls: set[int] = set()
    for insn in piece.insns:
        match insn.flow_control:
            case FlowControl.NEXT | FlowControl.RETURN:
                pass
            case FlowControl.UNCONDITIONAL_BRANCH | FlowControl.CONDITIONAL_BRANCH:
                target = insn.near_branch_target
                if target not in starts:
                    raise CodeError("a jump that leaves its piece of code, or goes into an instruction", insn.ip)
                if piece.is_thunk and target <= insn.ip:
                    raise CodeError("a jump backwards in a clause", insn.ip)
            case FlowControl.CALL:
                target = insn.near_branch_target
                if target not in placed and target not in kernel:
                    raise CodeError("a call of a function that is not allowed", insn.ip)
                calls.add(target)
            case _:
                raise CodeError("control flow whose target is not known", insn.ip)
    last = piece.insns[-1] if piece.insns else None
    if last is None or last.flow_control not in (FlowControl.RETURN, FlowControl.UNCONDITIONAL_BRANCH):
        raise CodeError("control runs off the end", piece.start)
    return frozenset(calls)


def _own_stack(piece: _Piece) -> int:
    """Return the bytes of stack that the piece itself may take: everything that it ever pushes, and its frame."""
    size = 0
    for insn in piece.insns:
        match _MNEMONICS[insn.mnemonic]:
            case "push" | "pushfq":
                size += 8
            case "sub" if insn.op0_register == _RSP:
                if insn.op_kind(1) not in _IMMEDIATES:
                    raise CodeError("a frame whose size is not known", insn.ip)
                size += insn.immediate(1)
            case _:
                pass
    return size


class _StoreChecker:
    """Checks the stores of one thunk.

    It walks over code that only goes forward, so it sees each instruction once, after all jumps that lead there. The
    state is the set of registers that hold an address of ours.
    """

    def __init__(
        self, piece: _Piece, layout: CodeLayout, context: CodegenContext, placed: Mapping[int, _Piece]
    ) -> None:
        self._piece = piece
        self._record = layout.records[piece.start]
        self._data = (context.activity, context.site_table)
        self._placed = placed
        self._info = InstructionInfoFactory()
        self._at_target: dict[int, frozenset[int]] = {}  # the registers with which all jumps so far reach a place

    def check(self) -> None:
        """Check all stores. Raises :class:`CodeError` for the first that may go elsewhere."""
        ours: frozenset[int] | None = frozenset()
        for insn in self._piece.insns:
            at_target = self._at_target.get(insn.ip)
            if at_target is not None:
                ours = at_target if ours is None else ours & at_target
            if ours is None:
                raise CodeError("code that nothing reaches", insn.ip)
            self._check_stores(insn, ours)
            after = self._pointers_after(insn, ours)
            if insn.flow_control in (FlowControl.UNCONDITIONAL_BRANCH, FlowControl.CONDITIONAL_BRANCH):
                before = self._at_target.get(insn.near_branch_target)
                self._at_target[insn.near_branch_target] = after if before is None else before & after
            ends = (FlowControl.UNCONDITIONAL_BRANCH, FlowControl.RETURN)
            ours = None if insn.flow_control in ends else after

    def _check_stores(self, insn: Instruction, ours: frozenset[int]) -> None:
        for memory in self._info.info(insn).used_memory():
            if memory.access not in _WRITES:
                continue
            if memory.base in (_RSP, _RBX) and memory.segment != _GS:
                continue
            if memory.base not in ours or memory.segment == _GS:
                raise CodeError("a store through an address that is not known to be ours", insn.ip)

    def _pointers_after(self, insn: Instruction, ours: frozenset[int]) -> frozenset[int]:
        """Return the registers that hold an address of ours after an instruction."""
        if insn.flow_control == FlowControl.CALL:
            return self._pointers_after_call(insn.near_branch_target, ours)
        written = {
            RegisterExt.full_register(used.register)
            for used in self._info.info(insn).used_registers()
            if used.access in _WRITES
        }
        kept = ours - written
        if insn.op_count == 2 and insn.op_kind(0) == OpKind.REGISTER and self._makes_pointer(insn, ours):
            return kept | {insn.op0_register}
        return kept

    def _pointers_after_call(self, target: int, ours: frozenset[int]) -> frozenset[int]:
        name = self._placed[target].name if target in self._placed else ""
        kept = ours - set(_CALLER_SAVED)
        if name in _RDI_KEEPERS:
            kept |= ours & {_RDI}
        if name == "may_store":
            kept |= {_RDI}  # where it said no, the next conditional jump leaves: see memory.py
        if name in _POINTER_ROUTINES or name.startswith(AGG_FIND_PREFIX):
            kept |= {_RAX}
        return kept

    def _makes_pointer(self, insn: Instruction, ours: frozenset[int]) -> bool:
        """Return True when an instruction leaves an address of ours in its first operand."""
        match _MNEMONICS[insn.mnemonic]:
            case "lea":
                return insn.memory_base in ours or insn.memory_base == _RBX
            case "mov":
                return self._moves_pointer(insn, ours)
            case "add":
                return insn.op0_register in ours and insn.op_kind(1) in _IMMEDIATES
            case _:
                return False

    def _moves_pointer(self, insn: Instruction, ours: frozenset[int]) -> bool:
        match insn.op_kind(1):
            case OpKind.REGISTER:
                return insn.op1_register in ours
            case OpKind.MEMORY:
                return insn.memory_base == _RSP and insn.memory_displacement == self._record
            case kind if kind in _IMMEDIATES:
                return self._data[0] <= insn.immediate(1) < self._data[1]
            case _:
                return False
