"""IR as text, for ``-S`` and the golden tests.

clause 0: fbt::sys_*:entry                    (line 1)
record: none
  b0:  r0 = builtin pid
       branch r0, b1, b2
  b1:  aggregate @0 [probefunc]               (a probe part has no register: its name is shown)
       jump b2
  b2:  return
"""

from __future__ import annotations

from typing import assert_never

from probekit.buffers.actions import Action, Default, Exit, Field, Printf, Trace
from probekit.buffers.aggs import AggPlan, KeyPart
from probekit.ir import ops
from probekit.ir.ops import Clause, Op, Program, Reg, Terminator, Variable

__all__ = ("format_clause", "format_op", "format_program")


def format_program(program: Program) -> str:
    """The whole program."""
    lines = [f"option {name}={value}" if value else f"option {name}" for name, value in program.options]
    lines.extend(_variable(v) for v in program.variables)
    lines.extend(_aggregation(a) for a in program.aggregations)
    for clause in program.clauses:
        lines.extend(format_clause(clause, program))
    return "\n".join(lines) + "\n"


def format_clause(clause: Clause, program: Program) -> list[str]:
    """One clause, as lines."""
    lines = [f"clause {clause.index}: {', '.join(str(p) for p in clause.probes)}"]
    if clause.record is not None:
        lines.append(f"  record: {clause.record.size} bytes")
        lines.extend(f"    field {i}: {_field(f)}" for i, f in enumerate(clause.record.fields))
        lines.extend(f"    {_action(a)}" for a in clause.record.actions)
    for index, block in enumerate(clause.blocks):
        body = [format_op(op, program) for op in block.ops] + [_end(block.end)]
        mark = f"b{index}:".ljust(5)
        lines.extend(f"  {mark if i == 0 else ' ' * 5}{line}" for i, line in enumerate(body))
    return lines


def format_op(op: Op, program: Program) -> str:
    """One operation."""
    match op:
        case ops.Int():
            return f"r{op.dst} = int {op.value}"
        case ops.Str():
            return f"r{op.dst} = str {op.value!r}"
        case ops.Arg():
            return f"r{op.dst} = arg {op.index}"
        case ops.Builtin():
            return f"r{op.dst} = builtin {op.name}"
        case ops.Bin():
            return f"r{op.dst} = {op.op.value} r{op.left}, r{op.right}"
        case ops.Cmp():
            return f"r{op.dst} = cmp {op.op.value} r{op.left}, r{op.right}"
        case ops.StrCmp():
            return f"r{op.dst} = strcmp {op.op.value} r{op.left}, r{op.right}"
        case ops.Ext():
            return f"r{op.dst} = {'sext' if op.signed else 'zext'}{op.bits} r{op.src}"
        case ops.LoadVar():
            return f"r{op.dst} = load {_var_name(program, op.var)}"
        case ops.StoreVar():
            return f"store {_var_name(program, op.var)}, r{op.src}"
        case ops.Emit():
            return f"emit {op.field}, r{op.src}"
        case ops.Aggregate():
            return _aggregate(op, program)
        case _:
            assert_never(op)


def _aggregate(op: ops.Aggregate, program: Program) -> str:
    known = program.aggregations[op.agg].keys if op.agg < len(program.aggregations) else ()
    keys = [_key(reg, known[i] if i < len(known) else None) for i, reg in enumerate(op.keys)]
    value = "" if op.value is None else f" r{op.value}"
    return f"aggregate @{op.agg} [{', '.join(keys)}]{value}"


def _key(reg: Reg | None, part: KeyPart | None) -> str:
    if reg is not None:
        return f"r{reg}"
    return part.detail if part is not None else "probe"


def _end(end: Terminator) -> str:
    match end:
        case ops.Jump():
            return f"jump b{end.target}"
        case ops.Branch():
            return f"branch r{end.cond}, b{end.then}, b{end.orelse}"
        case ops.Return():
            return "return"
        case _:
            assert_never(end)


def _var_name(program: Program, index: int) -> str:
    if index >= len(program.variables):
        return f"v{index}"
    variable = program.variables[index]
    return f"{'this->' if variable.scope == 'local' else ''}{variable.name}"


def _variable(variable: Variable) -> str:
    if variable.kind == "string":
        t = f"string[{variable.size}]"
    else:
        t = f"{'' if variable.signed else 'u'}int{variable.bits}"
    return f"variable {variable.index}: {variable.scope} {t} {variable.name}"


def _aggregation(agg: AggPlan) -> str:
    keys = ", ".join(_key_part(k) for k in agg.keys)
    return f"aggregation {agg.index}: @{agg.name}[{keys}] = {agg.func}"


def _key_part(part: KeyPart) -> str:
    match part.kind:
        case "probe":
            return part.detail
        case "string":
            return f"string[{part.size}]"
        case _:
            return f"{part.kind}{part.bits}"


def _field(field: Field) -> str:
    if field.kind == "probe":
        return field.detail
    return f"{field.kind}[{field.size}] at {field.offset}"


def _action(action: Action) -> str:
    match action:
        case Trace():
            return f"trace {action.field}"
        case Printf():
            return f"printf {action.format.text!r} {list(action.fields)}"
        case Exit():
            return f"exit {action.field}"
        case Default():
            return "default"
        case _:
            assert_never(action)
