"""Evaluate one clause once.

The values of registers are Python integers (64-bit integers read as signed) and
bytes without NUL. What leaves is what the layout says, byte for byte:

    trace(pid)  pid = 7     ->  Outcome(fired=True, record=b"\\7\\0\\0\\0\\0\\0\\0\\0", fault=None)
    trace(1 / arg0)  0      ->  Outcome(fired=True, record=None, fault=Fault(DIVZERO))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, assert_never

from probekit.buffers.actions import Field
from probekit.buffers.aggs import AggKey, KeyPart
from probekit.buffers.layout import FaultKind
from probekit.ir import ops
from probekit.ir.ops import BinOp, Clause, CmpOp, Op, Program
from probekit.lang.arith import COMPARE, compute, signed64, unsigned64
from probekit.lang.typed import ArithOp, CompareOp

__all__ = ("Context", "Fault", "Outcome", "Value", "run_clause")

Value = int | bytes
"""What a register or variable holds: an integer, or a string without its NUL."""


class Context(Protocol):
    """What a clause sees of the world. Integers may come signed or unsigned: their low 64 bits count."""

    def arg(self, index: int) -> int:
        """``argN`` of the probe that fired."""
        ...

    def builtin(self, name: str) -> Value:
        """A built-in variable of ``ir.ops.BUILTINS``."""
        ...

    def load(self, var: int) -> Value:
        """A variable's value; 0 before the first store."""
        ...

    def store(self, var: int, value: Value) -> None:
        """Assign a variable."""
        ...

    def aggregate(self, agg: int, key: AggKey, value: int | None) -> None:
        """Feed an aggregation. ``key`` is as the consumer has it: text for the parts that the probe decides."""
        ...


@dataclass(frozen=True, slots=True)
class Fault:
    """Why the clause was aborted. ``value``: the word at fault, or None. ``block`` and ``op``: where in the clause."""

    kind: FaultKind
    value: int | None = None
    block: int = 0
    op: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """``fired``: the predicate held. ``record``: the payload, None when the clause records nothing or was aborted."""

    fired: bool
    record: bytes | None = None
    fault: Fault | None = None


class _Abort(Exception):
    def __init__(self, kind: FaultKind) -> None:
        super().__init__(kind.name)
        self.kind = kind


@dataclass(slots=True)
class _Firing:
    clause: Clause
    program: Program
    context: Context
    registers: dict[int, Value] = field(default_factory=dict)
    record: bytearray = field(default_factory=bytearray)

    def integer(self, reg: int) -> int:
        value = self.registers[reg]
        assert isinstance(value, int)
        return value

    def text(self, reg: int) -> bytes:
        value = self.registers[reg]
        assert isinstance(value, bytes)
        return value


def run_clause(clause: Clause, program: Program, context: Context) -> Outcome:
    """Evaluate the clause: predicate, then body. A fault ends it; what it stored before that stays stored."""
    firing = _Firing(clause, program, context)
    if clause.record is not None:
        firing.record = bytearray(clause.record.size)
    index, fired = 0, False
    while True:
        block = clause.blocks[index]
        fired = fired or index == clause.body
        for at, op in enumerate(block.ops):
            try:
                _step(op, firing)
            except _Abort as abort:
                return Outcome(fired, fault=Fault(abort.kind, block=index, op=at))
        match block.end:
            case ops.Jump(target=target):
                index = target
            case ops.Branch(cond=cond, then=then, orelse=orelse):
                index = then if firing.integer(cond) else orelse
            case ops.Return():
                break
            case _:
                assert_never(block.end)
    return Outcome(fired, record=bytes(firing.record) if fired and clause.record is not None else None)


def _step(op: Op, firing: _Firing) -> None:
    registers = firing.registers
    match op:
        case ops.Int():
            registers[op.dst] = signed64(op.value)
        case ops.Str():
            registers[op.dst] = op.value
        case ops.Arg():
            registers[op.dst] = signed64(firing.context.arg(op.index))
        case ops.Builtin():
            registers[op.dst] = _clean(firing.context.builtin(op.name))
        case ops.Bin():
            registers[op.dst] = _bin(op.op, firing.integer(op.left), firing.integer(op.right))
        case ops.Cmp():
            registers[op.dst] = _cmp(op.op, firing.integer(op.left), firing.integer(op.right))
        case ops.StrCmp():
            # bytes compare as unsigned characters do, and a NUL that ends the shorter one is less than any of them
            registers[op.dst] = int(COMPARE[_COMPARISONS[op.op][0]](*_ranks(firing, op.left, op.right)))
        case ops.Ext():
            registers[op.dst] = _extend(firing.integer(op.src), op.bits, signed=op.signed)
        case ops.LoadVar():
            registers[op.dst] = _clean(firing.context.load(op.var))
        case ops.StoreVar():
            firing.context.store(op.var, registers[op.src])
        case ops.Emit():
            assert firing.clause.record is not None
            _emit(firing.clause.record.fields[op.field], registers[op.src], firing.record)
        case ops.Aggregate():
            value = None if op.value is None else firing.integer(op.value)
            firing.context.aggregate(op.agg, _key(firing, op), value)
        case _:
            assert_never(op)


def _clean(value: Value) -> Value:
    return signed64(value) if isinstance(value, int) else value.split(b"\0", 1)[0]


_BINARY: dict[BinOp, tuple[ArithOp, bool]] = {
    BinOp.ADD: ("add", True),
    BinOp.SUB: ("sub", True),
    BinOp.MUL: ("mul", True),
    BinOp.SDIV: ("div", True),
    BinOp.UDIV: ("div", False),
    BinOp.SREM: ("rem", True),
    BinOp.UREM: ("rem", False),
    BinOp.AND: ("and", True),
    BinOp.OR: ("or", True),
    BinOp.XOR: ("xor", True),
    BinOp.SHL: ("shl", True),
    BinOp.SAR: ("shr", True),
    BinOp.SHR: ("shr", False),
}

_COMPARISONS: dict[CmpOp, tuple[CompareOp, bool]] = {
    CmpOp.EQ: ("eq", True),
    CmpOp.NE: ("ne", True),
    CmpOp.SLT: ("lt", True),
    CmpOp.SLE: ("le", True),
    CmpOp.SGT: ("gt", True),
    CmpOp.SGE: ("ge", True),
    CmpOp.ULT: ("lt", False),
    CmpOp.ULE: ("le", False),
    CmpOp.UGT: ("gt", False),
    CmpOp.UGE: ("ge", False),
}


def _bin(op: BinOp, left: int, right: int) -> int:
    name, signed = _BINARY[op]
    try:
        return signed64(compute(name, left, right, signed=signed))
    except ZeroDivisionError:
        raise _Abort(FaultKind.DIVZERO) from None


def _cmp(op: CmpOp, left: int, right: int) -> int:
    name, signed = _COMPARISONS[op]
    if not signed:
        left, right = unsigned64(left), unsigned64(right)
    return int(COMPARE[name](left, right))


def _ranks(firing: _Firing, left: int, right: int) -> tuple[int, int]:
    """The two strings as integers that compare as they do."""
    a, b = firing.text(left), firing.text(right)
    return (a > b) - (a < b), 0


def _extend(value: int, bits: int, *, signed: bool) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if signed and value >> (bits - 1) else value


def _emit(place: Field, value: Value, record: bytearray) -> None:
    if isinstance(value, int):
        data = (value & ((1 << 8 * place.size) - 1)).to_bytes(place.size, "little")
    else:
        data = value[: place.size - 1].ljust(place.size, b"\0")
    record[place.offset : place.offset + place.size] = data


def _key(firing: _Firing, op: ops.Aggregate) -> AggKey:
    parts: Sequence[KeyPart] = firing.program.aggregations[op.agg].keys
    return tuple(_key_part(firing, part, reg) for part, reg in zip(parts, op.keys, strict=True))


def _key_part(firing: _Firing, part: KeyPart, reg: int | None) -> int | str | bytes:
    match part.kind:
        case "probe":
            name = _clean(firing.context.builtin(part.detail))
            assert isinstance(name, bytes)
            return name.decode("utf-8", "backslashreplace")
        case "string":
            assert reg is not None
            return firing.text(reg)[: part.size - 1]
        case "int" | "uint":
            assert reg is not None
            return _extend(firing.integer(reg), part.bits, signed=part.kind == "int")
        case _:
            assert_never(part.kind)
