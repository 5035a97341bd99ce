"""Check actions that stand as statements: one function for each action, in a table by name.

printf("%d", pid)       ->  ActionCall("printf", (RecordedValue(pid, int, 4),), Format("%d"))
tracemem(p, 16)         ->  ActionCall("tracemem", (RecordedValue(p, bytes, 16),))
"""

from __future__ import annotations

from collections.abc import Callable

from probekit.buffers.print_types import PrintType
from probekit.errors import InternalError
from probekit.lang import ast, typed
from probekit.lang.access import follow
from probekit.lang.aggcalls import clear, denormalize, normalize, printa, trunc
from probekit.lang.builtins import BuiltinFunction
from probekit.lang.diagnostics import refuse
from probekit.lang.formatcheck import check_format, integer_item, item_of, read_format, text_item
from probekit.lang.functions import check_prototype, symbol_value
from probekit.lang.operators import describe
from probekit.lang.scope import Scope
from probekit.lang.shapes import TooManyParts, shape
from probekit.lang.source import Span
from probekit.lang.typed import ActionCall, RecordedValue, TypedStatement
from probekit.lang.types import (
    INT,
    INT64,
    MACHINE_POINTER,
    PointerType,
    StringType,
    SymbolType,
    Type,
    VoidType,
    is_object,
    sizeof,
)
from probekit.lang.values import Value, as_string, coerce, convert, is_integer, is_pointer

__all__ = ("action",)

_MOST_BYTES = 1 << 20


def action(expr: ast.CallExpr, function: BuiltinFunction, scope: Scope) -> TypedStatement:
    """Check an action that stands as a statement."""
    special = _ACTIONS.get(function.name)
    if special is not None:
        return special(expr, function, scope)
    values = check_prototype(expr, function, scope)
    items = tuple(_recorded(t, v, scope) for t, v in zip(function.params, values, strict=True))
    return ActionCall(function.name, items, records=function.name not in _SILENT)


_SILENT = frozenset(("breakpoint", "chill", "commit", "discard", "panic", "raise", "stop"))
"""Actions that print nothing by themselves."""


def _recorded(t: Type | None, value: Value, scope: Scope) -> RecordedValue:
    if t is None:
        raise InternalError("an argument was checked without a type")
    node = coerce(value, t)
    return text_item(node) if isinstance(node.type, StringType) else integer_item(node)


def _plain(expr: ast.Expr, scope: Scope, family: str) -> Value:
    """Check the argument of ``trace()`` or ``print()``."""
    name = family.lower()
    if isinstance(expr, ast.AggRef):
        raise refuse(f"D_{family}_AGG", expr.span, f"{name}() cannot take an aggregation", "use printa()")
    value = scope.check(expr)
    if value.dynamic or value.translated is not None:
        raise refuse(f"D_{family}_DYN", expr.span, f"{name}() cannot take {value.dynamic or 'a translated object'}")
    if value.action or isinstance(value.type, VoidType):
        raise refuse(f"D_{family}_VOID", expr.span, f"{describe(value)} has no value for {name}()")
    if is_object(value.type) and sizeof(value.type, scope.string_size) == 0:
        raise refuse("D_OP_INCOMPLETE", expr.span, f"{describe(value)} has no size that {name}() could show")
    return value


def _trace(call: ast.CallExpr, function: BuiltinFunction, scope: Scope) -> TypedStatement:
    _count(call, function, scope)
    return ActionCall("trace", (item_of(_plain(call.args[0], scope, "TRACE"), scope.string_size),))


def _count(call: ast.CallExpr, function: BuiltinFunction, scope: Scope) -> None:
    if len(call.args) != len(function.params):
        check_prototype(call, function, scope)


def _print(call: ast.CallExpr, function: BuiltinFunction, scope: Scope) -> TypedStatement:
    """Check ``print(value)``, or ``print(pointer)``, which shows what the pointer points at."""
    _count(call, function, scope)
    value = _plain(call.args[0], scope, "PRINT")
    if isinstance(value.type, SymbolType):
        return ActionCall("trace", (item_of(value, scope.string_size),))
    t = value.type
    if not isinstance(t, PointerType):
        return ActionCall("print", (item_of(value, scope.string_size),), shape=_shape(t, call.args[0].span, scope))
    if isinstance(t.to, VoidType):
        raise refuse("D_PRINT_VOID", call.args[0].span, "print() cannot show what a pointer to void points at")
    address = integer_item(convert(value.node, MACHINE_POINTER))
    pointed = follow(value, call.args[0].span, scope)
    item = RecordedValue(value.node, "bytes", sizeof(pointed.type, scope.string_size))
    if is_object(t.to) and not item.size:
        raise refuse("D_OP_INCOMPLETE", call.args[0].span, f"{t.to} has no size that print() could show")
    if item.size:
        return ActionCall("print", (item, address), shape=_shape(pointed.type, call.args[0].span, scope))
    return ActionCall("print", (address,), shape=_shape(t, call.args[0].span, scope))


def _shape(t: Type, span: Span, scope: Scope) -> PrintType:
    try:
        return shape(t, scope.string_size)
    except TooManyParts:
        raise refuse("D_TYPE_ERR", span, f"{t} has more parts than print() shows", "print one member of it") from None


def _tracemem(call: ast.CallExpr, function: BuiltinFunction, scope: Scope) -> TypedStatement:
    if len(call.args) > 3:
        raise refuse("D_TRACEMEM_ARGS", call.span, f"tracemem() takes 2 or 3 arguments, not {len(call.args)}")
    if len(call.args) < 2:
        check_prototype(call, function, scope)
    values = [scope.check(argument) for argument in call.args]
    address, size = values[:2]
    if address.action or address.dynamic or not (is_integer(address.type) or is_pointer(address.type)):
        raise refuse("D_TRACEMEM_ADDR", call.args[0].span, f"{describe(address)} is not an address")
    constant = size.node.value if isinstance(size.node, typed.Const) and is_integer(size.type) else 0
    if not 0 < constant <= _MOST_BYTES:
        raise refuse("D_TRACEMEM_SIZE", call.args[1].span, "the size must be a positive integer constant")
    items = [RecordedValue(convert(address.node, MACHINE_POINTER), "bytes", constant)]
    if len(values) == 3:
        if not is_integer(values[2].type) or values[2].action or values[2].dynamic:
            message = f"the dynamic size must be an integer, not {describe(values[2])}"
            raise refuse("D_TRACEMEM_DYNSIZE", call.args[2].span, message)
        items.append(integer_item(convert(values[2].node, INT64)))
    return ActionCall("tracemem", tuple(items))


def _formatted(call: ast.CallExpr, function: BuiltinFunction, scope: Scope) -> TypedStatement:
    if not call.args:
        check_prototype(call, function, scope)
    form = read_format(call.args[0], function.name)
    return ActionCall(function.name, check_format(form, call, scope), form)


def _freopen(call: ast.CallExpr, function: BuiltinFunction, scope: Scope) -> TypedStatement:
    if call.args and isinstance(call.args[0], ast.String) and call.args[0].text == b".":
        raise refuse("D_FREOPEN_INVALID", call.args[0].span, "freopen() cannot write to a directory")
    return _formatted(call, function, scope)


def _symbol(call: ast.CallExpr, function: BuiltinFunction, scope: Scope) -> TypedStatement:
    return ActionCall(function.name, (item_of(symbol_value(call, function, scope), scope.string_size),))


def _setopt(call: ast.CallExpr, function: BuiltinFunction, scope: Scope) -> TypedStatement:
    if not 1 <= len(call.args) <= 2:
        raise refuse("D_PROTO_LEN", call.span, f"setopt() takes 1 to 2 arguments, not {len(call.args)}")
    items: list[RecordedValue] = []
    for number, argument in enumerate(call.args, 1):
        value = scope.check(argument)
        if not isinstance(value.type, StringType):
            raise refuse("D_PROTO_ARG", argument.span, f"argument {number} of setopt() must be a string")
        items.append(text_item(as_string(value)))
    return ActionCall("setopt", tuple(items))


def _invoked(call: ast.CallExpr, function: BuiltinFunction, scope: Scope) -> TypedStatement:
    values = check_prototype(call, function, scope)
    nodes = tuple(coerce(v, t) for t, v in zip(function.params, values, strict=True) if t is not None)
    return typed.Evaluate(typed.SubroutineCall(function.name, nodes, INT))


_ACTIONS: dict[str, Callable[[ast.CallExpr, BuiltinFunction, Scope], TypedStatement]] = {
    "clear": lambda call, _f, scope: clear(call, scope),
    "copyout": _invoked,
    "copyoutstr": _invoked,
    "denormalize": lambda call, _f, scope: denormalize(call, scope),
    "freopen": _freopen,
    "normalize": lambda call, _f, scope: normalize(call, scope),
    "pcap": _invoked,
    "print": _print,
    "printa": lambda call, _f, scope: printa(call, scope),
    "printf": _formatted,
    "setopt": _setopt,
    "system": _formatted,
    "trace": _trace,
    "tracemem": _tracemem,
    "trunc": lambda call, _f, scope: trunc(call, scope),
    **dict.fromkeys(("func", "jstack", "mod", "stack", "sym", "uaddr", "ufunc", "umod", "ustack", "usym"), _symbol),
}
