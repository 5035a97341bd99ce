"""Write the code of arithmetic, comparison and conversion, by way of ``rax``.

r2 = add r0, 5       mov rax, [rsp]; add rax, 0x5; mov [rsp+0x10], rax
r2 = sdiv r0, r1     a test for 0, which is a fault, and for -1, whose quotient is a negation
"""

from __future__ import annotations

from collections.abc import Iterator

from probekit.buffers.layout import FaultKind
from probekit.codegen.emit_context import EmitContext
from probekit.ir.ops import Bin, BinOp, Cmp, CmpOp, Ext, StrCmp

__all__ = ("CONDITIONS", "OPPOSITE", "binary", "compare", "compare_to_bool", "extend")

_SIMPLE = {BinOp.ADD: "add", BinOp.SUB: "sub", BinOp.AND: "and", BinOp.OR: "or", BinOp.XOR: "xor", BinOp.MUL: "imul"}
_SHIFTS = {BinOp.SHL: "shl", BinOp.SAR: "sar", BinOp.SHR: "shr"}
_DIVISIONS = {BinOp.SDIV: "rax", BinOp.UDIV: "rax", BinOp.SREM: "rdx", BinOp.UREM: "rdx"}

CONDITIONS: dict[CmpOp, str] = {
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
"""The condition code of each comparison (Intel SDM, volume 1, appendix B)."""

OPPOSITE = {"e": "ne", "l": "ge", "le": "g", "b": "ae", "be": "a"}
OPPOSITE |= {other: condition for condition, other in OPPOSITE.items()}
"""The condition code that holds exactly when another does not."""

_EXTEND = {
    (8, True): "movsx rax, al",
    (16, True): "movsx rax, ax",
    (32, True): "movsxd rax, eax",
    (8, False): "movzx eax, al",
    (16, False): "movzx eax, ax",
    (32, False): "mov eax, eax",
}


def compare(op: Cmp | StrCmp, emit: EmitContext) -> Iterator[str]:
    """Set the flags for ``op.op``: one of :data:`CONDITIONS` then holds or not."""
    operands = emit.operands
    if isinstance(op, Cmp):
        yield from operands.load_first("rax", op.left)
        yield from operands.apply("cmp", op.right)
    else:
        yield from operands.load_first("rdi", op.left)
        yield from operands.load("rsi", op.right)
        yield emit.call_routine("compare_strings")
        yield "test eax, eax"


def compare_to_bool(op: Cmp | StrCmp, emit: EmitContext) -> Iterator[str]:
    """Set a register to 1 when a comparison holds, else to 0."""
    yield from compare(op, emit)
    yield from (f"set{CONDITIONS[op.op]} al", "movzx eax, al")
    yield from emit.operands.set_from_rax(op.dst)


def extend(op: Ext, emit: EmitContext) -> Iterator[str]:
    """Extend the low bits of a value to 64 bits."""
    yield from emit.operands.load_first("rax", op.src)
    yield _EXTEND[op.bits, op.signed]
    yield from emit.operands.set_from_rax(op.dst)


def binary(op: Bin, emit: EmitContext) -> Iterator[str]:
    """Compute ``left op right``. A division by zero is a fault."""
    operands = emit.operands
    yield from operands.load_first("rax", op.left)
    if op.op in _SIMPLE:
        yield from operands.apply(_SIMPLE[op.op], op.right)
    elif op.op in _SHIFTS:
        count = operands.immediate(op.right)
        if count is not None:
            yield f"{_SHIFTS[op.op]} rax, {count & 63}"
        else:
            yield from operands.load("rcx", op.right)
            yield f"{_SHIFTS[op.op]} rax, cl"
    else:
        yield from _divide(op, emit)
    yield from operands.set_from_rax(op.dst)


def _divide(op: Bin, emit: EmitContext) -> Iterator[str]:
    """Set rax to the quotient or remainder of rax and a register.

    -2**63 / -1 wraps, where the instruction would trap (#DE; Intel SDM, IDIV).
    """
    yield from emit.operands.load("rcx", op.right)
    yield "test rcx, rcx"
    yield f"jz {emit.fault_label(FaultKind.DIVZERO)}"
    if op.op in (BinOp.UDIV, BinOp.UREM):
        yield "xor edx, edx"
        yield "div rcx"
    else:
        label = emit.new_label()
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
