"""Describe checked expressions: the typed form, the D type, and the place where the value lives.

    this->p->count   ->  Value(MemLoad(...), uint32_t, place=MemPlace(...))
    "abc"            ->  Value(StringConst(b"abc"), string, place=None)

DTrace's rules for what fits what are here. They speak of integers, of scalars, of pointers, and of types that are
string-like: a string, an array of characters or a pointer to one (DTrace: ``strcompat``).
"""

from __future__ import annotations

from typing import final

from probekit.errors import InternalError
from probekit.lang import ast, typed
from probekit.lang.typed import TypedExpr, Var
from probekit.lang.types import (
    INT,
    MACHINE_POINTER,
    STRING,
    ArrayType,
    EnumType,
    FuncType,
    IntType,
    PointerType,
    StringType,
    StructType,
    Type,
    VoidType,
    is_object,
    same,
    sizeof,
)
from probekit.records import record

__all__ = (
    "CharPlace",
    "ElemPlace",
    "FixedPlace",
    "MemPlace",
    "Place",
    "TranslatedObject",
    "Translator",
    "Value",
    "VarPlace",
    "as_integer",
    "as_string",
    "coerce",
    "compatible",
    "convert",
    "fits",
    "is_integer",
    "is_pointer",
    "is_scalar",
    "is_string_like",
    "is_vfptr",
    "load_memory",
    "machine",
    "pointee",
    "pointers_fit",
)


@final
@record
class VarPlace:
    """A variable."""

    var: Var


@final
@record
class ElemPlace:
    """An element of an associative array."""

    var: Var
    keys: tuple[TypedExpr, ...]


@final
@record
class MemPlace:
    """An object in memory."""

    addr: TypedExpr
    shift: int = 0
    """The first bit of a bit-field, in the integer at ``addr``."""
    bits: int = 0
    """The width of a bit-field; 0 for any other object."""


@final
@record
class CharPlace:
    """A character of a string that lies in a place."""

    text: Place
    """Where the string is. It is not a :class:`FixedPlace` or another character."""
    type: StringType
    """The string's type."""
    index: TypedExpr
    """The character's place in the string, 64 bits."""


@final
@record
class FixedPlace:
    """A built-in variable or an inline: it has a name and cannot be assigned."""


Place = VarPlace | ElemPlace | MemPlace | CharPlace | FixedPlace


@final
@record
class Value:
    """A checked expression."""

    node: TypedExpr
    type: Type
    place: Place | None = None
    """None for a value that has none."""
    translated: TranslatedObject | None = None
    """Set for an object that a translator makes."""
    action: str = ""
    """The name of the action that it calls; such a call has no value."""
    dynamic: str = ""
    """Names an aggregation, an aggregating function or a whole associative array, which has no value either."""


@final
@record
class Translator:
    """``translator target < source parameter > { member = expression; ... };``."""

    target: StructType
    source: Type
    parameter: str
    """The name of the source in the members' expressions."""
    members: dict[str, ast.Expr]
    """The expression for each member that it gives a value."""


@final
@record
class TranslatedObject:
    """An object as its translator makes it. It has no address: each member is evaluated where it is used."""

    translator: Translator
    source: Value
    pointer: bool
    """The expression is a pointer to the object."""


def machine(t: Type) -> IntType | StringType:
    """Return the type that a register holds for a value of ``t``: for objects and pointers, an address."""
    match t:
        case IntType() | StringType():
            return t
        case EnumType():
            return INT if t.size == 4 and t.signed else IntType("int", t.size * 8, t.signed)
        case _:
            return MACHINE_POINTER


def is_integer(t: Type) -> bool:
    """Tell whether a type is an integer or an enumeration."""
    return isinstance(t, (IntType, EnumType))


def is_pointer(t: Type) -> bool:
    """Tell whether a type is a pointer, or an array, which is used as one."""
    return isinstance(t, (PointerType, ArrayType))


def is_scalar(t: Type) -> bool:
    """Tell whether a value can be compared with zero."""
    return isinstance(t, (IntType, EnumType, PointerType))


def is_vfptr(t: Type) -> bool:
    """Tell whether a type is a pointer to void or to a function, on which there is no arithmetic."""
    return isinstance(t, PointerType) and isinstance(t.to, (VoidType, FuncType))


def pointee(t: Type) -> Type | None:
    """Return what a pointer or array points at; None for any other type."""
    match t:
        case PointerType():
            return t.to
        case ArrayType():
            return t.of
        case _:
            return None


def is_string_like(t: Type) -> bool:
    """Tell whether a type is string-like. An array of unsigned characters is not, to D."""
    inner = pointee(t)
    return isinstance(t, StringType) or (isinstance(inner, IntType) and inner.bits == 8 and inner.signed)


def _is_null(value: Value) -> bool:
    return is_integer(value.type) and isinstance(value.node, typed.Const) and value.node.value == 0


def pointers_fit(left: Value, right: Value) -> bool:
    """Apply DTrace's rule for two operands of which at least one is a pointer.

    They fit if they point at the same type, one is a ``void *``, or one is the constant 0.
    """
    a = VOIDED if isinstance(left.type, StringType) else pointee(left.type)
    b = VOIDED if isinstance(right.type, StringType) else pointee(right.type)
    if a is None:
        return b is not None and _is_null(left)
    if b is None:
        return _is_null(right)
    if isinstance(a, VoidType) or isinstance(b, VoidType):
        return True
    return same(a, b)


VOIDED = IntType("char", 8, True)
"""The type that a string points at where it is used as an address."""


def fits(t: Type, value: Value) -> bool:
    """Apply DTrace's rule for assigning or passing ``value`` where ``t`` is wanted."""
    if value.action or value.dynamic:
        return False
    if is_integer(t) and is_integer(value.type):
        return True
    if is_string_like(t) and is_string_like(value.type):
        return True
    if isinstance(t, (StructType, FuncType)) or isinstance(value.type, (StructType, FuncType)):
        return same(t, value.type)
    if isinstance(t, VoidType) or isinstance(value.type, VoidType):
        return False
    if isinstance(t, ArrayType) and isinstance(value.type, ArrayType):
        return same(t, value.type)
    return pointers_fit(Value(typed.BoundValue(-1, machine(t)), t), value)


def compatible(left: Value, right: Value) -> bool:
    """Tell whether two operands can be compared or be the arms of one ``?:``."""
    if is_integer(left.type) and is_integer(right.type):
        return True
    if is_string_like(left.type) and is_string_like(right.type):
        return True
    if isinstance(left.type, StructType) and same(left.type, right.type):
        return True
    return pointers_fit(left, right)


def convert(node: TypedExpr, t: IntType) -> TypedExpr:
    """Convert an integer expression to ``t``."""
    if isinstance(node, typed.Const):
        return typed.Const(t.wrap(node.value), t)
    return node if same(node.type, t) else typed.Convert(node, t)


def as_integer(value: Value, t: IntType) -> TypedExpr:
    """Return an integer, an enumeration, a pointer or an object's address as an integer of type ``t``."""
    if isinstance(value.node.type, StringType):
        return convert(typed.StringToScratch(value.node), t)
    return convert(value.node, t)


def as_string(value: Value) -> TypedExpr:
    """Return a string-like value, or the string at an address, as a string."""
    match value.type:
        case StringType():
            return value.node
        case ArrayType(count=count):
            # An array without a size, the last member of its struct, is as long as its string.
            return typed.StringLoad(value.node, count, StringType(count + 1) if count else STRING)
        case _ if isinstance(value.node, typed.Const) and value.node.value == 0:
            return typed.StringConst(b"", StringType(1))
        case _:
            return typed.StringLoad(convert(value.node, MACHINE_POINTER), 0, STRING)


def coerce(value: Value, t: Type) -> TypedExpr:
    """Return ``value``, which :func:`fits`, as a register holds it for ``t``."""
    match t:
        case StringType():
            return as_string(value)
        case ArrayType() if isinstance(value.type, StringType):
            return typed.StringToScratch(value.node)
        case _ if is_object(t):
            return value.node
        case _:
            m = machine(t)
            if not isinstance(m, IntType):
                raise InternalError("what was checked to be an integer has another type")
            return as_integer(value, m)


def load_memory(
    addr: TypedExpr, t: Type, *, shift: int = 0, bits: int = 0, unit_bits: int = 0, string_size: int = 0
) -> Value:
    """Load the object of type ``t`` at ``addr``: a value with a place.

    ``unit_bits``: the width of the integer that holds a bit-field, if it is not the bit-field's own type.
    """
    place = MemPlace(addr, shift, bits)
    if isinstance(t, StringType):
        return Value(typed.StringLoad(addr, string_size or t.size, t), t, place)
    if is_object(t) or isinstance(t, (VoidType, FuncType)) or sizeof(t) not in (1, 2, 4, 8):
        return Value(addr, t, place)
    unit = machine(t)
    if not isinstance(unit, IntType):
        raise InternalError("what was checked to be an integer has another type")
    node: TypedExpr = typed.MemLoad(addr, unit if not bits else IntType(unit.name, unit_bits or unit.bits, unit.signed))
    if bits:
        wide = IntType("uint64_t", 64, unit.signed)
        up = typed.Arith("shl", convert(node, wide), typed.Const(64 - shift - bits, INT), wide)
        node = convert(typed.Arith("shr", up, typed.Const(64 - bits, INT), wide), unit)
    return Value(node, t, place)
