"""Print IR as text, for ``-S`` and the golden tests.

clause 0: fbt::sys_*:entry                    (line 1)
record: none
  b0:  r0 = builtin pid
       branch r0, b1, b2
  b1:  aggregate @0 [probefunc]               (a probe part has no register, so its name is shown)
       jump b2
  b2:  return
"""

from __future__ import annotations

from dataclasses import fields
from typing import assert_never

from probekit.buffers.actions import Action, RecordField, action_name
from probekit.buffers.aggs import AggPlan, KeyPart
from probekit.buffers.formats import Format
from probekit.ir import ops
from probekit.ir.ops import Clause, Op, Program, Reg, Terminator, Variable

__all__ = ("format_clause", "format_op", "format_program")


def format_program(program: Program) -> str:
    """Return the text of a whole program."""
    lines = [f"option {name}={value}" if value else f"option {name}" for name, value in program.options]
    lines.extend(_variable(v) for v in program.variables)
    lines.extend(_aggregation(a) for a in program.aggregations)
    for clause in program.clauses:
        lines.extend(format_clause(clause, program))
    return "\n".join(lines) + "\n"


def format_clause(clause: Clause, program: Program) -> list[str]:
    """Return the lines of one clause."""
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
    """Return the text of one operation."""
    match op:
        case ops.Int():
            return f"r{op.dst} = int {op.value}"
        case ops.Str():
            return f"r{op.dst} = str {op.value!r}"
        case ops.LoadArg():
            return f"r{op.dst} = arg {op.index}"
        case ops.LoadBuiltin():
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
        case ops.UpdateAgg():
            return _aggregate(op, program)
        case ops.EmitMem():
            return f"emit {op.field}, bytes r{op.addr}"
        case _:
            return _memory_op(op, program)


def _memory_op(
    op: ops.Copy
    | ops.VarAddress
    | ops.LoadElem
    | ops.StoreElem
    | ops.ElemAddress
    | ops.LoadMem
    | ops.StoreMem
    | ops.LoadStr
    | ops.StoreStr
    | ops.StrAddress
    | ops.CopyMem
    | ops.CallSubroutine,
    program: Program,
) -> str:
    match op:
        case ops.Copy():
            return f"r{op.dst} = r{op.src}"
        case ops.VarAddress():
            return f"r{op.dst} = address {_var_name(program, op.var)}"
        case ops.LoadElem():
            return f"r{op.dst} = load {_element(program, op.var, op.keys)}"
        case ops.StoreElem():
            return f"store {_element(program, op.var, op.keys)}, r{op.src}"
        case ops.ElemAddress():
            return f"r{op.dst} = address {_element(program, op.var, op.keys)}{' create' if op.create else ''}"
        case ops.LoadMem():
            return f"r{op.dst} = {'' if op.signed else 'u'}mem{8 * op.size} r{op.addr}"
        case ops.StoreMem():
            return f"mem{8 * op.size} r{op.addr}, r{op.src}"
        case ops.LoadStr():
            return f"r{op.dst} = memstr r{op.addr}{f' [{op.limit}]' if op.limit else ''}"
        case ops.StoreStr():
            return f"memstr r{op.addr}, r{op.src} [{op.size}]"
        case ops.StrAddress():
            return f"r{op.dst} = address r{op.src}"
        case ops.CopyMem():
            return f"copy r{op.target}, r{op.source} [{op.size}]"
        case ops.CallSubroutine():
            return f"r{op.dst} = {op.name}({', '.join(f'r{a}' for a in op.args)})"
        case _:
            assert_never(op)


def _element(program: Program, var: int, keys: tuple[Reg, ...]) -> str:
    return f"{_var_name(program, var)}[{', '.join(f'r{k}' for k in keys)}]"


def _aggregate(op: ops.UpdateAgg, program: Program) -> str:
    known = program.aggregations[op.agg].keys if op.agg < len(program.aggregations) else ()
    keys = [_key(reg, known[i] if i < len(known) else None) for i, reg in enumerate(op.keys)]
    value = "" if op.value is None else f" r{op.value}"
    value += "" if op.weight is None else f" times r{op.weight}"
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
    return f"{_PREFIXES[variable.scope]}{variable.name}"


_PREFIXES = {"global": "", "self": "self->", "local": "this->"}


def _variable(variable: Variable) -> str:
    if variable.kind != "int":
        t = f"{variable.kind}[{variable.size}]"
    else:
        t = f"{'' if variable.signed else 'u'}int{variable.bits}"
    keys = "" if variable.keys is None else f"[{', '.join(variable.keys)}]"
    return f"variable {variable.index}: {variable.scope} {t} {variable.name}{keys}"


def _aggregation(agg: AggPlan) -> str:
    keys = ", ".join(_key_part(k) for k in agg.keys)
    params = f"({', '.join(map(str, agg.params))})" if agg.params else ""
    return f"aggregation {agg.index}: @{agg.name}[{keys}] = {agg.func}{params}"


def _key_part(part: KeyPart) -> str:
    match part.kind:
        case "probe":
            return part.detail
        case "string":
            return f"string[{part.size}]"
        case _:
            return f"{part.kind}{part.bits}"


def _field(field: RecordField) -> str:
    if field.kind == "probe":
        return field.detail
    return f"{field.kind}[{field.size}] at {field.offset}"


def _action(action: Action) -> str:
    """Return an action's name and what it holds: fields by number, formats as they are written."""
    parts = [action_name(action)]
    for f in fields(action):
        value = getattr(action, f.name)
        match value:
            case Format():
                parts.append(repr(value.text))
            case tuple():
                parts.append(str(list(value)))
            case None | False:
                pass
            case int() | str():
                parts.append(str(value))
            case _:
                parts.append(type(value).__name__)
    return " ".join(parts)
