"""Typed program to IR, and the compiler's one entry point, :func:`compile_program`.

BEGIN /pid == 7/ { trace(arg0); }
    b0:  r0 = builtin pid
         r1 = int 7
         r2 = cmp eq r0, r1
         branch r2, b1, b2
    b1:  r3 = arg 0
         emit 0, r3
         jump b2
    b2:  return
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import assert_never

from probekit.buffers.actions import Action, Default, Exit, FieldKind, Printf, RecordPlan, Trace, field_layout
from probekit.buffers.aggs import AggPlan
from probekit.ir.lower import ClauseBuilder
from probekit.ir.ops import Clause, Program, Variable
from probekit.lang import typed
from probekit.lang.check import check_program
from probekit.lang.macros import Macros
from probekit.lang.source import Source
from probekit.lang.types import STRING_SIZE, IntType, StringType

__all__ = ("build_program", "compile_program")


def compile_program(
    text: str,
    *,
    filename: str | None = None,
    allow_bare: bool = False,
    args: Iterable[str] = (),
    macros: Mapping[str, int] | None = None,
    default_args: bool = False,
) -> Program:
    """Compile a script.

    ``filename``: for messages. ``allow_bare``: probes without a clause are allowed (``-n``). ``args``: what ``$0``,
    ``$1`` ... stand for, the script's name first. ``macros``: ``pid``, ``target`` ... and their numbers.
    Raises :class:`probekit.lang.diagnostics.CompileError`, and nothing else, for any text at all.
    """
    source = Source(text, filename)
    given = Macros(args=tuple(args), values=dict(macros or {}), default_args=default_args)
    return build_program(check_program(source, allow_bare=allow_bare, macros=given), source)


def build_program(program: typed.CheckedProgram, source: Source) -> Program:
    """Lower every clause of a checked program."""
    # One string for each clause as written: the parts of a split clause share it.
    texts = {clause.span: source.slice(clause.span) for clause in program.clauses}
    return Program(
        clauses=tuple(
            replace(
                _clause(index, clause, program.aggregations),
                text=texts[clause.span],
                line=source.place(clause.span.start)[0],
            )
            for index, clause in enumerate(program.clauses)
        ),
        variables=tuple(
            Variable(v.index, v.name, v.scope, "int", bits=v.type.bits, signed=v.type.signed) for v in program.variables
        ),
        aggregations=program.aggregations,
        options=tuple((option.name, option.value) for option in program.options),
    )


@dataclass(slots=True)
class _Record:
    """A clause's record while it grows."""

    items: list[tuple[int, FieldKind, str]] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)

    def plan(self) -> RecordPlan | None:
        if not self.actions:
            return None
        fields, size = field_layout(self.items)
        return RecordPlan(fields, tuple(self.actions), size)


def _clause(index: int, clause: typed.CheckedClause, aggs: tuple[AggPlan, ...]) -> Clause:
    builder, record = ClauseBuilder(), _Record()
    end = builder.label()
    if clause.predicate is not None:
        body = builder.label()
        builder.branch_on(clause.predicate, body, end)
        builder.place(body)
    body_block = builder.position
    for statement in clause.statements:
        _statement(statement, builder, record, aggs)
    if clause.default:
        record.actions.append(Default())
    builder.finish(end)
    return Clause(
        index=index,
        probes=clause.probes,
        blocks=builder.blocks(),
        body=body_block,
        record=record.plan(),
        registers=builder.registers,
    )


def _statement(
    statement: typed.TypedStatement, builder: ClauseBuilder, record: _Record, aggs: tuple[AggPlan, ...]
) -> None:
    match statement:
        case typed.Do():
            builder.value(statement.value)
        case typed.Trace():
            record.actions.append(Trace(_field(statement.value, builder, record)))
        case typed.Exit():
            record.actions.append(Exit(_field(statement.status, builder, record)))
        case typed.Printf():
            fields = tuple(_field(arg, builder, record) for arg in statement.args)
            record.actions.append(Printf(statement.format, fields))
        case typed.Aggregate():
            plan = aggs[statement.agg]
            keys = tuple(
                None if part.kind == "probe" else builder.value(key)
                for part, key in zip(plan.keys, statement.keys, strict=True)
            )
            builder.aggregate(plan.index, keys, None if statement.value is None else builder.value(statement.value))
        case typed.IfElse():
            _if_else(statement, builder, record, aggs)
        case _:
            assert_never(statement)


def _if_else(statement: typed.IfElse, builder: ClauseBuilder, record: _Record, aggs: tuple[AggPlan, ...]) -> None:
    then, orelse, end = builder.label(), builder.label(), builder.label()
    builder.branch_on(statement.cond, then, orelse)
    builder.place(then)
    for inner in statement.then:
        _statement(inner, builder, record, aggs)
    builder.jump(end)
    builder.place(orelse)
    for inner in statement.orelse:
        _statement(inner, builder, record, aggs)
    builder.place(end)


def _field(value: typed.TypedExpr, builder: ClauseBuilder, record: _Record) -> int:
    """Record one value; its field number."""
    index = len(record.items)
    match value:
        case typed.Builtin(name=name, type=StringType()) if name.startswith("probe"):
            record.items.append((0, "probe", name))  # the consumer knows the probe: no bytes, no work
            return index
    match value.type:
        case IntType(bits=bits, signed=signed):
            record.items.append((bits // 8, "int" if signed else "uint", ""))
        case StringType(size=size):
            record.items.append((min(size, STRING_SIZE), "string", ""))
    builder.emit(index, builder.value(value))
    return index
