"""Check ``printf()`` formats against their arguments, and decide what each argument records.

printf("%d %s", pid, execname)   ->  RecordedValue(pid, int, 4), RecordedValue(execname, string, 16)
"""

from __future__ import annotations

from collections.abc import Sequence

from probekit.buffers.aggs import KeyPart
from probekit.buffers.formats import Conversion, Format, PrintfFormatError, parse_format
from probekit.errors import InternalError
from probekit.lang import ast, typed
from probekit.lang.diagnostics import refuse
from probekit.lang.operators import describe
from probekit.lang.scope import Scope
from probekit.lang.source import Span
from probekit.lang.typed import RecordedValue
from probekit.lang.types import (
    INT,
    INT64,
    MACHINE_POINTER,
    ArrayType,
    FloatType,
    IntType,
    StringType,
    StructType,
    SymbolType,
    c_name,
    sizeof,
)
from probekit.lang.values import Value, as_string, convert, is_integer, is_pointer, is_string_like, machine

__all__ = ("check_format", "check_keys", "integer_item", "item_of", "read_format", "text_item")

_INTEGER, _CHARACTER, _STRING, _WIDE, _FLOAT, _ADDRESS, _USER, _TIME, _STACK = (
    "an integer",
    "a char, a short or an int",
    "a string",
    "an array of 32-bit characters",
    "a floating-point number",
    "an address",
    "an address of the process of -c or -p",
    "a 64-bit integer, a time",
    "a stack",
)

_CONVERSIONS: dict[str, str] = {
    **dict.fromkeys("diouxXP", _INTEGER),
    **dict.fromkeys("cC", _CHARACTER),
    **dict.fromkeys("sS", _STRING),
    **dict.fromkeys("eEfgG", _FLOAT),
    **dict.fromkeys(("Le", "LE", "Lf", "Lg", "LG"), _FLOAT),
    **dict.fromkeys("pa", _ADDRESS),
    "A": _USER,
    **dict.fromkeys("YT", _TIME),
    "k": _STACK,
    **{f"h{letter}": "short" for letter in "dixX"},
    **{f"h{letter}": "unsigned short" for letter in "ou"},
    **{f"l{letter}": "long" for letter in "dixX"},
    **{f"l{letter}": "unsigned long" for letter in "ou"},
    **{f"ll{letter}": "long long" for letter in "dixX"},
    **{f"ll{letter}": "unsigned long long" for letter in "ou"},
    **dict.fromkeys(("lc", "wc"), "int"),
    **dict.fromkeys(("ls", "ws"), _WIDE),
}
"""What each conversion takes, with its size prefix. The name of a C type means exactly that type."""

_EITHER_SIGN = frozenset("xX")
_64_BITS = frozenset(("int64_t", "uint64_t"))
"""The typedefs of ``long`` that ``%llx`` takes all the same."""


def read_format(expr: ast.Expr, name: str) -> Format:
    """Parse a format string. Raises :class:`Refusal`."""
    if not isinstance(expr, ast.String):
        raise refuse("D_PRINTF_ARG_FMT", expr.span, f"the format of {name}() must be a string constant")
    if not expr.text and name != "freopen":
        raise refuse("D_PRINTF_FMT_EMPTY", expr.span, f"the format of {name}() is empty")
    try:
        form = parse_format(expr.text.decode("utf-8", "surrogateescape"))
    except PrintfFormatError as error:
        raise refuse("D_SYNTAX", expr.span, f"{name}(): {error}") from error
    for conversion in form.conversions:
        if _name(conversion) not in _CONVERSIONS:
            raise refuse(
                "D_SYNTAX", expr.span, f"{name}() has no conversion %{_name(conversion)}", _shorter(conversion)
            )
    return form


def _name(conversion: Conversion) -> str:
    return conversion.length + conversion.letter


def _shorter(conversion: Conversion) -> str:
    if conversion.length and _CONVERSIONS.get(conversion.letter) == _INTEGER:
        return f"leave the size out: %{conversion.letter} takes an integer of any size"
    return ""


def check_format(form: Format, call: ast.CallExpr, scope: Scope) -> tuple[RecordedValue, ...]:
    """Check the arguments of ``printf(format, ...)``, ``system()`` or ``freopen()``."""
    given = list(call.args[1:])
    items: list[RecordedValue] = []
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
        items.append(_fit(conversion, scope.check(argument), argument.span, scope))
    if given:
        plural = "" if len(items) == 1 else "s"
        message = f"the format takes {len(items)} argument{plural}, not {len(call.args) - 1}"
        raise refuse("D_PRINTF_ARG_EXTRA", given[0].span, message)
    return tuple(items)


def _dynamic(given: list[ast.Expr], number: int, what: str, span: Span, scope: Scope) -> RecordedValue:
    if not given:
        raise refuse("D_PRINTF_DYN_PROTO", span, f"conversion {number} has no argument for its {what} (*)")
    argument = given.pop(0)
    value = scope.check(argument)
    if not is_integer(value.type) or value.action or value.dynamic:
        message = f"the {what} (*) of conversion {number} must be an integer, not {describe(value)}"
        raise refuse("D_PRINTF_DYN_TYPE", argument.span, message)
    return integer_item(convert(value.node, INT))


def _fit(conversion: Conversion, value: Value, span: Span, scope: Scope) -> RecordedValue:
    wanted = _CONVERSIONS[_name(conversion)]
    if not _takes(wanted, conversion, value, scope):
        shown = wanted if " " in wanted else f"a {wanted}"
        message = f"%{_name(conversion)} takes {shown}, not {describe(value)}"
        raise refuse("D_PRINTF_ARG_TYPE", span, message, _hint(conversion, value))
    if isinstance(value.type, SymbolType):
        return item_of(value, 0)
    if wanted == _STRING:
        return text_item(as_string(value))
    if wanted == _WIDE:
        return item_of(value, scope.string_size)
    if wanted == _TIME:
        return integer_item(convert(value.node, INT64))
    return integer_item(value.node)


def _hint(conversion: Conversion, value: Value) -> str:
    if conversion.length and is_integer(value.type):
        return _shorter(conversion)
    return "use stringof()" if is_string_like(value.type) and not isinstance(value.type, StringType) else ""


def _takes(wanted: str, conversion: Conversion, value: Value, scope: Scope) -> bool:
    t = value.type
    if value.action or value.dynamic or value.translated is not None:
        return False
    if isinstance(t, SymbolType):
        if t.name == "stack" or wanted == _STACK:
            return t.name == "stack" and wanted == _STACK
        return wanted in (_USER, _STRING) if t.name in _USER_SYMBOLS else wanted in (_ADDRESS, _STRING)
    match wanted:
        case "an integer":
            return is_integer(t)
        case "a char, a short or an int":
            return is_integer(t) and sizeof(t) <= 4
        case "a string":
            return isinstance(t, (StringType, ArrayType)) and is_string_like(t)
        case "an array of 32-bit characters":
            return isinstance(t, ArrayType) and isinstance(t.of, IntType) and t.of.bits == 32
        case "an address":
            return is_integer(t) or is_pointer(t)
        case "an address of the process of -c or -p":
            return scope.has_target and (is_integer(t) or is_pointer(t))
        case "a 64-bit integer, a time":
            return is_integer(t) and sizeof(t) == 8
        case "a stack" | "a floating-point number":
            return False
        case _:
            return isinstance(t, IntType) and _is_exactly(wanted, conversion, t)


_USER_SYMBOLS = frozenset(("uaddr", "ufunc", "umod", "usym"))


def _is_exactly(wanted: str, conversion: Conversion, t: IntType) -> bool:
    """Tell whether ``t`` is the C type that a size prefix wants, under any typedef.

    Hexadecimal conversions accept either signedness.
    """
    if conversion.letter in _EITHER_SIGN:
        if conversion.length == "ll" and (t.name in _64_BITS or t.means in _64_BITS):
            return True
        return c_name(t).removeprefix("unsigned ") == wanted
    return c_name(t) == wanted


def check_keys(form: Format, keys: Sequence[KeyPart], func: str, span: Span, scope: Scope) -> None:
    """Check the format of ``printa()`` against an aggregation's keys and the value of its function ``func``."""
    left = list(enumerate(keys, 1))
    for number, conversion in enumerate(form.conversions, 1):
        name, wanted = _name(conversion), _CONVERSIONS[_name(conversion)]
        for star, what in ((conversion.star_width, "width"), (conversion.star_precision, "precision")):
            if star:
                _dynamic_key(left, number, what, span)
        if "@" in conversion.flags:
            # count() is unsigned, every other function signed
            if not _shows(wanted, conversion, KeyPart("uint" if func == "count" else "int"), scope):
                raise refuse("D_PRINTF_ARG_TYPE", span, f"%@{name} cannot show an aggregation")
            continue
        if not left:
            raise refuse("D_PRINTF_ARG_PROTO", span, f"conversion {number} (%{name}) has no key")
        place, part = left.pop(0)
        if not _shows(wanted, conversion, part, scope):
            raise refuse("D_PRINTF_ARG_TYPE", span, f"%{name} does not fit key {place}, which is {_kind(part)}")


def _dynamic_key(left: list[tuple[int, KeyPart]], number: int, what: str, span: Span) -> None:
    if not left:
        raise refuse("D_PRINTF_DYN_PROTO", span, f"conversion {number} has no key for its {what} (*)")
    place, part = left.pop(0)
    if part.kind not in ("int", "uint") or part.detail:
        message = f"the {what} (*) of conversion {number} must be an integer, and key {place} is {_kind(part)}"
        raise refuse("D_PRINTF_DYN_TYPE", span, message)


def _kind(part: KeyPart) -> str:
    return {"int": _INTEGER, "uint": _INTEGER, "stack": _STACK}.get(part.kind, _STRING)


def _shows(wanted: str, conversion: Conversion, part: KeyPart, scope: Scope) -> bool:
    if part.detail and part.kind in ("int", "uint"):
        return wanted in (_USER if part.detail in _USER_SYMBOLS else _ADDRESS, _STRING)
    match part.kind:
        case "int" | "uint":
            if wanted == _CHARACTER:
                return part.bits <= 32
            if wanted == _TIME:
                return part.bits == 64
            if wanted in (_INTEGER, _ADDRESS) or (wanted == _USER and scope.has_target):
                return True
            name = "int64_t" if part.kind == "int" else "uint64_t"
            return _is_exactly(wanted, conversion, IntType(name, part.bits, part.kind == "int"))
        case "stack":
            return wanted == _STACK
        case _:
            return wanted == _STRING


# What is recorded.


def integer_item(node: typed.TypedExpr) -> RecordedValue:
    """Record an integer, as wide as its type."""
    if not isinstance(node.type, IntType):
        raise InternalError("what was checked to be an integer has another type")
    return RecordedValue(node, "int" if node.type.signed else "uint", node.type.bits // 8)


def text_item(node: typed.TypedExpr) -> RecordedValue:
    """Record a string. One that the probe alone decides takes no space."""
    if not isinstance(node.type, StringType):
        raise InternalError("what was checked to be a string has another type")
    if isinstance(node, typed.ReadBuiltin) and node.name.startswith("probe"):
        return RecordedValue(node, "probe", 0, node.name)
    return RecordedValue(node, "string", node.type.size)


def item_of(value: Value, string_size: int) -> RecordedValue:
    """Record any value, as ``trace()`` does."""
    match value.type:
        case SymbolType(name="stack"):
            if not isinstance(value.node.type, StringType):
                raise InternalError("what was checked to be a string has another type")
            return RecordedValue(value.node, "stack", value.node.type.size)
        case SymbolType(name=name):
            return RecordedValue(value.node, "uint", 8, name)
        case StringType():
            return text_item(value.node)
        case StructType() | ArrayType() | FloatType():
            return RecordedValue(value.node, "bytes", sizeof(value.type, string_size))
        case _:
            m = machine(value.type)
            return integer_item(convert(value.node, m if isinstance(m, IntType) else MACHINE_POINTER))
