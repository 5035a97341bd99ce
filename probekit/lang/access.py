"""Check operators that reach into objects: ``&``, ``*``, ``[]``, ``.``, ``->``, ``sizeof``, ``offsetof``, ``stringof``.

p->next->count   ->  MemLoad(Arith("add", MemLoad(p + 8), 16))
"""

from __future__ import annotations

from probekit.lang import ast, typed
from probekit.lang.diagnostics import did_you_mean, refuse
from probekit.lang.operators import arithmetic, describe
from probekit.lang.scope import Scope
from probekit.lang.source import Span
from probekit.lang.symbols import symbol_address
from probekit.lang.translators import member_value, pointed_object
from probekit.lang.typed import TypedExpr
from probekit.lang.types import (
    CHAR,
    INT64,
    MACHINE_POINTER,
    SIZE_T,
    FuncType,
    PointerType,
    StringType,
    StructType,
    Type,
    VoidType,
    bit_place,
    sizeof,
)
from probekit.lang.values import (
    CharPlace,
    ElemPlace,
    FixedPlace,
    MemPlace,
    Value,
    VarPlace,
    as_integer,
    as_string,
    is_integer,
    is_pointer,
    is_scalar,
    is_string_like,
    load_memory,
    pointee,
)

__all__ = ("address_of", "dereference", "member", "offset_of", "size_of", "size_of_type", "string_of", "subscript")


def add(addr: TypedExpr, offset: int) -> TypedExpr:
    """Make the address ``offset`` bytes after another one."""
    if offset == 0:
        return addr
    if isinstance(addr, typed.Const):
        return typed.Const(MACHINE_POINTER.wrap(addr.value + offset), MACHINE_POINTER)
    return typed.Arith("add", addr, typed.Const(offset, MACHINE_POINTER), MACHINE_POINTER)


def address_of(expr: ast.Unary, scope: Scope) -> Value:
    """Check ``&operand``."""
    if isinstance(expr.operand, ast.SymbolExpr):
        return symbol_address(expr.operand, scope)
    value = scope.check(expr.operand)
    if value.dynamic or isinstance(value.place, (VarPlace, ElemPlace, FixedPlace)):
        raise refuse("D_ADDROF_VAR", expr.span, "a variable of D has no address")
    if isinstance(value.type, FuncType):
        return Value(value.node, PointerType(value.type))
    if not isinstance(value.place, MemPlace):
        raise refuse("D_ADDROF_LVAL", expr.span, "only an object in memory has an address")
    if value.place.bits:
        raise refuse("D_ADDROF_BITFIELD", expr.span, "a bit-field has no address")
    return Value(value.place.addr, PointerType(value.type))


def dereference(expr: ast.Unary, scope: Scope) -> Value:
    """Check ``*operand``."""
    value = scope.check(expr.operand)
    if value.translated is not None and value.translated.pointer:
        return pointed_object(value.translated)
    return follow(value, expr.operand.span, scope)


def follow(value: Value, span: Span, scope: Scope) -> Value:
    """Load what a pointer points at. Raises :class:`Refusal` for what is no pointer, or points at no object."""
    if isinstance(value.type, StringType):
        return _character(value, typed.Const(0, INT64))
    inner = pointee(value.type)
    if inner is None or value.action or value.dynamic:
        raise refuse("D_DEREF_NONPTR", span, f"{describe(value)} is not a pointer")
    if isinstance(inner, VoidType):
        raise refuse("D_DEREF_VOID", span, "a pointer to void points at nothing that has a value")
    if isinstance(inner, FuncType):
        raise refuse("D_DEREF_FUNC", span, "a pointer to a function cannot be followed")
    if isinstance(inner, StructType):
        inner = _defined(inner, span, scope)
    return load_memory(value.node, inner, string_size=scope.string_size)


def subscript(base: Value, expr: ast.Index, scope: Scope) -> Value:
    """Check ``base[index]``, which is ``*(base + index)``, as in C."""
    index = scope.check(expr.keys[0])
    spans = (expr.base.span, expr.keys[0].span, expr.span)
    if isinstance(base.type, StringType) and is_integer(index.type):
        moved, place = base, as_integer(index, INT64)
    else:
        moved, place = arithmetic("+", base, index, spans), None
    if len(expr.keys) != 1:
        raise refuse("D_ARR_BADREF", expr.span, "a pointer or array takes one index")
    return follow(moved, expr.base.span, scope) if place is None else _character(moved, place)


def _character(text: Value, index: TypedExpr) -> Value:
    place = None
    if isinstance(text.type, StringType) and isinstance(text.place, (VarPlace, ElemPlace, MemPlace)):
        place = CharPlace(text.place, text.type, index)
    return Value(typed.SubroutineCall("charat", (text.node, index), CHAR), CHAR, place)


def member(expr: ast.MemberExpr, scope: Scope) -> Value:
    """Check ``base.name`` or ``base->name``."""
    base = scope.check(expr.base)
    if base.translated is not None:
        _check_arrow(expr, base.translated.pointer)
        return member_value(base.translated, expr.name, expr.span, scope)
    t: Type | None = base.type
    if expr.arrow:
        if not is_pointer(base.type) or base.action or base.dynamic:
            raise refuse("D_OP_PTR", expr.span, f"-> needs a pointer, not {describe(base)}")
        t = pointee(base.type)
    if not isinstance(t, StructType) or base.action or base.dynamic:
        raise refuse("D_OP_SOU", expr.span, f"{'->' if expr.arrow else '.'} needs a struct or union, not {t}")
    return member_at(base.node, _defined(t, expr.span, scope), expr.name, expr.span, scope)


def _defined(t: StructType, span: Span, scope: Scope) -> StructType:
    found = scope.types.complete_struct(t)
    if not found.complete:
        raise refuse("D_OP_INCOMPLETE", span, f"{t} is not defined", scope.types.kernel.lacking)
    return found


def _check_arrow(expr: ast.MemberExpr, pointer: bool) -> None:
    if expr.arrow and not pointer:
        raise refuse("D_OP_PTR", expr.span, "-> needs a pointer: write .")
    if pointer and not expr.arrow:
        raise refuse("D_OP_SOU", expr.span, ". needs a struct or union: write ->")


def member_at(addr: TypedExpr, t: StructType, name: str, span: Span, scope: Scope) -> Value:
    """Load the member of the struct at ``addr``."""
    found = t.find(name)
    if found is None:
        hint = did_you_mean(name, [m.name for m in t.members if m.name])
        raise refuse("D_TYPE_MEMBER", span, f"{t} has no member {name}", hint)
    if found.bit_size is None:
        return load_memory(add(addr, found.offset // 8), found.type, string_size=scope.string_size)
    at, unit, shift = bit_place(found)
    if unit > 64:
        raise refuse("D_TYPE_ERR", span, f"the bit-field {name} of {t} cannot be read in one piece")
    return load_memory(add(addr, at), found.type, shift=shift, bits=found.bit_size, unit_bits=unit)


def size_of(expr: ast.Sizeof, scope: Scope) -> Value:
    """Check ``sizeof operand``."""
    value = scope.check(expr.operand)
    if isinstance(value.place, MemPlace) and value.place.bits:
        raise refuse("D_SIZEOF_BITFIELD", expr.span, "a bit-field has no size in bytes")
    if value.dynamic or value.action:
        raise refuse("D_SIZEOF_TYPE", expr.span, f"{describe(value)} has no size")
    if isinstance(value.node, typed.StringConst) and isinstance(value.type, StringType):
        return Value(typed.Const(value.type.size, SIZE_T), SIZE_T)  # a literal is an array of characters, as in C
    return size_of_type(value.type, expr.span, scope)


def size_of_type(t: Type, span: Span, scope: Scope) -> Value:
    """Check ``sizeof (type)``."""
    size = sizeof(t, scope.string_size)
    if size == 0:
        raise refuse("D_SIZEOF_TYPE", span, f"{t} has no size", _lacking(t, scope))
    return Value(typed.Const(size, SIZE_T), SIZE_T)


def _lacking(t: Type, scope: Scope) -> str:
    """Explain, for a hint, why a struct that may be the kernel's is not known."""
    return scope.types.kernel.lacking if isinstance(t, StructType) and not t.complete else ""


def offset_of(expr: ast.Offsetof, scope: Scope) -> Value:
    """Check ``offsetof (type, member)``."""
    t = scope.types.resolve(expr.type)
    if not isinstance(t, StructType):
        raise refuse("D_OFFSETOF_TYPE", expr.span, f"offsetof needs a struct or union, not {t}")
    if not t.complete:
        raise refuse("D_OFFSETOF_TYPE", expr.span, f"{t} is not defined", _lacking(t, scope))
    found = t.find(expr.member)
    if found is None:
        raise refuse("D_UNKNOWN", expr.span, f"{t} has no member {expr.member}")
    if found.bit_size is not None:
        raise refuse("D_OFFSETOF_BITFIELD", expr.span, f"{expr.member} is a bit-field")
    return Value(typed.Const(found.offset // 8, SIZE_T), SIZE_T)


def string_of(expr: ast.Stringof, scope: Scope) -> Value:
    """Check ``stringof operand``."""
    value = scope.check(expr.operand)
    readable = is_scalar(value.type) or is_string_like(value.type) or is_pointer(value.type)
    if value.action or value.dynamic or not readable:
        raise refuse("D_STRINGOF_TYPE", expr.span, f"{describe(value)} is not a string, and no address of one")
    return Value(as_string(value), StringType(scope.string_size))
