"""The finished bytes of an image, decoded again and held against what code in a guest may do.

- every byte is an instruction of a short list, or padding; no SSE, no x87, nothing privileged but ``cli``
- a thunk only goes forward; a routine's loops stay inside of it; calls go to routines that were placed before the
  caller, so that they cannot go in a circle, and to the few kernel functions that are allowed
- a thunk stores on its stack, in this CPU's block, and through registers that were set from the block, from an address
  of the data memory, from a routine that returns such a pointer, or that ``may_store`` has looked at
- the size and the stack are bounded

Nothing is enabled whose code breaks a rule: that would be a mistake of ours, and it is better found here.
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

from probekit.codegen.context import Context
from probekit.errors import InternalError

__all__ = ("MAX_IMAGE", "MAX_STACK", "CodeError", "CodeLayout", "verify_code")

MAX_IMAGE = 4 << 20
MAX_STACK = 4096
"""Bytes of kernel stack for one firing: registers, frame, and the deepest chain of routines (not the kernel's own)."""

_ALLOWED = frozenset(
    """
    adc add and bsr bswap call clc cli cmp cmpxchg cqo dec div idiv imul inc int3 ja jae jb jbe je jg jge jl jle jmp
    jne jns js lea mov movsx movsxd movzx mul neg not or pause pop popfq push pushfq rdtsc ret ror sar sbb seta setae
    setb setbe sete setg setge setl setle setne shl shr shrd stc sub test xadd xchg xor
    """.split()
)
_NAMES = {value: name.lower() for name, value in vars(Mnemonic).items() if isinstance(value, int)}
_WRITES = frozenset((OpAccess.WRITE, OpAccess.COND_WRITE, OpAccess.READ_WRITE, OpAccess.READ_COND_WRITE))
_IMMEDIATES = frozenset((OpKind.IMMEDIATE32, OpKind.IMMEDIATE64, OpKind.IMMEDIATE32TO64, OpKind.IMMEDIATE8TO64))
_POINTERS = ("reserve", "find_", "thread_", "element_", "alloca")
"""Routines whose result is the address of something of ours, or 0."""

_KEEPS_RDI = ("may_store", "in_memory", "ladder", "thread_", "words")
_RSP, _RBX, _RDI, _RAX, _GS = map(int, (Register.RSP, Register.RBX, Register.RDI, Register.RAX, Register.GS))
_CALLER_SAVED = tuple(getattr(Register, name) for name in ("RAX", "RCX", "RDX", "RSI", "RDI", "R8", "R9", "R10", "R11"))


class CodeError(InternalError):
    """Generated code breaks a rule; it was found before anything was enabled. ``addr``: address of the instruction."""

    def __init__(self, reason: str, addr: int) -> None:
        super().__init__(f"the generated code at {addr:#x} breaks a rule: {reason}; nothing was enabled")
        self.addr = addr


@dataclass(frozen=True, slots=True)
class CodeLayout:
    """``routines`` and ``thunks``: where each begins; one ends where the next begins. ``records``: by thunk, the offset
    from ``rsp`` where it keeps the address of its open record."""

    addr: int
    code: bytes
    routines: Mapping[str, int]
    records: Mapping[int, int]


@dataclass(slots=True)
class _Piece:
    """One routine or thunk, decoded."""

    start: int
    end: int
    name: str = ""
    insns: list[Instruction] = field(default_factory=list)
    depth: int = 0

    @property
    def is_thunk(self) -> bool:
        return not self.name


def verify_code(layout: CodeLayout, context: Context) -> None:
    """Raises :class:`CodeError` for the first broken rule."""
    if len(layout.code) > MAX_IMAGE:
        raise CodeError(f"{len(layout.code)} bytes of code are too many", layout.addr)
    pieces = _pieces(layout)
    placed: dict[int, _Piece] = {}
    kernel = _kernel_functions(context)
    for piece in pieces:
        starts = {insn.ip for insn in piece.insns}
        calls = _check_flow(piece, starts, placed, kernel)
        piece.depth = _stack(piece) + max((8 + placed[t].depth for t in calls if t in placed), default=0)
        if piece.depth > MAX_STACK:
            raise CodeError(f"{piece.depth} bytes of stack are too many", piece.start)
        if piece.is_thunk:
            _Stores(piece, layout, context, placed).check()
        else:
            placed[piece.start] = piece


def _pieces(layout: CodeLayout) -> list[_Piece]:
    begins = {addr: name for name, addr in layout.routines.items()} | dict.fromkeys(layout.records, "")
    order = sorted(begins)
    if not order:
        return []
    ends = [*order[1:], layout.addr + len(layout.code)]
    pieces = [_Piece(start, end, begins[start]) for start, end in zip(order, ends, strict=True)]
    if order[0] != layout.addr:
        raise CodeError("the first routine is not where the code begins", layout.addr)
    for piece in pieces:
        piece.insns = _decode(layout.code[piece.start - layout.addr : piece.end - layout.addr], piece.start)
    return pieces


def _decode(code: bytes, addr: int) -> list[Instruction]:
    """The instructions without the padding at the end."""
    insns = list(Decoder(64, code.rstrip(b"\xcc"), ip=addr))  # int3
    for insn in insns:
        if insn.code == Code.INVALID:
            raise CodeError("no instruction", insn.ip)
        if _NAMES[insn.mnemonic] not in _ALLOWED:
            raise CodeError(f"{_NAMES[insn.mnemonic]} is not on the list", insn.ip)
        for number in range(insn.op_count):
            if insn.op_kind(number) == OpKind.REGISTER and not RegisterExt.is_gpr(insn.op_register(number)):
                raise CodeError("a register that is not a general one", insn.ip)
    return insns


def _kernel_functions(context: Context) -> frozenset[int]:
    kernel = context.kernel
    found = [*kernel.load.values(), kernel.user_copy, kernel.user_text, kernel.stack, kernel.wall, context.clock]
    found += [kernel.to_user, kernel.user_okay, kernel.send_signal, kernel.panic]
    if kernel.run_time is not None:
        found.append(kernel.run_time.now)
    return frozenset(addr for addr in found if addr is not None)


def _check_flow(
    piece: _Piece, starts: set[int], placed: Mapping[int, _Piece], kernel: frozenset[int]
) -> frozenset[int]:
    """Where control goes; returns what the piece calls."""
    calls: set[int] = set()
    for insn in piece.insns:
        match insn.flow_control:
            case FlowControl.NEXT | FlowControl.RETURN:
                pass
            case FlowControl.UNCONDITIONAL_BRANCH | FlowControl.CONDITIONAL_BRANCH:
                target = insn.near_branch_target
                if target not in starts:
                    raise CodeError("a jump that leaves its piece, or into an instruction", insn.ip)
                if piece.is_thunk and target <= insn.ip:
                    raise CodeError("a jump back in a clause", insn.ip)
            case FlowControl.CALL:
                target = insn.near_branch_target
                if target not in placed and target not in kernel:
                    raise CodeError("a call to what is not allowed", insn.ip)
                calls.add(target)
            case _:
                raise CodeError("control goes where nobody knows", insn.ip)
    last = piece.insns[-1] if piece.insns else None
    if last is None or last.flow_control not in (FlowControl.RETURN, FlowControl.UNCONDITIONAL_BRANCH):
        raise CodeError("it runs off its end", piece.start)
    return frozenset(calls)


def _stack(piece: _Piece) -> int:
    """Bytes that the piece itself may take: all that it ever pushes, and its frame."""
    size = 0
    for insn in piece.insns:
        match _NAMES[insn.mnemonic]:
            case "push" | "pushfq":
                size += 8
            case "sub" if insn.op0_register == _RSP:
                if insn.op_kind(1) not in _IMMEDIATES:
                    raise CodeError("a frame of a size that nobody knows", insn.ip)
                size += insn.immediate(1)
            case _:
                pass
    return size


class _Stores:
    """The stores of one thunk: a walk over code that only goes forward, so that each place is seen once, after all
    ways that lead there. ``known``: registers that hold an address of ours."""

    def __init__(self, piece: _Piece, layout: CodeLayout, context: Context, placed: Mapping[int, _Piece]) -> None:
        self._piece = piece
        self._record = layout.records[piece.start]
        self._data = (context.activity, context.sites)
        self._placed = placed
        self._info = InstructionInfoFactory()
        self._arriving: dict[int, frozenset[int]] = {}

    def check(self) -> None:
        """Raises :class:`CodeError`."""
        known: frozenset[int] | None = frozenset()
        for insn in self._piece.insns:
            arriving = self._arriving.get(insn.ip)
            if arriving is not None:
                known = arriving if known is None else known & arriving
            if known is None:
                raise CodeError("code that nothing reaches", insn.ip)
            self._look(insn, known)
            after = self._after(insn, known)
            if insn.flow_control in (FlowControl.UNCONDITIONAL_BRANCH, FlowControl.CONDITIONAL_BRANCH):
                there = self._arriving.get(insn.near_branch_target)
                self._arriving[insn.near_branch_target] = after if there is None else there & after
            ends = (FlowControl.UNCONDITIONAL_BRANCH, FlowControl.RETURN)
            known = None if insn.flow_control in ends else after

    def _look(self, insn: Instruction, known: frozenset[int]) -> None:
        for memory in self._info.info(insn).used_memory():
            if memory.access not in _WRITES:
                continue
            if memory.base in (_RSP, _RBX) and memory.segment != _GS:
                continue
            if memory.base not in known or memory.segment == _GS:
                raise CodeError("a store through an address that is not known to be ours", insn.ip)

    def _after(self, insn: Instruction, known: frozenset[int]) -> frozenset[int]:
        if insn.flow_control == FlowControl.CALL:
            return self._called(insn.near_branch_target, known)
        written = {
            RegisterExt.full_register(used.register)
            for used in self._info.info(insn).used_registers()
            if used.access in _WRITES
        }
        kept = known - written
        if insn.op_count == 2 and insn.op_kind(0) == OpKind.REGISTER and self._is_ours(insn, known):
            return kept | {insn.op0_register}
        return kept

    def _called(self, target: int, known: frozenset[int]) -> frozenset[int]:
        name = self._placed[target].name if target in self._placed else ""
        left = known - set(_CALLER_SAVED)
        if name.startswith(_KEEPS_RDI):
            left |= known & {_RDI}
        if name == "may_store":
            left |= {_RDI}  # the next conditional jump leaves when it said no, see memory.py
        if name.startswith(_POINTERS):
            left |= {_RAX}
        return left

    def _is_ours(self, insn: Instruction, known: frozenset[int]) -> bool:
        """Whether an instruction leaves an address of ours in its first operand."""
        match _NAMES[insn.mnemonic]:
            case "lea":
                return insn.memory_base in known or insn.memory_base == _RBX
            case "mov":
                return self._moved(insn, known)
            case "add":
                return insn.op0_register in known and insn.op_kind(1) in _IMMEDIATES
            case _:
                return False

    def _moved(self, insn: Instruction, known: frozenset[int]) -> bool:
        match insn.op_kind(1):
            case OpKind.REGISTER:
                return insn.op1_register in known
            case OpKind.MEMORY:
                return insn.memory_base == _RSP and insn.memory_displacement == self._record
            case kind if kind in _IMMEDIATES:
                return self._data[0] <= insn.immediate(1) < self._data[1]
            case _:
                return False
