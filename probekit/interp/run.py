"""Evaluate one clause once.

The values of registers are Python integers (64-bit integers read as signed) and
bytes without NUL. What leaves is what the layout says, byte for byte:

    trace(pid)  pid = 7     ->  Outcome(fired=True, record=b"\\7\\0\\0\\0\\0\\0\\0\\0", fault=None)
    trace(1 / arg0)  0      ->  Outcome(fired=True, record=None, fault=EvalFault(DIVZERO))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, assert_never

from probekit.buffers.actions import RecordField
from probekit.buffers.aggs import AggKey, KeyPart
from probekit.buffers.layout import FaultKind
from probekit.errors import InternalError
from probekit.interp.calls import CallEnvironment, SubroutineFault, call
from probekit.interp.memory import LARGEST, BadAddress, NoScratch
from probekit.interp.state import ProgramState, Value
from probekit.ir import ops
from probekit.ir.names import BUILTINS
from probekit.ir.ops import BinOp, Clause, CmpOp, Op, Program
from probekit.lang.arith import COMPARE, compute, signed64, unsigned64
from probekit.lang.typed import ArithOp, CompareOp
from probekit.records import fresh, mutable_record, record

__all__ = ("EvalContext", "EvalFault", "Outcome", "Value", "run_clause")


class EvalContext(Protocol):
    """What a clause sees of the world. Integers may come signed or unsigned: their low 64 bits count."""

    def arg(self, index: int) -> int:
        """``argN`` of the probe that fired."""
        ...

    def builtin(self, name: str) -> Value:
        """A built-in variable of ``ir.names.BUILTINS``."""
        ...

    def load(self, var: int) -> Value:
        """A global integer, or anything of ``this->`` that is no object; 0 before the first store."""
        ...

    def store(self, var: int, value: Value) -> None:
        """Assign it."""
        ...

    def aggregate(self, agg: int, key: AggKey, value: int | None, weight: int = 1) -> None:
        """Feed an aggregation. ``key`` is as the consumer has it: text for the parts that the probe decides."""
        ...

    def progenyof(self, pid: int) -> bool:
        """True when the process that fired the probe descends from ``pid``."""
        ...

    def stack(self, frames: int) -> bytes:
        """At most so many return addresses, 8 bytes each."""
        ...

    def speculation(self) -> int:
        """The number of a free speculation, 0 when there is none."""
        ...


@record
class EvalFault:
    """Why the clause was aborted. ``value``: the word at fault, or None. ``block`` and ``op``: where in the clause.

    ``action``: how many actions had begun before it, which is what ERROR's ``arg2`` says.
    """

    kind: FaultKind
    value: int | None = None
    block: int = 0
    op: int = 0
    action: int = 0


@record
class Outcome:
    """``fired``: the predicate held. ``record``: the payload, None when the clause records nothing or was aborted."""

    fired: bool
    record: bytes | None = None
    fault: EvalFault | None = None


@mutable_record
class _Firing:
    """One clause while it runs."""

    clause: Clause
    program: Program
    context: EvalContext
    state: ProgramState
    callee: CallEnvironment
    registers: dict[int, Value] = fresh(dict)
    record: bytearray = fresh(bytearray)
    emitted: int = 0

    def integer(self, reg: int) -> int:
        value = self.registers[reg]
        if not isinstance(value, int):
            raise InternalError("a register holds no integer")
        return value

    def text(self, reg: int) -> bytes:
        value = self.registers[reg]
        if not isinstance(value, bytes):
            raise InternalError("a register holds no string")
        return value

    def key(self, keys: tuple[int, ...]) -> tuple[Value, ...]:
        limit = self.program.string_size - 1
        values = (self.registers[key] for key in keys)
        return tuple(v if isinstance(v, int) else v[:limit] for v in values)


def run_clause(clause: Clause, program: Program, context: EvalContext, state: ProgramState | None = None) -> Outcome:
    """Evaluate the clause: predicate, then body. A fault ends it; what it stored before that stays stored.

    ``state``: what the program keeps beside plain global integers; without it, it keeps nothing.
    """
    state = state if state is not None else ProgramState(program)
    firing = _Firing(
        clause, program, context, state, CallEnvironment(state, context.progenyof, context.speculation, context.stack)
    )
    if clause.record is not None:
        if clause.record.size > LARGEST:
            return Outcome(True, fault=EvalFault(FaultKind.NOSCRATCH, 0))
        firing.record = bytearray(clause.record.size)
    try:
        return _run(firing)
    finally:
        state.memory.end_clause()


def _run(firing: _Firing) -> Outcome:
    clause = firing.clause
    index, fired = 0, False
    while True:
        block = clause.blocks[index]
        fired = fired or index == clause.body
        for at, op in enumerate(block.ops):
            try:
                _STEPS[type(op)](op, firing)
            except (SubroutineFault, BadAddress, NoScratch) as failure:
                kind, value = _fault(failure)
                return Outcome(fired, fault=EvalFault(kind, value, index, at, firing.emitted))
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


def _fault(failure: SubroutineFault | BadAddress | NoScratch) -> tuple[FaultKind, int]:
    match failure:
        case SubroutineFault():
            return failure.kind, failure.value
        case BadAddress():
            return FaultKind.BADADDR, failure.addr
        case NoScratch():
            return FaultKind.NOSCRATCH, 0
    assert_never(failure)


# Operations that compute.


def _arg(op: ops.LoadArg, firing: _Firing) -> None:
    firing.registers[op.dst] = signed64(firing.context.arg(op.index))


def _builtin(op: ops.LoadBuiltin, firing: _Firing) -> None:
    value = _clean(firing.context.builtin(op.name))
    if isinstance(value, bytes) and BUILTINS[op.name].by_routine:
        value = value[: firing.program.string_size - 1]
    firing.registers[op.dst] = value


def _int(op: ops.Int, firing: _Firing) -> None:
    firing.registers[op.dst] = signed64(op.value)


def _str(op: ops.Str | ops.Copy, firing: _Firing) -> None:
    firing.registers[op.dst] = op.value if isinstance(op, ops.Str) else firing.registers[op.src]


def _binary(op: ops.Bin, firing: _Firing) -> None:
    firing.registers[op.dst] = _bin(op.op, firing.integer(op.left), firing.integer(op.right))


def _compare(op: ops.Cmp, firing: _Firing) -> None:
    firing.registers[op.dst] = _cmp(op.op, firing.integer(op.left), firing.integer(op.right))


def _compare_text(op: ops.StrCmp, firing: _Firing) -> None:
    # bytes compare as unsigned characters do, and a NUL that ends the shorter one is less than any of them
    firing.registers[op.dst] = int(COMPARE[_COMPARISONS[op.op][0]](*_ranks(firing, op.left, op.right)))


def _ext(op: ops.Ext, firing: _Firing) -> None:
    firing.registers[op.dst] = _extend(firing.integer(op.src), op.bits, signed=op.signed)


def _call(op: ops.CallSubroutine, firing: _Firing) -> None:
    firing.registers[op.dst] = call(op.name, [firing.registers[a] for a in op.args], firing.callee)


# Variables.


def _in_context(firing: _Firing, var: int) -> bool:
    """True for what the context keeps: global integers, which a guest may share, and plain ``this->``."""
    variable = firing.program.variables[var]
    return variable.scope == "local" or (variable.scope == "global" and variable.kind == "int")


def _load(op: ops.LoadVar, firing: _Firing) -> None:
    value = _clean(firing.context.load(op.var) if _in_context(firing, op.var) else firing.state.load(op.var))
    if value == 0 and firing.program.variables[op.var].kind == "string":
        value = b""
    firing.registers[op.dst] = value


def _store(op: ops.StoreVar, firing: _Firing) -> None:
    value = firing.registers[op.src]
    if isinstance(value, bytes):
        value = value[: firing.program.variables[op.var].size - 1]
    (firing.context.store if _in_context(firing, op.var) else firing.state.store)(op.var, value)


def _var_address(op: ops.VarAddress, firing: _Firing) -> None:
    firing.registers[op.dst] = firing.state.address(op.var)


def _load_element(op: ops.LoadElem, firing: _Firing) -> None:
    firing.registers[op.dst] = firing.state.load_element(op.var, firing.key(op.keys))


def _store_element(op: ops.StoreElem, firing: _Firing) -> None:
    value = firing.registers[op.src]
    if isinstance(value, bytes):
        value = value[: firing.program.variables[op.var].size - 1]
    firing.state.store_element(op.var, firing.key(op.keys), value)


def _element_address(op: ops.ElemAddress, firing: _Firing) -> None:
    firing.registers[op.dst] = firing.state.element_address(op.var, firing.key(op.keys), create=op.create)


# Memory.


def _load_memory(op: ops.LoadMem, firing: _Firing) -> None:
    data = firing.state.memory.read(firing.integer(op.addr), op.size)
    firing.registers[op.dst] = signed64(int.from_bytes(data, "little", signed=op.signed))


def _store_memory(op: ops.StoreMem, firing: _Firing) -> None:
    data = (firing.integer(op.src) & ((1 << 8 * op.size) - 1)).to_bytes(op.size, "little")
    firing.state.memory.write(firing.integer(op.addr), data)


def _load_text(op: ops.LoadStr, firing: _Firing) -> None:
    most = firing.program.string_size - 1
    limit = min(op.limit, most) if op.limit else most
    firing.registers[op.dst] = firing.state.memory.string(firing.integer(op.addr), limit)


def _store_text(op: ops.StoreStr, firing: _Firing) -> None:
    data = firing.text(op.src)[: max(op.size - 1, 0)].ljust(op.size, b"\0")
    firing.state.memory.write(firing.integer(op.addr), data)


def _text_address(op: ops.StrAddress, firing: _Firing) -> None:
    firing.registers[op.dst] = firing.state.memory.text(firing.text(op.src))


def _copy_memory(op: ops.CopyMem, firing: _Firing) -> None:
    memory, source = firing.state.memory, firing.integer(op.source)
    # an element that is not there reads as zeros, as any variable does before its first assignment
    memory.write(firing.integer(op.target), memory.read(source, op.size) if source else bytes(op.size))


# Effects.


def _emit_value(op: ops.Emit, firing: _Firing) -> None:
    if firing.clause.record is None:
        raise InternalError("a clause emits fields and has no record")
    firing.emitted += 1
    _emit(firing.clause.record.fields[op.field], firing.registers[op.src], firing.record)


def _emit_memory(op: ops.EmitMem, firing: _Firing) -> None:
    if firing.clause.record is None:
        raise InternalError("a clause emits fields and has no record")
    place = firing.clause.record.fields[op.field]
    data = firing.state.memory.read(firing.integer(op.addr), place.size)
    firing.emitted += 1
    firing.record[place.offset : place.offset + place.size] = data


def _aggregate(op: ops.UpdateAgg, firing: _Firing) -> None:
    value = None if op.value is None else firing.integer(op.value)
    weight = 1 if op.weight is None else firing.integer(op.weight)
    firing.context.aggregate(op.agg, _key(firing, op), value, weight)


_STEPS: dict[type[Op], Callable[[Any, _Firing], None]] = {
    ops.UpdateAgg: _aggregate,
    ops.LoadArg: _arg,
    ops.Bin: _binary,
    ops.LoadBuiltin: _builtin,
    ops.CallSubroutine: _call,
    ops.Cmp: _compare,
    ops.Copy: _str,
    ops.CopyMem: _copy_memory,
    ops.ElemAddress: _element_address,
    ops.Emit: _emit_value,
    ops.EmitMem: _emit_memory,
    ops.Ext: _ext,
    ops.Int: _int,
    ops.LoadElem: _load_element,
    ops.LoadMem: _load_memory,
    ops.LoadStr: _load_text,
    ops.LoadVar: _load,
    ops.StoreElem: _store_element,
    ops.StoreMem: _store_memory,
    ops.StoreStr: _store_text,
    ops.StoreVar: _store,
    ops.Str: _str,
    ops.StrAddress: _text_address,
    ops.StrCmp: _compare_text,
    ops.VarAddress: _var_address,
}


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
        raise SubroutineFault(FaultKind.DIVZERO) from None


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


def _emit(place: RecordField, value: Value, record: bytearray) -> None:
    if isinstance(value, int):
        data = (value & ((1 << 8 * place.size) - 1)).to_bytes(place.size, "little")
    else:
        most = place.size if place.kind == "stack" else place.size - 1
        data = value[:most].ljust(place.size, b"\0")
    record[place.offset : place.offset + place.size] = data


def _key(firing: _Firing, op: ops.UpdateAgg) -> AggKey:
    parts: Sequence[KeyPart] = firing.program.aggregations[op.agg].keys
    return tuple(_key_part(firing, part, reg) for part, reg in zip(parts, op.keys, strict=True))


def _key_part(firing: _Firing, part: KeyPart, reg: int | None) -> int | str | bytes:
    match part.kind:
        case "probe":
            name = _clean(firing.context.builtin(part.detail))
            if not isinstance(name, bytes):
                raise InternalError("a name is not a string")
            return name.decode("utf-8", "backslashreplace")
        case "string":
            if reg is None:
                raise InternalError("an operation was not given the register that it needs")
            return firing.text(reg)[: part.size - 1]
        case "stack":
            if reg is None:
                raise InternalError("an operation was not given the register that it needs")
            return firing.text(reg)[: part.size].ljust(part.size, b"\0")
        case "int" | "uint":
            if reg is None:
                raise InternalError("an operation was not given the register that it needs")
            return _extend(firing.integer(reg), part.bits, signed=part.kind == "int")
        case _:
            assert_never(part.kind)
