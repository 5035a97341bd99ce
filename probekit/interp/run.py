"""Evaluate one clause once.

The values of registers are Python integers (64-bit integers read as signed) and bytes without NUL. The record has the
bytes that the layout says:

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
from probekit.interp.calls import CallEnvironment, OperationFault, call_subroutine
from probekit.interp.memory import MAX_SIZE, BadAddress, NoScratch
from probekit.interp.state import ProgramState, Value
from probekit.ir import ops
from probekit.ir.names import BUILTINS
from probekit.ir.ops import BinOp, Clause, CmpOp, Op, Program, Reg
from probekit.lang.arith import COMPARE, compute, signed64, unsigned64
from probekit.lang.typed import ArithOp, CompareOp
from probekit.records import fresh, mutable_record, record

__all__ = ("EvalContext", "EvalFault", "Outcome", "Value", "run_clause")


class EvalContext(Protocol):
    """What a clause sees of the world. Integers may be signed or unsigned: only their low 64 bits count."""

    def arg(self, index: int) -> int:
        """Return ``argN`` of the probe that fired."""
        ...

    def builtin(self, name: str) -> Value:
        """Return a built-in variable of :data:`probekit.ir.names.BUILTINS`."""
        ...

    def load(self, var: int) -> Value:
        """Return a global integer, or a variable of ``this->`` that is no object; 0 before the first assignment."""
        ...

    def store(self, var: int, value: Value) -> None:
        """Assign such a variable."""
        ...

    def aggregate(self, agg: int, key: AggKey, value: int | None, weight: int = 1) -> None:
        """Add a datum to an aggregation.

        ``key``: as the consumer has it, with names for the parts that the probe decides; ``value``: None for
        ``count()``; ``weight``: the increment of a histogram's bucket.
        """
        ...

    def progenyof(self, pid: int) -> bool:
        """Return True when the process that fired the probe descends from ``pid``."""
        ...

    def stack(self, frames: int) -> bytes:
        """Return at most so many return addresses, innermost first, 8 bytes each."""
        ...

    def speculation(self) -> int:
        """Return the number of a free speculation, 0 when there is none."""
        ...


@record
class EvalFault:
    """Why and where the clause was aborted."""

    kind: FaultKind
    value: int | None = None
    """The word at fault, or None."""
    block: int = 0
    """Index of the block in the clause."""
    op: int = 0
    """Index of the operation in the block."""
    action: int = 0
    """How many actions had begun before the fault: ``arg2`` of the ERROR probe."""


@record
class Outcome:
    """What an evaluation gave."""

    fired: bool
    """True when the predicate held."""
    record: bytes | None = None
    """The payload; None when the clause records nothing, or was aborted."""
    fault: EvalFault | None = None
    """Why the clause was aborted; None when it was not."""


@mutable_record
class _Evaluation:
    """One clause while it is evaluated."""

    clause: Clause
    program: Program
    context: EvalContext
    state: ProgramState
    env: CallEnvironment
    registers: dict[Reg, Value] = fresh(dict)
    record: bytearray = fresh(bytearray)
    emitted: int = 0
    """How many fields have been emitted."""

    def integer(self, reg: Reg) -> int:
        """Return a register that holds an integer."""
        value = self.registers[reg]
        if not isinstance(value, int):
            raise InternalError(f"r{reg} holds a string, not an integer")
        return value

    def string(self, reg: Reg) -> bytes:
        """Return a register that holds a string."""
        value = self.registers[reg]
        if not isinstance(value, bytes):
            raise InternalError(f"r{reg} holds an integer, not a string")
        return value

    def key(self, keys: tuple[Reg, ...]) -> tuple[Value, ...]:
        """Return the key of an element; strings in it are cut as all strings are."""
        limit = self.program.string_size - 1
        values = (self.registers[key] for key in keys)
        return tuple(v if isinstance(v, int) else v[:limit] for v in values)


def run_clause(clause: Clause, program: Program, context: EvalContext, state: ProgramState | None = None) -> Outcome:
    """Evaluate the clause: its predicate, then its body.

    A fault ends it, but what it has stored before stays stored. ``state``: what the program keeps besides plain global
    integers; None: it keeps nothing.
    """
    state = state if state is not None else ProgramState(program)
    run = _Evaluation(
        clause, program, context, state, CallEnvironment(state, context.progenyof, context.speculation, context.stack)
    )
    if clause.record is not None:
        if clause.record.size > MAX_SIZE:
            return Outcome(True, fault=EvalFault(FaultKind.NOSCRATCH, 0))
        run.record = bytearray(clause.record.size)
    try:
        return _evaluate(run)
    finally:
        state.memory.end_clause()


def _evaluate(run: _Evaluation) -> Outcome:
    clause = run.clause
    index, fired = 0, False
    while True:
        block = clause.blocks[index]
        fired = fired or index == clause.body
        for at, op in enumerate(block.ops):
            try:
                _STEPS[type(op)](op, run)
            except (OperationFault, BadAddress, NoScratch) as failure:
                kind, value = _fault(failure)
                return Outcome(fired, fault=EvalFault(kind, value, index, at, run.emitted))
        match block.end:
            case ops.Jump(target=target):
                index = target
            case ops.Branch(cond=cond, then=then, orelse=orelse):
                index = then if run.integer(cond) else orelse
            case ops.Return():
                break
            case _:
                assert_never(block.end)
    return Outcome(fired, record=bytes(run.record) if fired and clause.record is not None else None)


def _fault(failure: OperationFault | BadAddress | NoScratch) -> tuple[FaultKind, int]:
    match failure:
        case OperationFault():
            return failure.kind, failure.value
        case BadAddress():
            return FaultKind.BADADDR, failure.addr
        case NoScratch():
            return FaultKind.NOSCRATCH, 0
    assert_never(failure)


# Operations that compute.


def _arg(op: ops.LoadArg, run: _Evaluation) -> None:
    run.registers[op.dst] = signed64(run.context.arg(op.index))


def _builtin(op: ops.LoadBuiltin, run: _Evaluation) -> None:
    value = _normalized(run.context.builtin(op.name))
    if isinstance(value, bytes) and BUILTINS[op.name].by_routine:
        value = value[: run.program.string_size - 1]
    run.registers[op.dst] = value


def _int(op: ops.Int, run: _Evaluation) -> None:
    run.registers[op.dst] = signed64(op.value)


def _string(op: ops.Str | ops.Copy, run: _Evaluation) -> None:
    run.registers[op.dst] = op.value if isinstance(op, ops.Str) else run.registers[op.src]


def _binary(op: ops.Bin, run: _Evaluation) -> None:
    run.registers[op.dst] = _arithmetic(op.op, run.integer(op.left), run.integer(op.right))


def _compare(op: ops.Cmp, run: _Evaluation) -> None:
    run.registers[op.dst] = _comparison(op.op, run.integer(op.left), run.integer(op.right))


def _compare_strings(op: ops.StrCmp, run: _Evaluation) -> None:
    # Bytes compare as unsigned characters do, and the NUL that ends the shorter string is less than any of them.
    run.registers[op.dst] = int(COMPARE[_COMPARISONS[op.op][0]](*_ranks(run, op.left, op.right)))


def _ext(op: ops.Ext, run: _Evaluation) -> None:
    run.registers[op.dst] = _extend(run.integer(op.src), op.bits, signed=op.signed)


def _call(op: ops.CallSubroutine, run: _Evaluation) -> None:
    run.registers[op.dst] = call_subroutine(op.name, [run.registers[a] for a in op.args], run.env)


# Variables.


def _in_context(run: _Evaluation, var: int) -> bool:
    """Return True for what the context keeps: global integers, which a guest may share, and ``this->`` scalars."""
    variable = run.program.variables[var]
    return variable.scope == "local" or (variable.scope == "global" and variable.kind == "int")


def _load(op: ops.LoadVar, run: _Evaluation) -> None:
    value = _normalized(run.context.load(op.var) if _in_context(run, op.var) else run.state.load(op.var))
    if value == 0 and run.program.variables[op.var].kind == "string":
        value = b""
    run.registers[op.dst] = value


def _store(op: ops.StoreVar, run: _Evaluation) -> None:
    value = run.registers[op.src]
    if isinstance(value, bytes):
        value = value[: run.program.variables[op.var].size - 1]
    (run.context.store if _in_context(run, op.var) else run.state.store)(op.var, value)


def _var_address(op: ops.VarAddress, run: _Evaluation) -> None:
    run.registers[op.dst] = run.state.address(op.var)


def _load_element(op: ops.LoadElem, run: _Evaluation) -> None:
    run.registers[op.dst] = run.state.load_element(op.var, run.key(op.keys))


def _store_element(op: ops.StoreElem, run: _Evaluation) -> None:
    value = run.registers[op.src]
    if isinstance(value, bytes):
        value = value[: run.program.variables[op.var].size - 1]
    run.state.store_element(op.var, run.key(op.keys), value)


def _element_address(op: ops.ElemAddress, run: _Evaluation) -> None:
    run.registers[op.dst] = run.state.element_address(op.var, run.key(op.keys), create=op.create)


# Memory.


def _load_memory(op: ops.LoadMem, run: _Evaluation) -> None:
    data = run.state.memory.read(run.integer(op.addr), op.size)
    run.registers[op.dst] = signed64(int.from_bytes(data, "little", signed=op.signed))


def _store_memory(op: ops.StoreMem, run: _Evaluation) -> None:
    data = (run.integer(op.src) & ((1 << 8 * op.size) - 1)).to_bytes(op.size, "little")
    run.state.memory.write(run.integer(op.addr), data)


def _load_string(op: ops.LoadStr, run: _Evaluation) -> None:
    most = run.program.string_size - 1
    limit = min(op.limit, most) if op.limit else most
    run.registers[op.dst] = run.state.memory.read_string(run.integer(op.addr), limit)


def _store_string(op: ops.StoreStr, run: _Evaluation) -> None:
    data = run.string(op.src)[: max(op.size - 1, 0)].ljust(op.size, b"\0")
    run.state.memory.write(run.integer(op.addr), data)


def _string_address(op: ops.StrAddress, run: _Evaluation) -> None:
    run.registers[op.dst] = run.state.memory.copy_string(run.string(op.src))


def _copy_memory(op: ops.CopyMem, run: _Evaluation) -> None:
    memory, source = run.state.memory, run.integer(op.source)
    # A missing element reads as zeros, as any variable does before its first assignment.
    memory.write(run.integer(op.target), memory.read(source, op.size) if source else bytes(op.size))


# Effects.


def _field(run: _Evaluation, number: int) -> RecordField:
    if run.clause.record is None:
        raise InternalError("a clause that emits fields has no record plan")
    return run.clause.record.fields[number]


def _emit_value(op: ops.Emit, run: _Evaluation) -> None:
    run.emitted += 1
    _write_field(_field(run, op.field), run.registers[op.src], run.record)


def _emit_memory(op: ops.EmitMem, run: _Evaluation) -> None:
    field = _field(run, op.field)
    data = run.state.memory.read(run.integer(op.addr), field.size)
    run.emitted += 1
    run.record[field.offset : field.offset + field.size] = data


def _aggregate(op: ops.UpdateAgg, run: _Evaluation) -> None:
    value = None if op.value is None else run.integer(op.value)
    weight = 1 if op.weight is None else run.integer(op.weight)
    run.context.aggregate(op.agg, _key(run, op), value, weight)


_STEPS: dict[type[Op], Callable[[Any, _Evaluation], None]] = {
    ops.UpdateAgg: _aggregate,
    ops.LoadArg: _arg,
    ops.Bin: _binary,
    ops.LoadBuiltin: _builtin,
    ops.CallSubroutine: _call,
    ops.Cmp: _compare,
    ops.Copy: _string,
    ops.CopyMem: _copy_memory,
    ops.ElemAddress: _element_address,
    ops.Emit: _emit_value,
    ops.EmitMem: _emit_memory,
    ops.Ext: _ext,
    ops.Int: _int,
    ops.LoadElem: _load_element,
    ops.LoadMem: _load_memory,
    ops.LoadStr: _load_string,
    ops.LoadVar: _load,
    ops.StoreElem: _store_element,
    ops.StoreMem: _store_memory,
    ops.StoreStr: _store_string,
    ops.StoreVar: _store,
    ops.Str: _string,
    ops.StrAddress: _string_address,
    ops.StrCmp: _compare_strings,
    ops.VarAddress: _var_address,
}


def _normalized(value: Value) -> Value:
    """Return a value from the context as registers hold it: a signed integer, or a string up to its NUL."""
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


def _arithmetic(op: BinOp, left: int, right: int) -> int:
    name, signed = _BINARY[op]
    try:
        return signed64(compute(name, left, right, signed=signed))
    except ZeroDivisionError:
        raise OperationFault(FaultKind.DIVZERO) from None


def _comparison(op: CmpOp, left: int, right: int) -> int:
    name, signed = _COMPARISONS[op]
    if not signed:
        left, right = unsigned64(left), unsigned64(right)
    return int(COMPARE[name](left, right))


def _ranks(run: _Evaluation, left: Reg, right: Reg) -> tuple[int, int]:
    """Return two integers that compare as the two strings do."""
    a, b = run.string(left), run.string(right)
    return (a > b) - (a < b), 0


def _extend(value: int, bits: int, *, signed: bool) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if signed and value >> (bits - 1) else value


def _write_field(field: RecordField, value: Value, record: bytearray) -> None:
    if isinstance(value, int):
        data = (value & ((1 << 8 * field.size) - 1)).to_bytes(field.size, "little")
    else:
        most = field.size if field.kind == "stack" else field.size - 1
        data = value[:most].ljust(field.size, b"\0")
    record[field.offset : field.offset + field.size] = data


def _key(run: _Evaluation, op: ops.UpdateAgg) -> AggKey:
    parts: Sequence[KeyPart] = run.program.aggregations[op.agg].keys
    return tuple(_key_part(run, part, reg) for part, reg in zip(parts, op.keys, strict=True))


def _key_part(run: _Evaluation, part: KeyPart, reg: Reg | None) -> int | str | bytes:
    if part.kind == "probe":
        name = _normalized(run.context.builtin(part.detail))
        if not isinstance(name, bytes):
            raise InternalError(f"{part.detail} is not a string")
        return name.decode("utf-8", "backslashreplace")
    if reg is None:
        raise InternalError("a part of a key that the probe does not decide has no register")
    match part.kind:
        case "string":
            return run.string(reg)[: part.size - 1]
        case "stack":
            return run.string(reg)[: part.size].ljust(part.size, b"\0")
        case "int" | "uint":
            return _extend(run.integer(reg), part.bits, signed=part.kind == "int")
        case _:
            assert_never(part.kind)
