"""Move instructions so that they have the same effect at another address.

The copied bytes do at ``new_addr`` what the originals did at ``addr``::

    8b 05 rel32       mov eax, [rip+x]   the displacement is re-based
    74 rel8           je target          becomes je rel32
    e2 rel8           loop target        becomes loop L; jmp N; L: jmp target; N:
    eb fe             jmp .              becomes jmp rel32 to the original
    e8 rel32          call f             becomes push <original return address>; jmp f

The callee of a moved call sees the *original* return address (unwinders and
``__builtin_return_address`` depend on it), so it returns to the original code:
a call can only be the last instruction of a run.

iced's BlockEncoder does the encoding. It re-targets a RIP-relative *data*
operand that points into the moved run, and turns a branch that does not reach
into a jump through memory; both are refused here before it is asked.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from itertools import takewhile

from iced_x86 import BlockEncoder, Code, Decoder, Instruction, MemoryOperand, OpKind, Register

from probekit.errors import ProbekitError
from probekit.isa.decode import DecodeError, Insn, decode_run

__all__ = ("RelocateError", "Relocated", "relocate", "relocate_jump", "why_not_movable")

_REACH = (1 << 31) - 4096  # rel32, less what the copy may grow by
_STOPS = frozenset({"jump", "ret", "indirect_jump", "call", "indirect_call"})
_MASK64 = (1 << 64) - 1

_REFUSED = {
    "sti": "opens an interrupt window of one instruction",
    "swapgs": "changes the GS base under the probe",
    "wrgsbase": "changes the GS base under the probe",
    "syscall": "enters the kernel",
    "sysenter": "enters the kernel",
    "xbegin": "names an abort address relative to itself",
    "lss": "opens an interrupt window of one instruction",
    "lgs": "changes the GS base under the probe",
    "hlt": "pairs with the instruction before it",
    "mwait": "pairs with the instruction before it",
    "mwaitx": "pairs with the instruction before it",
    "xabort": "ends a transaction that the probe would have ended",
    "xend": "ends a transaction that the probe would have ended",
}
_TRANSFERS = frozenset({"jump", "cond", "call", "ret", "indirect_jump", "indirect_call"})
_OPERAND_SIZE = 0x66
_PREFIXES = bytes((0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, _OPERAND_SIZE, 0x67, 0xF0, 0xF2, 0xF3))
_SEGMENTS: dict[int, str] = {
    Register.SS: "ss opens an interrupt window of one instruction",
    Register.GS: "gs changes the GS base under the probe",
}
_RSP = frozenset({Register.RSP})


class RelocateError(ProbekitError):
    """An instruction cannot be moved."""

    def __init__(self, reason: str, *, addr: int) -> None:
        super().__init__(f"the instruction at {addr:#x} cannot be moved: {reason}")
        self.addr = addr
        """Address of the instruction."""
        self.reason = reason
        """Why it cannot be moved, as a clause."""


@dataclass(frozen=True, slots=True)
class Relocated:
    """A run of instructions for another address."""

    addr: int
    """Its new address."""
    code: bytes
    """The bytes for that address."""
    falls_through: bool
    """False when no execution reaches its end."""


def why_not_movable(insn: Insn) -> str | None:
    """Return why ``insn`` must not be executed from a copy, or None. :func:`relocate` checks its operands' reach."""
    if insn.flow == "undefined":
        return "it is not an instruction"
    if insn.flow == "trap":
        return f"{insn.mnemonic} tells its handler its own address"
    if insn.mnemonic in _REFUSED:
        return f"{insn.mnemonic} {_REFUSED[insn.mnemonic]}"
    if insn.flow == "system":
        return f"{insn.mnemonic} changes privilege or segment"
    if insn.flow in _TRANSFERS and _OPERAND_SIZE in takewhile(_PREFIXES.__contains__, insn.raw):
        # Intel's processors ignore it here, AMD's cut the target to 16 bits (AMD APM 3, "Near Branches").
        return f"{insn.mnemonic} with an operand size prefix leads to different places on different processors"
    if insn.mnemonic in ("mov", "pop") and (segment := _segment_written(insn)) is not None:
        return f"{insn.mnemonic} {_SEGMENTS[segment]}"
    return None


def _segment_written(insn: Insn) -> int | None:
    """Return SS or GS where the instruction loads it, else None."""
    decoded = Decoder(64, insn.raw, ip=insn.addr).decode()
    written = decoded.op0_register if decoded.op0_kind == OpKind.REGISTER else Register.NONE
    return written if written in _SEGMENTS else None


def relocate(
    code: bytes, addr: int, new_addr: int, *, jump_back: bool = True, faulting: Container[int] = ()
) -> Relocated:
    """Move the instructions ``code`` from ``addr`` to ``new_addr``.

    ``jump_back``: end with a jump to what follows the originals, where control gets there.
    ``faulting``: addresses with an exception-table entry: a fault in a copy would not find its fix-up.
    Raises :class:`RelocateError`, which names the instruction that cannot be moved.
    """
    try:
        insns = list(decode_run(code, addr))
    except DecodeError as error:
        raise RelocateError("it is not an instruction, or is cut short", addr=error.addr) from error
    starts = frozenset(insn.addr for insn in insns)
    for index, insn in enumerate(insns):
        _check(insn, starts, addr, addr + len(code), new_addr)
        if insn.addr in faulting:
            raise RelocateError("a fault in it is handled by its address", addr=insn.addr)
        if insn.flow in ("call", "indirect_call") and index + 1 < len(insns):
            raise RelocateError("the call would return into the moved run", addr=insn.addr)
    end = addr + len(code)
    falls_through = not insns or insns[-1].flow not in _STOPS
    block = BlockEncoder(64)
    for decoded in Decoder(64, code, ip=addr):
        moved = _moved(decoded)
        if decoded.ip == addr:
            # A branch to the run's beginning goes to the original, not to the copy: the probe there fires again, and
            # no CPU loops in a copy that is to be freed (the kernel's `jmp .` in which a dead CPU waits).
            moved[0].ip = 0
        block.add_many(moved)
    if jump_back and falls_through:
        _check_reach(end, end, new_addr)
        block.add(Instruction.create_branch(Code.JMP_REL32_64, end))
    try:
        return Relocated(new_addr, bytes(block.encode(new_addr)), falls_through)
    except ValueError as error:
        raise RelocateError(str(error), addr=addr) from error


def relocate_jump(insn: bytes, addr: int, new_addr: int) -> bytes:
    """Return one jump or branch for ``new_addr``, with nothing after it. Raises :class:`RelocateError`."""
    return relocate(insn, addr, new_addr, jump_back=False).code


def _check(insn: Insn, starts: frozenset[int], lo: int, hi: int, new_addr: int) -> None:
    reason = why_not_movable(insn)
    if reason is not None:
        raise RelocateError(reason, addr=insn.addr)
    if insn.rip_target is not None:
        if lo <= insn.rip_target < hi:
            raise RelocateError("it refers to the moved bytes as data", addr=insn.addr)
        _check_reach(insn.addr, insn.rip_target, new_addr)
    if insn.target is not None and (insn.target == lo or insn.target not in starts):
        if lo < insn.target < hi:
            raise RelocateError("it jumps into the middle of a moved instruction", addr=insn.addr)
        _check_reach(insn.addr, insn.target, new_addr)


def _check_reach(addr: int, target: int, new_addr: int) -> None:
    # The CPU wraps around: gs:[rip + x] names per-CPU offsets near 0 from text near 2**64 (kernel commit 59bec00ace28).
    if (target - new_addr + _REACH) & _MASK64 >= 2 * _REACH:
        raise RelocateError(f"{target:#x} is out of reach from {new_addr:#x}", addr=addr)


def _moved(insn: Instruction) -> list[Instruction]:
    if insn.is_call_near:
        jump = Instruction.create_branch(Code.JMP_REL32_64, insn.near_branch_target)
        return [*_push_address(insn.next_ip, insn.ip), jump]
    if insn.is_call_near_indirect:
        return [*_push_address(insn.next_ip, insn.ip), _indirect_jump(insn)]
    return [insn]


def _push_address(value: int, ip: int) -> list[Instruction]:
    # 68 imm32                   push imm32 (sign-extended): enough for every kernel-text address
    # c7 44 24 04 imm32          mov dword ptr [rsp+4], high half: for the rest; flags stay as they are
    low = value & 0xFFFFFFFF
    signed = low - (1 << 32) if low >> 31 else low
    push = Instruction.create_i32(Code.PUSHQ_IMM32, signed)
    push.ip = ip  # branches within the run to the call now lead here
    if signed & _MASK64 == value:
        return [push]
    upper = MemoryOperand(Register.RSP, displ=4, displ_size=1)
    return [push, Instruction.create_mem_u32(Code.MOV_RM32_IMM32, upper, value >> 32)]


def _indirect_jump(insn: Instruction) -> Instruction:
    jump = insn.copy()
    jump.code = Code.JMP_RM64
    jump.ip = 0
    if insn.op0_kind == OpKind.REGISTER:
        if insn.op0_register in _RSP:
            raise RelocateError("it calls through the stack pointer, which the push has moved", addr=insn.ip)
        return jump
    if insn.memory_base in _RSP:
        # The pushed return address has moved RSP by 8.
        jump.memory_displacement = (insn.memory_displacement + 8) & _MASK64
        jump.memory_displ_size = 8
    return jump
