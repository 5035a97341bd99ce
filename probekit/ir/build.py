"""Build IR from a typed program. :func:`compile_program` is the compiler's one entry point.

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

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import assert_never

from probekit.buffers.actions import Action, Default, FieldKind, RecordPlan, field_layout
from probekit.buffers.aggs import AggPlan
from probekit.errors import SymbolError
from probekit.ir.actions import make_action
from probekit.ir.blocks import BlockLabel
from probekit.ir.lower import ClauseBuilder
from probekit.ir.ops import Clause, Emit, EmitMem, Kind, Program, UpdateAgg, Variable
from probekit.lang import typed
from probekit.lang.builtins import DESTRUCTIVE
from probekit.lang.check import check_program
from probekit.lang.diagnostics import CompileError, Diagnostic
from probekit.lang.kernelside import KernelSide, KernelSource, NoKernel
from probekit.lang.parse.macros import Macros
from probekit.lang.source import NOWHERE, Source
from probekit.lang.types import StringType, is_object, sizeof
from probekit.lang.values import machine
from probekit.lang.variables import key_sizes
from probekit.probe.names import ProbeDescription
from probekit.records import fresh, mutable_record, replaced

__all__ = ("build_program", "compile_program")


def compile_program(
    text: str,
    *,
    filename: str | None = None,
    allow_bare: bool = False,
    args: Iterable[str] = (),
    macros: Mapping[str, int] | None = None,
    default_args: bool = False,
    unused_args: bool = False,
    allow_empty: bool = False,
    string_size: int | None = None,
    frames: Mapping[str, int] | None = None,
    kernel: KernelSource | None = None,
    can_match: Callable[[ProbeDescription], bool] | None = None,
    libraries: int = 0,
    parts: Sequence[int] = (),
) -> Program:
    """Compile a script.

    - ``filename``: the file's name, for messages.
    - ``allow_bare``: allow probes without a clause (``-n``).
    - ``args``: the values of ``$0``, ``$1`` and so on; ``$0`` is the script's name.
    - ``macros``: the numbers of ``$pid``, ``$target`` and so on, without the ``$``.
    - ``default_args``, ``unused_args``, ``allow_empty``, ``string_size``: the options ``defaultargs``, ``argref``,
      ``empty``, ``strsize``.
    - ``frames``: the options ``stackframes`` and ``ustackframes``, as ``stack`` and ``ustack``.
    - ``kernel``: the guest's kernel, whose types and symbols the script may name.
    - ``can_match``, ``libraries``, ``parts``: see :func:`probekit.lang.check.check_program`.

    Raises :class:`probekit.lang.diagnostics.CompileError`, and nothing else, for any text at all. Its ``needs_kernel``
    is True when the script names something that a kernel might have, and ``kernel`` is None.
    """
    source = Source(text, filename)
    given = Macros(tuple(args), dict(macros or {}), default_args, unused_args)
    none = NoKernel()
    try:
        checked = check_program(
            source,
            allow_bare=allow_bare,
            allow_empty=allow_empty,
            macros=given,
            string_size=string_size,
            frames=frames,
            kernel=_kernel_types(kernel) if kernel is not None else none,
            can_match=can_match,
            libraries=libraries,
            parts=parts,
        )
        return build_program(checked, source)
    except CompileError as error:
        error.needs_kernel = none.asked
        raise
    except SymbolError as error:
        broken = Diagnostic("D_TYPE_ERR", NOWHERE, f"the guest's types cannot be used: {error.message}")
        raise CompileError((broken,), source) from error
    except RecursionError:
        # The parser bounds how deep expressions nest. Only Python bounds declarators and what is inside of them.
        nested = Diagnostic("D_SYNTAX", NOWHERE, "the script is nested too deeply")
        raise CompileError((nested,), source) from None


def _kernel_types(source: KernelSource) -> KernelSide:
    from probekit.lang.kerneltypes import KernelTypes  # a program without a guest need not load the kernel's types

    return KernelTypes(source)


def build_program(program: typed.CheckedProgram, source: Source) -> Program:
    """Lower every clause of a checked program. ``source``: the script."""
    # The parts of a split clause share one string: the clause as it is written.
    texts = {clause.span: source.slice(clause.span) for clause in program.clauses}
    return Program(
        clauses=tuple(
            replaced(
                _lower_clause(index, clause, program.aggregations),
                text=texts[clause.span],
                line=source.named_line(source.place(clause.span.start)[0]),
                start=clause.span.start,
            )
            for index, clause in enumerate(program.clauses)
        ),
        variables=tuple(_variable(v, program.string_size) for v in program.variables),
        aggregations=program.aggregations,
        options=tuple((option.name, option.value) for option in program.options),
        string_size=program.string_size,
        destructive=tuple(sorted({name for c in program.clauses for name in _destructive_names(c.statements)})),
    )


def _variable(var: typed.Var, string_size: int) -> Variable:
    keys: tuple[Kind, ...] | None = None
    if var.keys is not None:
        keys = tuple(
            "string" if isinstance(k, StringType) else "int" for k in var.keys for _ in key_sizes(k, string_size)
        )
    m = machine(var.type)
    if is_object(var.type):
        return Variable(var.index, var.name, var.scope, "object", size=sizeof(var.type, string_size), keys=keys)
    if isinstance(m, StringType):
        return Variable(var.index, var.name, var.scope, "string", size=string_size, keys=keys)
    return Variable(var.index, var.name, var.scope, "int", bits=m.bits, signed=m.signed, keys=keys)


def _destructive_names(statements: Iterable[typed.TypedStatement]) -> Iterator[str]:
    for statement in statements:
        match statement:
            case typed.ActionCall(action=name) if name in DESTRUCTIVE:
                yield name
            case typed.Evaluate(value=typed.SubroutineCall(name=name)) if name in DESTRUCTIVE:
                yield name
            case typed.IfElse(then=then, orelse=orelse):
                yield from _destructive_names((*then, *orelse))
            case _:
                pass


@mutable_record
class _RecordBuilder:
    """A clause's record while it is built."""

    items: list[tuple[int, FieldKind, str]] = fresh(list)
    """Bytes, kind and detail of each field."""
    actions: list[Action] = fresh(list)

    def plan(self) -> RecordPlan | None:
        """Return the plan, or None when the clause records nothing."""
        if not self.actions:
            return None
        fields, size = field_layout(self.items)
        return RecordPlan(fields, tuple(self.actions), size)


def _lower_clause(index: int, clause: typed.CheckedClause, aggs: tuple[AggPlan, ...]) -> Clause:
    builder, record = ClauseBuilder(), _RecordBuilder()
    end = BlockLabel()
    if clause.predicate is not None:
        body = BlockLabel()
        builder.branch_on(clause.predicate, body, end)
        builder.blocks.place(body)
    body_block = builder.blocks.index
    for statement in clause.statements:
        _lower_statement(statement, builder, record, aggs)
    if clause.default:
        record.actions.append(Default())
    builder.blocks.place(end)
    return Clause(
        index=index,
        probes=clause.probes,
        blocks=builder.blocks.finished(),
        body=body_block,
        record=record.plan(),
        registers=builder.blocks.registers,
    )


def _lower_statement(
    statement: typed.TypedStatement, builder: ClauseBuilder, record: _RecordBuilder, aggs: tuple[AggPlan, ...]
) -> None:
    match statement:
        case typed.Evaluate():
            builder.value(statement.value)
        case typed.ActionCall():
            _lower_action(statement, builder, record)
        case typed.AggregationUpdate():
            plan = aggs[statement.agg]
            keys = tuple(
                None if part.kind == "probe" else builder.value(key)
                for part, key in zip(plan.keys, statement.keys, strict=True)
            )
            value = None if statement.value is None else builder.value(statement.value)
            weight = None if statement.weight is None else builder.value(statement.weight)
            builder.blocks.add(UpdateAgg(plan.index, keys, value, weight))
        case typed.IfElse():
            _lower_if(statement, builder, record, aggs)
        case _:
            assert_never(statement)


def _lower_if(
    statement: typed.IfElse, builder: ClauseBuilder, record: _RecordBuilder, aggs: tuple[AggPlan, ...]
) -> None:
    then, orelse, end = BlockLabel(), BlockLabel(), BlockLabel()
    builder.branch_on(statement.cond, then, orelse)
    builder.blocks.place(then)
    for inner in statement.then:
        _lower_statement(inner, builder, record, aggs)
    builder.blocks.jump(end)
    builder.blocks.place(orelse)
    for inner in statement.orelse:
        _lower_statement(inner, builder, record, aggs)
    builder.blocks.place(end)


def _lower_action(act: typed.ActionCall, builder: ClauseBuilder, record: _RecordBuilder) -> None:
    fields: list[int] = []
    for item in act.items:
        fields.append(len(record.items))
        record.items.append((item.size, item.kind, item.detail))
        if item.kind == "probe":
            continue  # the consumer knows the probe, so the field has no bytes
        reg = builder.value(item.value)
        if item.kind == "bytes":
            builder.blocks.add(EmitMem(fields[-1], reg))
        else:
            builder.blocks.add(Emit(fields[-1], reg))
    record.actions.append(make_action(act, tuple(fields)))
