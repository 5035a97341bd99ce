"""``printf()`` formats against their arguments, and what each argument records.

printf("%d %s", pid, execname)   ->  Item(pid, int, 4), Item(execname, string, 16)
"""

from __future__ import annotations

from collections.abc import Sequence

from probekit.buffers.aggs import KeyPart
from probekit.buffers.formats import Conversion, Format, FormatError, parse_format
from probekit.lang import ast, typed
from probekit.lang.diagnostics import refuse
from probekit.lang.operators import describe
from probekit.lang.scope import Scope
from probekit.lang.source import Span
from probekit.lang.typed import Item
from probekit.lang.types import (
    INT,
    INT64,
    MACHINE_POINTER,
    ArrayType,
    IntType,
    StringType,
    StructType,
    SymbolType,
    sizeof,
)
from probekit.lang.values import Value, as_text, convert, is_integer, is_pointer, is_text, machine

__all__ = ("check_format", "check_keys", "integer_item", "item_of", "read_format", "text_item")

_INTEGER, _STRING, _FLOAT, _ADDRESS, _TIME, _STACK = (
    "an integer",
    "a string",
    "a floating-point number",
    "an address",
    "a 64-bit time",
    "a stack",
)

_CONVERSIONS: dict[str, str] = {
    **dict.fromkeys("diouxXcC", _INTEGER),
    **dict.fromkeys("sS", _STRING),
    **dict.fromkeys("eEfFgG", _FLOAT),
    **dict.fromkeys("paA", _ADDRESS),
    **dict.fromkeys("YT", _TIME),
    "k": _STACK,
}
"""Conversion letter to what it takes."""


def read_format(expr: ast.Expr, name: str) -> Format:
    """A format string. Raises :class:`Refusal`."""
    if not isinstance(expr, ast.String):
        raise refuse("D_PRINTF_ARG_FMT", expr.span, f"the format of {name}() must be a string constant")
    if not expr.text and name != "freopen":
        raise refuse("D_PRINTF_FMT_EMPTY", expr.span, f"the format of {name}() is empty")
    try:
        form = parse_format(expr.text.decode("utf-8", "surrogateescape"))
    except FormatError as error:
        raise refuse("D_SYNTAX", expr.span, f"{name}(): {error}") from error
    for conversion in form.conversions:
        if conversion.letter not in _CONVERSIONS:
            raise refuse("D_SYNTAX", expr.span, f"{name}() has no conversion %{conversion.letter}")
    return form


def check_format(form: Format, call: ast.Call, scope: Scope) -> tuple[Item, ...]:
    """The arguments of ``printf(format, ...)`` and its kin."""
    given = list(call.args[1:])
    items: list[Item] = []
    for number, conversion in enumerate(form.conversions, 1):
        for star, what in ((conversion.star_width, "width"), (conversion.star_precision, "precision")):
            if star:
                items.append(_dynamic(given, number, what, call.span, scope))
        if "@" in conversion.flags:
            message = f"%@{conversion.letter} needs an aggregation, so it belongs in printa()"
            raise refuse("D_PRINTF_AGG_CONV", call.args[0].span, message)
        if not given:
            message = f"conversion {number} (%{conversion.letter}) has no argument"
            raise refuse("D_PRINTF_ARG_PROTO", call.span, message)
        argument = given.pop(0)
        items.append(_fit(conversion, scope.check(argument), argument.span))
    if given:
        plural = "" if len(items) == 1 else "s"
        message = f"the format takes {len(items)} argument{plural}, not {len(call.args) - 1}"
        raise refuse("D_PRINTF_ARG_EXTRA", given[0].span, message)
    return tuple(items)


def _dynamic(given: list[ast.Expr], number: int, what: str, span: Span, scope: Scope) -> Item:
    if not given:
        raise refuse("D_PRINTF_DYN_PROTO", span, f"conversion {number} has no argument for its {what} (*)")
    argument = given.pop(0)
    value = scope.check(argument)
    if not is_integer(value.type) or value.action or value.dynamic:
        message = f"the {what} (*) of conversion {number} must be an integer, not {describe(value)}"
        raise refuse("D_PRINTF_DYN_TYPE", argument.span, message)
    return integer_item(convert(value.node, INT))


def _fit(conversion: Conversion, value: Value, span: Span) -> Item:
    wanted = _CONVERSIONS[conversion.letter]
    if not _takes(wanted, value):
        raise refuse("D_PRINTF_ARG_TYPE", span, f"%{conversion.letter} takes {wanted}, not {describe(value)}")
    if isinstance(value.type, SymbolType):
        return item_of(value, 0)
    if wanted == _STRING:
        return text_item(as_text(value))
    if wanted == _TIME:
        return integer_item(convert(value.node, INT64))
    return integer_item(value.node)


def _takes(wanted: str, value: Value) -> bool:
    t = value.type
    if value.action or value.dynamic or value.xlated is not None:
        return False
    if isinstance(t, SymbolType):
        return (t.name == "stack") == (wanted == _STACK) and wanted in (_STACK, _STRING, _ADDRESS)
    match wanted:
        case "an integer":
            return is_integer(t)
        case "a string":
            return is_text(t)
        case "an address":
            return is_integer(t) or is_pointer(t)
        case "a 64-bit time":
            return is_integer(t)
        case _:
            return False


def check_keys(form: Format, keys: Sequence[KeyPart], aggs: int, span: Span) -> None:
    """The format of ``printa()`` against an aggregation's keys."""
    used = 0
    for number, conversion in enumerate(form.conversions, 1):
        if conversion.star_width or conversion.star_precision:
            raise refuse("D_PRINTF_DYN_PROTO", span, f"conversion {number} of printa() cannot have a width of *")
        if "@" in conversion.flags:
            if _CONVERSIONS[conversion.letter] not in (_INTEGER, _ADDRESS):
                raise refuse("D_PRINTF_AGG_CONV", span, f"%@{conversion.letter} cannot show an aggregation")
            continue
        if used >= len(keys):
            message = f"conversion {number} (%{conversion.letter}) has no key"
            raise refuse("D_PRINTF_ARG_PROTO", span, message)
        part = keys[used]
        used += 1
        if not _shows(_CONVERSIONS[conversion.letter], part):
            message = f"%{conversion.letter} does not fit key {used}, which is {_kind(part)}"
            raise refuse("D_PRINTF_ARG_TYPE", span, message)


def _kind(part: KeyPart) -> str:
    return {"int": _INTEGER, "uint": _INTEGER, "stack": _STACK}.get(part.kind, _STRING)


def _shows(wanted: str, part: KeyPart) -> bool:
    if part.detail and part.kind in ("int", "uint"):
        return wanted in (_ADDRESS, _STRING)
    match part.kind:
        case "int" | "uint":
            return wanted in (_INTEGER, _ADDRESS, _TIME)
        case "stack":
            return wanted == _STACK
        case _:
            return wanted == _STRING


# What is recorded.


def integer_item(node: typed.TypedExpr) -> Item:
    """An integer, as wide as its type."""
    assert isinstance(node.type, IntType)
    return Item(node, "int" if node.type.signed else "uint", node.type.bits // 8)


def text_item(node: typed.TypedExpr) -> Item:
    """A string; those that the probe decides take no space."""
    assert isinstance(node.type, StringType)
    if isinstance(node, typed.Builtin) and node.name.startswith("probe"):
        return Item(node, "probe", 0, node.name)
    return Item(node, "string", node.type.size)


def item_of(value: Value, string_size: int) -> Item:
    """Any value, as ``trace()`` records it."""
    match value.type:
        case SymbolType(name="stack"):
            assert isinstance(value.node.type, StringType)
            return Item(value.node, "stack", value.node.type.size)
        case SymbolType(name=name):
            return Item(value.node, "uint", 8, name)
        case StringType():
            return text_item(value.node)
        case StructType() | ArrayType():
            return Item(value.node, "bytes", sizeof(value.type, string_size))
        case _:
            m = machine(value.type)
            return integer_item(convert(value.node, m if isinstance(m, IntType) else MACHINE_POINTER))
