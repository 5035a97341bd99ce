"""Check calls inside expressions: prototypes, and subroutines.

strlen(execname)   ->  SubroutineCall("strlen", (ReadBuiltin("execname"),), size_t)
"""

from __future__ import annotations

from probekit.errors import InternalError
from probekit.lang import ast, typed
from probekit.lang.builtins import FUNCTIONS, VARIABLES, BuiltinFunction
from probekit.lang.diagnostics import did_you_mean, refuse
from probekit.lang.operators import describe
from probekit.lang.scope import Scope
from probekit.lang.typed import TypedExpr
from probekit.lang.types import CHAR, INT, VOID, IntType, PointerType, StringType, SymbolType, Type
from probekit.lang.values import Value, as_string, coerce, fits, machine

__all__ = ("call", "check_prototype", "find_function", "function_named", "symbol_value")

_TEXT = PointerType(CHAR)


def find_function(expr: ast.Expr) -> BuiltinFunction | None:
    """Return the built-in function that an expression calls, or None."""
    match expr:
        case ast.CallExpr(function=ast.Name(name=name)):
            return FUNCTIONS.get(name)
    return None


def function_named(expr: ast.CallExpr, scope: Scope) -> BuiltinFunction:
    """Return the function that is called. Raises :class:`Refusal` for anything else."""
    designator = expr.function
    if not isinstance(designator, ast.Name):
        raise refuse("D_FUNC_IDENT", designator.span, "only a function can be called, by its name")
    name = designator.name
    function = FUNCTIONS.get(name)
    if function is None:
        if name in VARIABLES or name in scope.inlines or scope.variable("global", name) is not None:
            raise refuse("D_FUNC_IDKIND", designator.span, f"{name} is a variable, not a function")
        raise refuse("D_FUNC_UNDEF", designator.span, f"{name}() is not defined", did_you_mean(name, FUNCTIONS))
    if not function.known:
        raise refuse("D_FUNC_UNDEF", designator.span, f"{name}() belongs to another kernel than Linux")
    return function


def call(expr: ast.CallExpr, scope: Scope) -> Value:
    """Check a call that is part of an expression."""
    function = function_named(expr, scope)
    if isinstance(function.result, SymbolType):
        return symbol_value(expr, function, scope)
    if function.kind == "aggregating":
        return Value(typed.Const(0, INT), VOID, dynamic=f"{function.name}()")
    if function.kind != "subroutine":
        return Value(typed.Const(0, INT), VOID, action=function.name)
    args = check_prototype(expr, function, scope)
    nodes = tuple(_argument(t, v) for t, v in zip(function.params, args, strict=False) if t is not None)
    result = function.result
    if isinstance(result, StringType):
        result = StringType(scope.string_size)
    if result == VOID:
        return Value(typed.SubroutineCall(function.name, nodes, INT), VOID)
    if function.name == "strtok" and isinstance(args[0].node, typed.Const):
        nodes = nodes[1:]
    return Value(typed.SubroutineCall(function.name, nodes, machine(result)), result)


def _argument(t: Type, value: Value) -> TypedExpr:
    return as_string(value) if t == _TEXT else coerce(value, t)


def check_prototype(expr: ast.CallExpr, function: BuiltinFunction, scope: Scope) -> list[Value]:
    """Check the arguments: their number first, then each type. Returns their values."""
    least, most = len(function.params) - function.optional, len(function.params)
    count = len(expr.args)
    if count < least or (count > most and not function.variadic):
        wanted = f"at least {least}" if function.variadic else str(least) if least == most else f"{least} to {most}"
        plural = "" if wanted == "1" else "s"
        message = f"{function.name}() takes {wanted if wanted != '0' else 'no'} argument{plural}, not {count}"
        raise refuse("D_PROTO_LEN", expr.span, message)
    values: list[Value] = []
    for number, argument in enumerate(expr.args):
        if isinstance(argument, ast.AggRef):
            values.append(Value(typed.Const(0, INT), VOID, dynamic=f"the aggregation @{argument.name}"))
        else:
            values.append(scope.check(argument))
        t = function.params[number] if number < most else None
        if t is not None and not fits(t, values[-1]):
            message = f"argument {number + 1} of {function.name}() is {t}, not {describe(values[-1])}"
            raise refuse("D_PROTO_ARG", argument.span, message)
    return values


def symbol_value(expr: ast.CallExpr, function: BuiltinFunction, scope: Scope) -> Value:
    """Check ``sym(addr)`` and the others that show an address by name, or ``stack()``, many addresses."""
    result = function.result
    if not isinstance(result, SymbolType):
        raise InternalError("what was checked to be a symbol has another type")
    if result.name == "stack":
        frames = stack_frames(expr, function, scope)
        return Value(typed.SubroutineCall(function.name, (typed.Const(frames, INT),), StringType(8 * frames)), result)
    (value,) = check_prototype(expr, function, scope)
    t = function.params[0]
    if not isinstance(t, IntType):
        raise InternalError("what was checked to be an integer has another type")
    return Value(coerce(value, t), result)


_MOST_FRAMES = 1024


def stack_frames(expr: ast.CallExpr, function: BuiltinFunction, scope: Scope) -> int:
    """Return how many frames ``stack([n])`` or ``ustack([n[, size]])`` asks for."""
    name = function.name
    values = [scope.check(argument) for argument in expr.args]
    frames = min(max(scope.frames[name], 1), _MOST_FRAMES)
    if name == "stack":
        if len(values) > 1:
            raise refuse("D_STACK_PROTO", expr.span, f"stack() takes at most one argument, not {len(values)}")
        tag = "D_STACK_SIZE"
    else:
        if len(values) > 2:
            raise refuse("D_USTACK_PROTO", expr.span, f"{name}() takes at most two arguments, not {len(values)}")
        tag = "D_USTACK_FRAMES"
    if len(values) == 2 and _positive(values[1], allow_zero=True) is None:
        raise refuse("D_USTACK_STRSIZE", expr.args[1].span, "the string size must be a positive integer constant")
    if values:
        given = _positive(values[0])
        if given is None:
            raise refuse(tag, expr.args[0].span, "the number of frames must be a positive integer constant")
        frames = min(given, _MOST_FRAMES)
    return frames


def _positive(value: Value, *, allow_zero: bool = False) -> int | None:
    if isinstance(value.node, typed.Const) and isinstance(value.type, IntType):
        number = value.node.value
        return number if number > 0 or (allow_zero and number == 0) else None
    return None
