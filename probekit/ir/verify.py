"""Check what every IR program must satisfy. The tests run it between passes.

- blocks: at least one; a terminator names later blocks; the last returns
- registers: within the clause's count, of one kind, written on every path before they are read
- numbers: built-ins, variables, fields, aggregations exist; widths are 8, 16 or 32
- effects: only from the body on; every path through it emits every field that has bytes exactly once
- records: fields inside the record and apart from one another; actions name fields that exist
- aggregations: a register for each part of the key but a probe part; a value exactly when the function takes one
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

from probekit.buffers.actions import Action, RecordField, RecordPlan
from probekit.buffers.aggs import AGG_FUNCS, KeyPart
from probekit.errors import InternalError
from probekit.ir import ops
from probekit.ir.names import BUILTINS, CALLS
from probekit.ir.operands import operands
from probekit.ir.ops import BasicBlock, Clause, Kind, Op, Program, Reg, Terminator

__all__ = ("Violation", "verify_clause", "verify_program")

_ARGS = 10


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken rule."""

    clause: int
    """Index of the clause; -1 for the program's tables."""
    block: int
    """Index of the block in the clause."""
    op: int | None
    """Index of the operation in the block; None for the block, record or clause itself."""
    text: str
    """What is wrong."""


def verify_program(program: Program) -> list[Violation]:
    """Return everything that is wrong with a program: nothing when it is sound."""
    found = [Violation(-1, 0, None, t) for t in _tables(program)]
    for clause in program.clauses:
        found.extend(verify_clause(clause, program))
    return found


def verify_clause(clause: Clause, program: Program) -> list[Violation]:
    """Return everything that is wrong with a clause. A check runs only when those before it have found nothing."""
    for check in (_check_blocks, _check_numbers, _check_registers, _check_record, _check_effects):
        found = [Violation(clause.index, block, op, text) for block, op, text in check(clause, program)]
        if found:
            return found
    return []


_Found = Iterator[tuple[int, int | None, str]]


def _tables(program: Program) -> Iterator[str]:
    for kind, indexes in (
        ("clause", [c.index for c in program.clauses]),
        ("variable", [v.index for v in program.variables]),
        ("aggregation", [a.index for a in program.aggregations]),
    ):
        if indexes != list(range(len(indexes))):
            yield f"{kind} indexes are {indexes}"


def _targets(end: Terminator) -> tuple[int, ...]:
    match end:
        case ops.Jump():
            return (end.target,)
        case ops.Branch():
            return (end.then, end.orelse)
        case ops.Return():
            return ()


def _check_blocks(clause: Clause, _program: Program) -> _Found:
    count = len(clause.blocks)
    if not count:
        yield 0, None, "no blocks"
        return
    if not 0 <= clause.body < count:
        yield 0, None, f"body b{clause.body} does not exist"
    for index, block in enumerate(clause.blocks):
        for target in _targets(block.end):
            if not index < target < count:
                yield index, None, f"b{target} is not a later block"


def _check_numbers(clause: Clause, program: Program) -> _Found:
    for index, block in enumerate(clause.blocks):
        for position, op in enumerate(block.ops):
            if text := _bad_number(op, clause, program):
                yield index, position, text


def _bad_number(op: Op, clause: Clause, program: Program) -> str:
    count = len(clause.record.fields) if clause.record else 0
    match op:
        case ops.Int() if not -(1 << 63) <= op.value < 1 << 64:
            return f"{op.value} does not fit in 64 bits"
        case ops.Str() if b"\0" in op.value:
            return "string constant with a NUL"
        case ops.LoadArg() if not 0 <= op.index < _ARGS:
            return f"no arg{op.index}"
        case ops.LoadBuiltin() if op.name not in BUILTINS:
            return f"no built-in {op.name}"
        case ops.Ext() if op.bits not in (8, 16, 32):
            return f"extension from {op.bits} bits"
        case ops.LoadMem() | ops.StoreMem() if op.size not in (1, 2, 4, 8):
            return f"an integer of {op.size} bytes in memory"
        case ops.StoreStr() | ops.CopyMem() if op.size < 0:
            return f"{op.size} bytes of memory"
        case ops.CallSubroutine() if op.name not in CALLS:
            return f"no subroutine {op.name}"
        case ops.CallSubroutine() if not _call_fits(op):
            return f"{op.name}() with {len(op.args)} arguments"
        case ops.LoadVar() | ops.StoreVar() | ops.VarAddress() | ops.LoadElem() | ops.StoreElem() | ops.ElemAddress():
            return _bad_variable(op, program)
        case ops.Emit() | ops.EmitMem() if not 0 <= op.field < count:
            return f"no field {op.field}"
        case ops.UpdateAgg() if not 0 <= op.agg < len(program.aggregations):
            return f"no aggregation {op.agg}"
    return ""


def _call_fits(op: ops.CallSubroutine) -> bool:
    info = CALLS[op.name]
    return len(info.args) - info.optional <= len(op.args) <= len(info.args)


def _bad_variable(
    op: ops.LoadVar | ops.StoreVar | ops.VarAddress | ops.LoadElem | ops.StoreElem | ops.ElemAddress, program: Program
) -> str:
    if not 0 <= op.var < len(program.variables):
        return f"no variable {op.var}"
    variable = program.variables[op.var]
    match op:
        case ops.LoadVar() | ops.StoreVar():
            good = variable.plain
        case ops.VarAddress():
            good = variable.keys is None and variable.kind == "object"
        case ops.LoadElem() | ops.StoreElem():
            good = variable.kind != "object" and len(op.keys) == len(variable.keys or ())
        case ops.ElemAddress():
            good = variable.kind == "object" and len(op.keys) == len(variable.keys or ())
    return "" if good else f"variable {op.var} is used as something that it is not"


def _check_registers(clause: Clause, program: Program) -> _Found:
    kinds: dict[Reg, Kind] = {}
    for index, block in enumerate(clause.blocks):
        for position, op in enumerate(block.ops):
            written = operands(op, program)
            if written.dst is None or written.kind is None:
                continue
            if not 0 <= written.dst < clause.registers:
                yield index, position, f"r{written.dst} is not one of {clause.registers} registers"
                return
            if kinds.setdefault(written.dst, written.kind) != written.kind:
                yield index, position, f"r{written.dst} holds both integers and strings"
    known = _defined_at_entry(clause, program)
    for index, block in enumerate(clause.blocks):
        defined = known[index] or 0
        for position, op in enumerate(block.ops):
            for reg, kind in _reads(op, clause, program):
                yield from ((index, position, text) for text in _bad_read(reg, kind, defined, kinds))
            if (dst := operands(op, program).dst) is not None:
                defined |= 1 << dst
        if isinstance(block.end, ops.Branch):
            yield from ((index, None, text) for text in _bad_read(block.end.cond, "int", defined, kinds))


def _bad_read(reg: Reg, kind: Kind | None, defined: int, kinds: dict[Reg, Kind]) -> Iterator[str]:
    if not defined >> reg & 1:
        yield f"r{reg} is read before it is written on every path"
    elif kind is not None and kinds[reg] != kind:
        yield f"r{reg} is {kinds[reg]}, wanted {kind}"


def _defined_at_entry(clause: Clause, program: Program) -> list[int | None]:
    """Return the registers written on every path to each block, a bit each; None for a block that nothing reaches."""
    known: list[int | None] = [None] * len(clause.blocks)
    known[0] = 0
    for index, block in enumerate(clause.blocks):
        after = known[index]
        if after is None:
            continue
        for op in block.ops:
            if (dst := operands(op, program).dst) is not None:
                after |= 1 << dst
        for target in _targets(block.end):
            there = known[target]
            known[target] = after if there is None else there & after
    return known


def _reads(op: Op, clause: Clause, program: Program) -> Iterator[tuple[Reg, Kind | None]]:
    """Yield the registers read, with the kinds that fields and parts of keys ask for."""
    match op:
        case ops.Emit():
            if clause.record is None:
                raise InternalError("a clause emits fields and has no record")
            yield op.src, "string" if clause.record.fields[op.field].kind in ("string", "stack") else "int"
        case ops.UpdateAgg():
            for part, key in zip(program.aggregations[op.agg].keys, op.keys, strict=False):
                if key is not None:
                    yield key, _part_kind(part)
            if op.value is not None:
                yield op.value, "int"
            if op.weight is not None:
                yield op.weight, "int"
        case _:
            yield from operands(op, program).sources


def _part_kind(part: KeyPart) -> Kind:
    return "string" if part.kind in ("string", "stack") else "int"


def _check_record(clause: Clause, _program: Program) -> _Found:
    if clause.record is None:
        return
    end = 0
    for index, field in enumerate(clause.record.fields):
        if field.offset < end or field.offset + field.size > clause.record.size:
            yield clause.body, None, f"field {index} lies outside its place"
        if (field.size == 0) != (field.kind == "probe"):
            yield clause.body, None, f"field {index}: a {field.kind} of {field.size} bytes"
        end = max(end, field.offset + field.size)
    for action in clause.record.actions:
        for number in _action_fields(action):
            if not 0 <= number < len(clause.record.fields):
                yield clause.body, None, f"an action names field {number}, which does not exist"


def _action_fields(action: Action) -> tuple[int, ...]:
    """Return the numbers of the fields that an action names."""
    found: list[int] = []
    for f in fields(action):
        value = getattr(action, f.name)
        if f.name == "fields":
            found.extend(value)
        elif f.name in ("field", "size_field", "addr_field", "name", "value") and isinstance(value, int):
            found.append(value)
    return tuple(found)


def _check_effects(clause: Clause, program: Program) -> _Found:
    stored = _stored_fields(clause.record)
    reached: list[set[int] | None] = [None] * len(clause.blocks)
    reached[clause.body] = set()
    for index, block in enumerate(clause.blocks):
        emitted = reached[index]
        for position, op in enumerate(block.ops):
            yield from ((index, position, text) for text in _bad_effect(op, emitted, stored, program))
            if isinstance(op, (ops.Emit, ops.EmitMem)) and emitted is not None:
                emitted.add(op.field)
        if emitted is None:
            continue
        if isinstance(block.end, ops.Return) and emitted != set(stored):
            yield index, None, f"fields {sorted(set(stored) - emitted)} are never emitted"
        yield from _flow(index, block, emitted, reached)


def _flow(index: int, block: BasicBlock, emitted: set[int], reached: list[set[int] | None]) -> _Found:
    for target in _targets(block.end):
        there = reached[target]
        if there is None:
            reached[target] = set(emitted)
        elif there != emitted:
            yield index, None, f"paths to b{target} emit different fields"


def _stored_fields(record: RecordPlan | None) -> dict[int, RecordField]:
    return {i: f for i, f in enumerate(record.fields) if f.kind != "probe"} if record else {}


def _bad_effect(op: Op, emitted: set[int] | None, stored: dict[int, RecordField], program: Program) -> Iterator[str]:
    match op:
        case ops.Emit() | ops.EmitMem():
            if emitted is None:
                yield "emit outside the body"
            elif op.field not in stored:
                yield f"field {op.field} has no bytes to emit"
            elif op.field in emitted:
                yield f"field {op.field} is emitted twice"
            elif isinstance(op, ops.EmitMem) != (stored[op.field].kind == "bytes"):
                yield f"field {op.field} is of another kind"
        case ops.UpdateAgg():
            plan = program.aggregations[op.agg]
            if emitted is None:
                yield "aggregate outside the body"
            if len(op.keys) != len(plan.keys):
                yield f"{len(op.keys)} keys for {len(plan.keys)} parts"
            elif any((key is None) != (part.kind == "probe") for key, part in zip(op.keys, plan.keys, strict=True)):
                yield "a register for a probe part, or none for another"
            if (op.value is not None) != AGG_FUNCS[plan.func].takes_value:
                yield f"{plan.func}() {'lacks its' if op.value is None else 'takes no'} value"
            if op.weight is not None and not AGG_FUNCS[plan.func].takes_increment:
                yield f"{plan.func}() takes no increment"
