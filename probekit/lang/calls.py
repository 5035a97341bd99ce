"""Checking what stands as a statement: actions and aggregations.

One function for each action, in a table by name.

    printf("%d", pid)       ->  Printf(Format("%d"), (Builtin("pid"),))
    @a[execname] = sum(1)   ->  Aggregate(0, (Builtin("execname"),), Const(1))
"""

from __future__ import annotations

from collections.abc import Callable

from probekit.buffers.formats import Conversion, Format, FormatError, parse_format
from probekit.lang import ast, typed
from probekit.lang.builtins import FUNCTIONS, BuiltinFunction
from probekit.lang.diagnostics import not_yet, refuse
from probekit.lang.exprs import check, check_scalar, convert
from probekit.lang.scope import Scope
from probekit.lang.source import Span
from probekit.lang.typed import TypedExpr, TypedStatement
from probekit.lang.types import INT, INT64, IntType, StringType

__all__ = ("action", "aggregate", "find_function")


def find_function(expr: ast.Expr) -> BuiltinFunction | None:
    """The built-in function that an expression calls, or None."""
    match expr:
        case ast.Call(function=ast.Name(name=name)):
            return FUNCTIONS.get(name)
    return None


def action(expr: ast.Call, function: BuiltinFunction, scope: Scope) -> TypedStatement:
    """An action standing alone."""
    if not function.ready:
        raise not_yet(expr.function.span, f"{function.name}() is")
    _check_count(expr, function)
    return _ACTIONS[function.name](expr, scope)


def aggregate(expr: ast.Assign, scope: Scope) -> typed.Aggregate:
    """``@name[keys] = function(value)``."""
    assert isinstance(expr.target, ast.AggRef)
    target, function = expr.target, find_function(expr.value)
    shown = f"@{target.name}"
    if expr.op != "=":
        raise refuse("D_AGG_FUNC", expr.span, f"{expr.op} does not apply to {shown}: only = does")
    if not isinstance(expr.value, ast.Call) or (function is not None and function.kind != "aggregating"):
        raise refuse("D_AGG_FUNC", expr.value.span, f"{shown} takes only the result of an aggregating function")
    if function is None:
        check(expr.value, scope)  # says what is wrong with the name
        raise AssertionError("a call of an unknown function was accepted")
    if not function.ready:
        raise not_yet(expr.value.function.span, f"{function.name}() is")
    _check_count(expr.value, function)
    keys = tuple(check(key, scope) for key in target.keys or ())
    value = _agg_value(expr.value, function, scope)
    return typed.Aggregate(scope.aggregation(target.name, function.name, keys, target.span).index, keys, value)


def _agg_value(call: ast.Call, function: BuiltinFunction, scope: Scope) -> TypedExpr | None:
    if not call.args:
        return None
    if len(call.args) > 1:
        raise not_yet(call.args[1].span, f"the increment of {function.name}() is", tag="D_QUANT_PROTO")
    value = check_scalar(call.args[0], scope, "D_AGG_SCALAR", f"the argument of {function.name}()")
    return convert(value, INT64)


def _check_count(call: ast.Call, function: BuiltinFunction) -> None:
    count = len(call.args)
    if count < function.least or (function.most is not None and count > function.most):
        wanted = str(function.least) if function.most == function.least else f"at least {function.least}"
        if function.most is not None and function.most != function.least:
            wanted = f"{function.least} to {function.most}"
        plural = "" if wanted == "1" else "s"
        message = f"{function.name}() takes {wanted if wanted != '0' else 'no'} argument{plural}, not {count}"
        raise refuse("D_PROTO_LEN", call.span, message)


# Actions.


def _trace(call: ast.Call, scope: Scope) -> TypedStatement:
    argument = call.args[0]
    if isinstance(argument, ast.AggRef):
        raise refuse("D_TRACE_DYN", argument.span, "trace() cannot take an aggregation", "use printa()")
    if (function := find_function(argument)) is not None and function.kind == "action":
        raise refuse("D_TRACE_VOID", argument.span, f"{function.name}() has no value to trace")
    return typed.Trace(check(argument, scope))


def _exit(call: ast.Call, scope: Scope) -> TypedStatement:
    status = check_scalar(call.args[0], scope, "D_PROTO_ARG", "the argument of exit()")
    return typed.Exit(convert(status, INT))


def _printf(call: ast.Call, scope: Scope) -> TypedStatement:
    first = call.args[0]
    if not isinstance(first, ast.String):
        raise refuse("D_PRINTF_ARG_FMT", first.span, "the first argument of printf() must be a string constant")
    if not first.text:
        raise refuse("D_PRINTF_FMT_EMPTY", first.span, "the format of printf() is empty")
    try:
        text = parse_format(first.text.decode("utf-8", "surrogateescape"))
    except FormatError as error:
        raise refuse("D_SYNTAX", first.span, f"printf(): {error}") from error
    return typed.Printf(text, _printf_args(text, call, scope))


def _printf_args(text: Format, call: ast.Call, scope: Scope) -> tuple[TypedExpr, ...]:
    given = list(call.args[1:])
    out: list[TypedExpr] = []
    for number, conversion in enumerate(text.conversions, 1):
        for star, what in ((conversion.star_width, "width"), (conversion.star_precision, "precision")):
            if star:
                out.append(_dynamic(given, number, what, call.span, scope))
        _check_conversion(conversion, call.args[0].span)
        if not given:
            message = f"conversion {number} (%{conversion.letter}) has no argument"
            raise refuse("D_PRINTF_ARG_PROTO", call.span, message)
        argument = given.pop(0)
        value = check(argument, scope)
        _check_fit(conversion, value, argument.span)
        out.append(value)
    if given:
        message = f"the format takes {len(out)} argument{'' if len(out) == 1 else 's'}, not {len(call.args) - 1}"
        raise refuse("D_PRINTF_ARG_EXTRA", given[0].span, message)
    return tuple(out)


def _dynamic(given: list[ast.Expr], number: int, what: str, span: Span, scope: Scope) -> TypedExpr:
    if not given:
        raise refuse("D_PRINTF_DYN_PROTO", span, f"conversion {number} has no argument for its {what} (*)")
    value = check_scalar(given.pop(0), scope, "D_PRINTF_DYN_TYPE", f"the {what} (*) of conversion {number}")
    return convert(value, INT)


_INTEGER, _STRING, _FLOAT = "an integer", "a string", "a floating-point number"

_CONVERSIONS: dict[str, str] = {
    **dict.fromkeys("diouxXpcCYT", _INTEGER),
    **dict.fromkeys("sS", _STRING),
    **dict.fromkeys("eEfFgG", _FLOAT),
}
"""Conversion letter to what it takes."""

_CONVERSIONS_LATER = {"a": "%a (a kernel address)", "A": "%A (a user address)", "k": "%k (a stack)"}


def _check_conversion(conversion: Conversion, span: Span) -> None:
    letter = conversion.letter
    if "@" in conversion.flags:
        raise refuse("D_PRINTF_AGG_CONV", span, f"%@{letter} needs an aggregation, so it belongs in printa()")
    if letter in _CONVERSIONS_LATER:
        raise not_yet(span, f"the conversion {_CONVERSIONS_LATER[letter]} is")
    if letter not in _CONVERSIONS:
        raise refuse("D_SYNTAX", span, f"printf() has no conversion %{letter}")


def _check_fit(conversion: Conversion, value: TypedExpr, span: Span) -> None:
    wanted = _CONVERSIONS[conversion.letter]
    match value.type:
        case IntType():
            fits = wanted == _INTEGER
        case StringType():
            fits = wanted == _STRING
    if not fits:
        raise refuse("D_PRINTF_ARG_TYPE", span, f"%{conversion.letter} takes {wanted}, not {value.type}")


_ACTIONS: dict[str, Callable[[ast.Call, Scope], TypedStatement]] = {
    "exit": _exit,
    "printf": _printf,
    "trace": _trace,
}
