"""Check aggregations: ``@a[keys] = func(...)``, and the actions that name them.

@a[execname] = lquantize(arg0, 0, 100, 10)   ->  Aggregate(0, (execname,), arg0), base 0, limit 100, step 10
trunc(@a, 5)                                 ->  ActionCall("trunc", (RecordedValue(5),), aggs=(0,))
"""

from __future__ import annotations

from probekit.buffers.aggs import KeyPart
from probekit.errors import InternalError
from probekit.lang import ast, typed
from probekit.lang.builtins import BuiltinFunction
from probekit.lang.diagnostics import refuse
from probekit.lang.formatcheck import check_keys, integer_item, read_format
from probekit.lang.functions import check_prototype, find_function, function_named
from probekit.lang.operators import describe
from probekit.lang.scope import NamedAggregation, Scope, key_part
from probekit.lang.source import Span
from probekit.lang.typed import ActionCall, TypedExpr, TypedStatement
from probekit.lang.types import INT64, StringType, SymbolType
from probekit.lang.values import Value, as_string, convert, is_integer, is_scalar, is_string_like

__all__ = ("aggregate", "clear", "denormalize", "normalize", "printa", "trunc")

_INT32_MIN, _INT32_MAX, _UINT16_MAX = -(1 << 31), (1 << 31) - 1, (1 << 16) - 1


def aggregate(expr: ast.Assign, scope: Scope) -> typed.AggregationUpdate:
    """Check ``@name[keys] = function(value)``."""
    if not isinstance(expr.target, ast.AggRef):
        raise InternalError("an aggregation is assigned to something else")
    target, function = expr.target, find_function(expr.value)
    shown = f"@{target.name}"
    if expr.op != "=":
        raise refuse("D_AGG_FUNC", expr.span, f"{expr.op} does not apply to {shown}: only = does")
    if not isinstance(expr.value, ast.CallExpr) or (function is not None and function.kind != "aggregating"):
        raise refuse("D_AGG_FUNC", expr.value.span, f"{shown} takes only the result of an aggregating function")
    function = function_named(expr.value, scope)
    keys = [_key(key, scope) for key in target.keys or ()]
    args = check_prototype(expr.value, function, scope)
    value = _datum(function, expr.value, args)
    params, weight = _parameters(function, expr.value, args)
    parts = [part for _, part in keys]
    known = scope.known_aggregation(target.name, function.name, parts, target.span)
    if known.params is None:
        known.params = params
    elif known.params != params:
        raise _changed(function, known, params, expr.value.span)
    return typed.AggregationUpdate(known.index, tuple(node for node, _ in keys), value, weight)


def _key(expr: ast.Expr, scope: Scope) -> tuple[TypedExpr, KeyPart]:
    value = scope.check(expr)
    if isinstance(value.type, SymbolType):
        if isinstance(value.node.type, StringType):
            detail = "" if isinstance(value.node, typed.SubroutineCall) and value.node.name == "stack" else "ustack"
            return value.node, KeyPart("stack", size=value.node.type.size, detail=detail)
        return value.node, KeyPart("uint", detail=value.type.name)
    if value.dynamic or value.action or value.translated or not (is_scalar(value.type) or is_string_like(value.type)):
        raise refuse("D_KEY_TYPE", expr.span, f"{describe(value)} cannot be a key")
    node = as_string(value) if is_string_like(value.type) else value.node
    return node, key_part(node)


def _datum(function: BuiltinFunction, call: ast.CallExpr, args: list[Value]) -> TypedExpr | None:
    if function.name == "count":
        return None
    value = args[0]
    if not is_scalar(value.type) or value.action or value.dynamic:
        message = f"the argument of {function.name}() must be a scalar, not {describe(value)}"
        raise refuse("D_AGG_SCALAR", call.args[0].span, message)
    return convert(value.node, INT64)


def _parameters(
    function: BuiltinFunction, call: ast.CallExpr, args: list[Value]
) -> tuple[tuple[int, ...], TypedExpr | None]:
    """Return the constants of a quantizing function, and its increment."""
    params: tuple[int, ...] = ()
    match function.name:
        case "quantize":
            most = 2
        case "lquantize":
            params, most = _linear(call, args), 5
        case "llquantize":
            params, most = _log_linear(call, args), 6
        case _:
            return (), None
    if len(args) > most:
        raise refuse("D_PROTO_LEN", call.span, f"{function.name}() takes at most {most} arguments, not {len(args)}")
    if len(args) < most:
        return params, None
    weight = args[-1]
    if not is_scalar(weight.type) or weight.action or weight.dynamic:
        message = f"the increment of {function.name}() must be a scalar, not {describe(weight)}"
        raise refuse("D_PROTO_ARG", call.args[-1].span, message)
    return params, convert(weight.node, INT64)


def _constant(value: Value, span: Span, what: str, tag: str) -> int:
    if not isinstance(value.node, typed.Const) or not is_integer(value.type):
        raise refuse(tag, span, f"{what} must be an integer constant")
    return value.node.value


def _linear(call: ast.CallExpr, args: list[Value]) -> tuple[int, ...]:
    base = _constant(args[1], call.args[1].span, "the base", "D_LQUANT_BASETYPE")
    if not _INT32_MIN <= base <= _INT32_MAX:
        raise refuse("D_LQUANT_BASEVAL", call.args[1].span, "the base must fit in 32 bits")
    limit = _constant(args[2], call.args[2].span, "the limit", "D_LQUANT_LIMTYPE")
    if not _INT32_MIN <= limit <= _INT32_MAX:
        raise refuse("D_LQUANT_LIMVAL", call.args[2].span, "the limit must fit in 32 bits")
    if limit < base:
        raise refuse("D_LQUANT_MISMATCH", call.args[2].span, "the limit must not be below the base")
    step, span = 1, call.span
    if len(args) > 3:
        span = call.args[3].span
        step = _constant(args[3], span, "the step", "D_LQUANT_STEPTYPE")
        if step <= 0:
            raise refuse("D_LQUANT_STEPTYPE", span, "the step must be a positive integer constant")
        if step > _UINT16_MAX:
            raise refuse("D_LQUANT_STEPVAL", span, "the step must be a 16-bit integer")
    levels = (limit - base) // step
    if levels == 0:
        raise refuse("D_LQUANT_STEPLARGE", span, "the step is larger than the range")
    if levels > _UINT16_MAX:
        raise refuse("D_LQUANT_STEPSMALL", span, "the step makes too many buckets")
    return base, base + levels * step, step  # a last level that is not whole is cut off


_LOG_LINEAR = (("factor", "FACTOR"), ("low magnitude", "LOW"), ("high magnitude", "HIGH"), ("steps", "NSTEP"))


def _log_linear(call: ast.CallExpr, args: list[Value]) -> tuple[int, ...]:
    params: list[int] = []
    for (what, tag), value, expr in zip(_LOG_LINEAR, args[1:5], call.args[1:5], strict=True):
        number = _constant(value, expr.span, f"the {what}", f"D_LLQUANT_{tag}TYPE")
        if not 0 <= number <= _UINT16_MAX:
            raise refuse(f"D_LLQUANT_{tag}VAL", expr.span, f"the {what} must be an unsigned 16-bit integer")
        params.append(number)
    factor, low, high, steps = params
    if factor < 2:
        raise refuse("D_LLQUANT_FACTORSMALL", call.args[1].span, "the factor must be two or more")
    if low >= high:
        raise refuse("D_LLQUANT_MAGRANGE", call.args[3].span, "the high magnitude must be above the low one")
    where = call.args[4].span
    if steps < factor and (steps < 1 or factor % steps):
        raise refuse("D_LLQUANT_FACTORNSTEPS", where, "steps fewer than the factor must divide it")
    power = factor
    while power < steps:
        power *= factor
    if steps >= factor and (steps % factor or power % steps):
        message = "the steps must divide a power of the factor, and the factor the steps"
        raise refuse("D_LLQUANT_FACTOREVEN", where, message)
    if high >= 64 or factor ** (high + 1) >= 1 << 63:
        raise refuse("D_LLQUANT_MAGTOOBIG", call.args[3].span, "the high magnitude does not fit in 64 bits")
    return tuple(params)


def _changed(function: BuiltinFunction, known: NamedAggregation, params: tuple[int, ...], span: Span) -> Exception:
    names = {
        "lquantize": ("D_LQUANT_MATCHBASE", "D_LQUANT_MATCHLIM", "D_LQUANT_MATCHSTEP"),
        "llquantize": tuple(f"D_LLQUANT_{tag}MATCH" for _, tag in _LOG_LINEAR),
    }[function.name]
    for tag, old, new in zip(names, known.params or (), params, strict=True):
        if old != new:
            return refuse(tag, span, f"@{known.name} was given {old} elsewhere, not {new}")
    raise InternalError("parameters differ and do not differ")


# Actions on aggregations.


def _named(expr: ast.Expr, function: str, family: str, scope: Scope) -> NamedAggregation:
    if not isinstance(expr, ast.AggRef):
        raise refuse(f"D_{family}_AGGARG", expr.span, f"{function}() takes an aggregation here")
    known = scope.aggregations.get(expr.name)
    if known is None:
        raise refuse(f"D_{family}_AGGBAD", expr.span, f"@{expr.name} is not defined")
    return known


def _count(call: ast.CallExpr, name: str, family: str, least: int, most: int) -> None:
    if not least <= len(call.args) <= most:
        wanted = str(least) if least == most else f"{least} to {most}"
        message = f"{name}() takes {wanted} argument{'' if wanted == '1' else 's'}, not {len(call.args)}"
        raise refuse(f"D_{family}_PROTO", call.span, message)


def clear(call: ast.CallExpr, scope: Scope) -> TypedStatement:
    """Check ``clear(@a)``."""
    _count(call, "clear", "CLEAR", 1, 1)
    return ActionCall("clear", aggs=(_named(call.args[0], "clear", "CLEAR", scope).index,))


def denormalize(call: ast.CallExpr, scope: Scope) -> TypedStatement:
    """Check ``denormalize(@a)``."""
    _count(call, "denormalize", "NORMALIZE", 1, 1)
    return ActionCall("denormalize", aggs=(_named(call.args[0], "denormalize", "NORMALIZE", scope).index,))


def normalize(call: ast.CallExpr, scope: Scope) -> TypedStatement:
    """Check ``normalize(@a, n)``."""
    _count(call, "normalize", "NORMALIZE", 2, 2)
    known = _named(call.args[0], "normalize", "NORMALIZE", scope)
    item = _scalar(call.args[1], "normalize", "NORMALIZE", scope)
    return ActionCall("normalize", (item,), aggs=(known.index,))


def trunc(call: ast.CallExpr, scope: Scope) -> TypedStatement:
    """Check ``trunc(@a[, n])``."""
    _count(call, "trunc", "TRUNC", 1, 2)
    known = _named(call.args[0], "trunc", "TRUNC", scope)
    items = tuple(_scalar(argument, "trunc", "TRUNC", scope) for argument in call.args[1:])
    return ActionCall("trunc", items, aggs=(known.index,))


def _scalar(expr: ast.Expr, function: str, family: str, scope: Scope) -> typed.RecordedValue:
    value = scope.check(expr)
    if not is_scalar(value.type) or value.action or value.dynamic:
        message = f"the second argument of {function}() must be a scalar, not {describe(value)}"
        raise refuse(f"D_{family}_SCALAR", expr.span, message)
    return integer_item(convert(value.node, INT64))


def printa(call: ast.CallExpr, scope: Scope) -> TypedStatement:
    """Check ``printa([format,] @a, ...)``."""
    if not call.args:
        raise refuse("D_PROTO_LEN", call.span, "printa() takes at least one argument, not 0")
    form = None
    written = list(call.args)
    if not isinstance(written[0], ast.AggRef):
        if not isinstance(written[0], ast.String):
            raise refuse("D_PRINTA_AGGARG", written[0].span, "printa() takes an aggregation, and may take a format")
        form = read_format(written.pop(0), "printa")
    if not written:
        raise refuse("D_PRINTA_PROTO", call.span, "printa() takes an aggregation after its format")
    known = [_named(argument, "printa", "PRINTA", scope) for argument in written]
    for other, argument in zip(known[1:], written[1:], strict=True):
        _same_keys(known[0], other, argument.span)
    if form is not None:
        check_keys(form, known[0].keys, known[0].func, call.args[0].span, scope)
    return ActionCall("printa", (), form, tuple(k.index for k in known))


def _same_keys(first: NamedAggregation, other: NamedAggregation, span: Span) -> None:
    if len(first.keys) != len(other.keys):
        message = f"@{other.name} has {len(other.keys)} keys, @{first.name} has {len(first.keys)}"
        raise refuse("D_PRINTA_AGGKEY", span, message)
    for number, (a, b) in enumerate(zip(first.keys, other.keys, strict=True), 1):
        integers = ("int", "uint")
        if (a.kind in integers) != (b.kind in integers):
            raise refuse("D_PRINTA_AGGPROTO", span, f"key {number} of @{other.name} is not that of @{first.name}")
