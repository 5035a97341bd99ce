"""Check assignment: variables that it defines, places that it changes, ``++`` and ``--``.

x = pid            ->  Store(x, ...); x is a pid_t from here on
a[tid] = "sh"      ->  ElemStore(a, (tid,), "sh"); a is an array of strings with integer keys
p->n += 2          ->  Bind(slot, p + 8, MemStore(slot, MemLoad(slot) + 2))
"""

from __future__ import annotations

from collections.abc import Callable

from probekit.errors import InternalError
from probekit.lang import ast, typed
from probekit.lang.access import member_at
from probekit.lang.builtins import FUNCTIONS
from probekit.lang.diagnostics import refuse
from probekit.lang.operators import arithmetic, describe
from probekit.lang.scope import Scope
from probekit.lang.source import Span
from probekit.lang.translators import member_value, source_once
from probekit.lang.typed import TypedExpr, VarScope
from probekit.lang.types import (
    CHAR,
    INT64,
    VOID,
    ArrayType,
    IntType,
    PointerType,
    StringType,
    StructType,
    SymbolType,
    Type,
    VoidType,
    is_object,
    sizeof,
)
from probekit.lang.values import (
    CharPlace,
    ElemPlace,
    FixedPlace,
    MemPlace,
    Place,
    TranslatedObject,
    Value,
    VarPlace,
    coerce,
    convert,
    fits,
    is_integer,
    is_pointer,
    is_scalar,
    is_vfptr,
    load_memory,
    machine,
)
from probekit.lang.variables import element, is_unknown, key_types

__all__ = ("assign", "define_operand", "load_place", "step")


def assign(expr: ast.Assign, scope: Scope) -> Value:
    """Check ``target op value``."""
    if isinstance(expr.target, ast.AggRef):
        raise refuse("D_AGG_FUNC", expr.span, f"@{expr.target.name} takes only the result of an aggregating function")
    if expr.op != "=" and _is_undefined(expr.target, scope):
        raise refuse("D_VAR_UNDEF", expr.target.span, f"{expr.op} reads what nothing has assigned yet")
    value = _value_of(expr, scope)
    _want_value(value, expr.value.span, scope)
    target = _target(expr.target, scope, value)
    if value.translated is not None:
        return _translated(expr, target, value, value.translated, scope)
    if target.dynamic and expr.op == "=":
        raise refuse("D_OP_INCOMPAT", expr.span, f"{target.dynamic} cannot be assigned as a whole")
    if isinstance(target.type, ArrayType) and not target.dynamic:
        raise refuse("D_OP_ARRFUN", expr.target.span, f"an array cannot be assigned, and this is {target.type}")
    if expr.op == "=":
        if not fits(target.type, value):
            message = f"a place for {target.type} cannot take {describe(value)}"
            raise refuse("D_OP_INCOMPAT", expr.span, message)
        place = _writable(target, expr.op, expr.target.span)
        return Value(_store(place, target.type, value, scope), target.type)
    spans = (expr.target.span, expr.value.span, expr.span)
    _check_moved(expr, target, value)
    arithmetic(expr.op[:-1], target, value, spans)  # types that do not fit are reported first
    place = _writable(target, expr.op, expr.target.span)

    def update(bound: Place) -> TypedExpr:
        old = load_place(bound, target.type, scope)
        return _store(bound, target.type, arithmetic(expr.op[:-1], old, value, spans), scope)

    return Value(_once(place, scope, update), target.type)


def _check_moved(expr: ast.Assign, target: Value, value: Value) -> None:
    """Refuse ``+=`` and ``-=`` unless both sides are integers or the left one is a pointer."""
    if expr.op not in ("+=", "-=") or isinstance(target.type, StringType) or isinstance(value.type, StringType):
        return
    if is_integer(target.type) and is_integer(value.type):
        return
    if not is_pointer(target.type) or is_vfptr(target.type):
        message = f"{expr.op} needs an integer or a pointer to what has a size, not {describe(target)}"
        raise refuse("D_OP_VFPTR", expr.target.span, message)


def _is_undefined(expr: ast.Expr, scope: Scope) -> bool:
    """Tell whether nothing has defined the variable yet.

    ``this->x[...]`` is False: nothing can define it, and :mod:`probekit.lang.variables` refuses it.
    """
    match expr:
        case ast.Name(name=name) | ast.Index(base=ast.Name(name=name)):
            return _is_new(name, scope)
        case ast.Index(base=ast.Scoped(scope="this")):
            return False
        case ast.Scoped(scope=where, name=name) | ast.Index(base=ast.Scoped(scope=where, name=name)):
            return scope.variable(_kept(where), name) is None
        case _:
            return False


def define_operand(expr: ast.Expr, scope: Scope) -> None:
    """Define the variable that a unary operator reads, if it is ``self->x``, ``this->x`` or ``a[key]``.

    ``++`` does the same: so ``!self->x`` may come before anything assigns ``self->x``.
    """
    if not isinstance(expr, ast.Name) and _is_undefined(expr, scope):
        _target(expr, scope, Value(typed.Const(0, INT64), INT64))


def _value_of(expr: ast.Assign, scope: Scope) -> Value:
    """Check the right side. The variable that the assignment defines has a name there, but no value yet."""
    target = expr.target.base if isinstance(expr.target, ast.Index) else expr.target
    if not isinstance(target, ast.Name) or not _is_new(target.name, scope):
        return scope.check(expr.value)
    scope.coming.add(target.name)
    try:
        return scope.check(expr.value)
    finally:
        scope.coming.discard(target.name)


def _want_value(value: Value, span: Span, scope: Scope) -> None:
    if value.dynamic or value.action:
        raise refuse("D_OP_INCOMPAT", span, f"{describe(value)} has no value that could be assigned")
    if isinstance(value.type, SymbolType):
        raise refuse("D_CG_EXPR", span, f"what {value.type.name}() gives can be recorded or be a key, nothing else")
    if isinstance(value.type, VoidType):
        raise refuse("D_OP_INCOMPAT", span, "void has no value that could be assigned")
    if value.translated is not None and value.translated.pointer:
        raise refuse("D_OP_DYN", span, "what a translator makes has no address that could be assigned")


def _translated(expr: ast.Assign, target: Value, value: Value, made: TranslatedObject, scope: Scope) -> Value:
    """Check ``x = xlate <T> (source)``: one store for each member that the translator gives."""
    t = target.type
    if expr.op != "=" or target.dynamic or not isinstance(t, StructType) or not fits(t, value):
        message = f"{describe(target)} {expr.op} {describe(value)} is not possible"
        raise refuse("D_OP_INCOMPAT", expr.span, message)
    place = _writable(target, expr.op, expr.target.span)
    span, (made, wrap) = expr.value.span, source_once(made, scope)

    def store(bound: Place) -> TypedExpr:
        at = _address(bound)
        result = at
        for name in made.translator.members:
            found, given = member_at(at, t, name, span, scope), member_value(made, name, span, scope)
            if given.translated is not None:
                inner = ast.Assign("=", expr.target, expr.value, expr.span)
                stored = _translated(inner, found, given, given.translated, scope).node
            else:
                if not isinstance(found.place, MemPlace):
                    raise InternalError("an object has no place in memory")
                stored = _store_member(found.place, found.type, given, scope)
            result = typed.Sequence(stored, result, at.type)
        return result

    return Value(wrap(_once(place, scope, store)), t)


def step(expr: ast.IncDec, scope: Scope) -> Value:
    """Check ``++`` and ``--``."""
    if isinstance(expr.operand, ast.AggRef):
        raise refuse("D_OP_SCALAR", expr.span, f"@{expr.operand.name} is an aggregation: {expr.op} does not apply")
    # A variable that nothing defined before is an int64_t, as in DTrace.
    target = _target(expr.operand, scope, Value(typed.Const(0, INT64), INT64))
    if not is_scalar(target.type) or target.action or target.dynamic:
        raise refuse("D_OP_SCALAR", expr.operand.span, f"{expr.op} needs a scalar, not {describe(target)}")
    if is_vfptr(target.type):
        raise refuse("D_OP_VFPTR", expr.operand.span, f"there is no arithmetic on {describe(target)}")
    place = _writable(target, expr.op, expr.operand.span)
    size = sizeof(target.type.to) if isinstance(target.type, PointerType) else 1
    if size == 0:
        raise refuse("D_OP_INCOMPLETE", expr.operand.span, "what this points at has no size here")
    delta = size if expr.op == "++" else -size
    t = machine(target.type)
    if not isinstance(t, IntType):
        raise InternalError("what was checked to be an integer has another type")
    if isinstance(place, VarPlace):
        return Value(typed.Increment(place.var, delta, expr.prefix, t), target.type)

    def update(bound: Place) -> TypedExpr:
        old = load_place(bound, target.type, scope).node
        amount = typed.Const(t.wrap(delta), t)
        if expr.prefix:
            return _store(bound, target.type, Value(typed.Arith("add", old, amount, t), target.type), scope)
        number = scope.slot()
        kept = typed.BoundValue(number, t)
        changed = _store(bound, target.type, Value(typed.Arith("add", kept, amount, t), target.type), scope)
        return typed.Bind(number, old, typed.Sequence(changed, kept, t), t)

    return Value(_once(place, scope, update), target.type)


def _writable(target: Value, op: str, span: Span) -> Place:
    if target.dynamic:
        raise refuse("D_OP_LVAL", span, f"{target.dynamic} cannot be assigned as a whole")
    if target.place is None:
        raise refuse("D_OP_LVAL", span, f"the operand of {op} cannot be assigned")
    if isinstance(target.place, FixedPlace):
        raise refuse("D_OP_WRITE", span, f"the operand of {op} is built in or constant, and cannot be assigned")
    return target.place


# Places.


def load_place(place: Place, t: Type, scope: Scope) -> Value:
    """Load the value of a place that is known to be of type ``t``."""
    m = machine(t)
    match place:
        case VarPlace(var=var):
            return Value(typed.AddressOfVariable(var) if is_object(t) else typed.Load(var, m), t, place)
        case ElemPlace(var=var, keys=keys):
            node: TypedExpr = typed.AddressOfElement(var, keys, False) if is_object(t) else typed.ElemLoad(var, keys, m)
            return Value(node, t, place)
        case MemPlace():
            return load_memory(place.addr, t, shift=place.shift, bits=place.bits, string_size=scope.string_size)
        case CharPlace(text=text, type=of, index=index):
            return Value(typed.SubroutineCall("charat", (load_place(text, of, scope).node, index), CHAR), CHAR, place)
        case FixedPlace():
            raise InternalError("nothing is stored in a fixed place")


def _once(place: Place, scope: Scope, body: Callable[[Place], TypedExpr]) -> TypedExpr:
    """Make ``body`` of the place, with the place's address or keys evaluated only once."""
    if isinstance(place, CharPlace):
        text, of, index = place.text, place.type, place.index
        slot = typed.BoundValue(scope.slot(), index.type)
        inner = _once(text, scope, lambda bound: body(CharPlace(bound, of, slot)))
        return typed.Bind(slot.number, index, inner, inner.type)
    parts = place.keys if isinstance(place, ElemPlace) else (place.addr,) if isinstance(place, MemPlace) else ()
    slots = [typed.BoundValue(scope.slot(), part.type) for part in parts]
    match place:
        case ElemPlace(var=var):
            place = ElemPlace(var, tuple(slots))
        case MemPlace(shift=shift, bits=bits):
            place = MemPlace(slots[0], shift, bits)
        case _:
            pass
    result = body(place)
    for slot, part in zip(reversed(slots), reversed(parts), strict=True):
        result = typed.Bind(slot.number, part, result, result.type)
    return result


def _store(place: Place, t: Type, value: Value, scope: Scope) -> TypedExpr:
    if is_object(t):
        return _store_object(place, t, value, scope)
    node, m = coerce(value, t), machine(t)
    match place:
        case VarPlace(var=var):
            return typed.Store(var, node, m)
        case ElemPlace(var=var, keys=keys):
            return typed.ElemStore(var, keys, node, m)
        case MemPlace(addr=addr, shift=shift, bits=bits):
            if isinstance(m, StringType):
                return typed.StringStore(addr, node, scope.string_size, m)
            if bits:
                return typed.BitFieldStore(addr, convert(node, m), shift, bits, m)
            return typed.MemStore(addr, node, m)
        case CharPlace():
            return _once(place, scope, lambda bound: _store_character(bound, node, scope))
        case FixedPlace():
            raise InternalError("a fixed place was assigned")


def _store_character(place: Place, char: TypedExpr, scope: Scope) -> TypedExpr:
    """Store the string again, with another character."""
    if not isinstance(place, CharPlace):
        raise InternalError("a character's place became another one")
    text = load_place(place.text, place.type, scope).node
    slot = typed.BoundValue(scope.slot(), CHAR)
    changed = Value(typed.SubroutineCall("setchar", (text, place.index, slot), place.type), place.type)
    stored = typed.Sequence(_store(place.text, place.type, changed, scope), slot, CHAR)
    return typed.Bind(slot.number, char, stored, CHAR)


def _store_object(place: Place, t: Type, value: Value, scope: Scope) -> TypedExpr:
    return typed.MemCopy(_address(place), value.node, sizeof(t, scope.string_size))


def _store_member(place: MemPlace, t: Type, value: Value, scope: Scope) -> TypedExpr:
    if isinstance(t, ArrayType) and isinstance(value.type, StringType):
        size = sizeof(t, scope.string_size)
        return typed.StringStore(place.addr, value.node, size, StringType(size))
    return _store(place, t, value, scope)


def _address(place: Place) -> TypedExpr:
    """Return the address of an object that is about to be changed."""
    match place:
        case VarPlace(var=var):
            return typed.AddressOfVariable(var)
        case ElemPlace(var=var, keys=keys):
            return typed.AddressOfElement(var, keys, True)
        case MemPlace(addr=addr):
            return addr
        case CharPlace() | FixedPlace():
            raise InternalError("a place that holds no object was assigned one")


# Targets.


def _target(expr: ast.Expr, scope: Scope, value: Value) -> Value:
    """Check the left side. A variable that is new takes the type of ``value``."""
    match expr:
        case ast.Name(name=name) if _is_new(name, scope):
            return _new(expr.span, "global", name, value, scope)
        case ast.Scoped(scope=where, name=name) if scope.variable(_kept(where), name) is None:
            return _new(expr.span, _kept(where), name, value, scope)
        case ast.Index(base=ast.Name(name=name)) if _is_new(name, scope):
            return _new_array(expr, "global", name, value, scope)
        case ast.Index(base=ast.Scoped(scope=where, name=name)) if scope.variable(_kept(where), name) is None:
            return _new_array(expr, _kept(where), name, value, scope)
        case ast.Name(name=name) if name in FUNCTIONS and is_unknown(name, scope):
            raise refuse("D_IDENT_BADREF", expr.span, f"{name} is a function and cannot be assigned")
        case ast.Index():
            return element(expr, scope, create=True)
        case ast.MemberExpr(arrow=False):
            scope.creating, before = True, scope.creating
            try:
                return scope.check(expr)
            finally:
                scope.creating = before
        case _:
            return scope.check(expr)


def _kept(where: ast.Scope) -> VarScope:
    return "self" if where == "self" else "local"


def _is_new(name: str, scope: Scope) -> bool:
    return is_unknown(name, scope) and name not in FUNCTIONS


def _kind(t: Type, scope: Scope) -> Type:
    """Return the type that a variable takes from its first value."""
    return StringType(scope.string_size) if isinstance(t, StringType) else t


def _new(span: Span, where: VarScope, name: str, value: Value, scope: Scope) -> Value:
    t = _kind(value.type, scope)
    if t == VOID or (isinstance(t, StructType) and sizeof(t) == 0):
        raise refuse("D_OP_INCOMPAT", span, f"{name} cannot be {t}")
    return load_place(VarPlace(scope.define(where, name, t)), t, scope)


def _new_array(expr: ast.Index, where: VarScope, name: str, value: Value, scope: Scope) -> Value:
    if where == "local":
        raise refuse("D_ARR_LOCAL", expr.span, f"this->{name} cannot be an associative array: write self-> or a global")
    keys = [scope.check(key) for key in expr.keys]
    types = key_types(keys, expr.keys, scope)
    t = _kind(value.type, scope)
    if isinstance(t, VoidType):
        raise refuse("D_OP_INCOMPAT", expr.span, f"{name} cannot hold void")
    scope.define(where, name, t, types)
    return element(expr, scope, create=True, checked=keys)
