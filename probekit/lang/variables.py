"""Check names of variables: ``x``, ``this->x``, ``self->x``, ``a[k1, k2]``, built-in ones, inlines, enumerators."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from probekit.errors import InternalError
from probekit.lang import ast, translators, typed
from probekit.lang.access import add as moved
from probekit.lang.access import subscript
from probekit.lang.arguments import typed_argument
from probekit.lang.builtins import FUNCTIONS, VARIABLES, BuiltinVariable
from probekit.lang.constants import CONSTANTS
from probekit.lang.diagnostics import did_you_mean, refuse
from probekit.lang.operators import describe
from probekit.lang.scope import NamedInline, Scope
from probekit.lang.source import Span
from probekit.lang.typed import TypedExpr, Var
from probekit.lang.types import (
    INT,
    INT64,
    VOID,
    IntType,
    StringType,
    Type,
    is_object,
    sizeof,
)
from probekit.lang.values import (
    ElemPlace,
    FixedPlace,
    Value,
    VarPlace,
    as_integer,
    as_string,
    coerce,
    convert,
    fits,
    is_integer,
    is_scalar,
    is_string_like,
    machine,
)

__all__ = ("element", "identifier", "is_key", "is_unknown", "key_sizes", "key_types", "scoped")

_FIXED = FixedPlace()


def identifier(expr: ast.Name, scope: Scope) -> Value:
    """Check a name that stands alone."""
    name = expr.name
    if (bound := scope.bound_value(name)) is not None:
        return bound
    if (inline := scope.inlines.get(name)) is not None:
        if inline.params:
            raise refuse("D_IDENT_BADREF", expr.span, f"{name}[] is an inline with parameters, not a value")
        return expand(inline, (), expr.span, scope)
    if (var := scope.variable("global", name)) is not None:
        if var.keys is not None:
            raise refuse("D_IDENT_BADREF", expr.span, f"{name}[] is an associative array, not a value")
        return _whole(var)
    if (builtin := VARIABLES.get(name)) is not None:
        return _builtin(builtin, expr.span, scope)
    if name in scope.types.enumerators:
        value, t = scope.types.enumerators[name]
        return Value(typed.Const(value, INT), t)
    if name == "NULL":
        return Value(typed.Const(0, INT), INT, _FIXED)
    if name in CONSTANTS:
        return Value(typed.Const(CONSTANTS[name], INT), INT, _FIXED)
    if name in FUNCTIONS:
        raise refuse("D_IDENT_BADREF", expr.span, f"{name} is a function: call it as {name}()")
    if name in scope.coming:
        raise refuse("D_VAR_UNDEF", expr.span, f"{name} is read before anything assigned it")
    if (enumerator := scope.types.kernel.enumerator(name)) is not None:
        m = machine(enumerator[1])
        if not isinstance(m, IntType):
            raise InternalError("what was checked to be an integer has another type")
        return Value(typed.Const(m.wrap(enumerator[0]), m), enumerator[1])
    known = [*VARIABLES, *(n for s, n in scope.variables if s == "global"), *scope.inlines]
    raise refuse("D_IDENT_UNDEF", expr.span, f"{name} is not defined", did_you_mean(name, known))


def _whole(var: Var) -> Value:
    if var.keys is not None:
        return Value(typed.Const(0, INT), VOID, dynamic=f"the associative array {var.name}")
    node: TypedExpr = typed.AddressOfVariable(var) if is_object(var.type) else typed.Load(var, machine(var.type))
    return Value(node, var.type, VarPlace(var))


def _builtin(builtin: BuiltinVariable, span: Span, scope: Scope) -> Value:
    name, t = builtin.name, builtin.type
    if t is None:
        if name in ("args", "regs", "uregs"):
            raise refuse("D_IDENT_BADREF", span, f"{name}[] is an array, not a value")
        raise refuse("D_VAR_UNSUP", span, f"the built-in variable {name} has no meaning here")
    m = machine(t)
    if name.startswith("arg") and name[3:].isdecimal():
        if not isinstance(m, IntType):
            raise InternalError("what was checked to be an integer has another type")
        return Value(typed.ReadArg(int(name[3:]), m), t, _FIXED)
    return Value(typed.ReadBuiltin(name, m), t, _FIXED)


def scoped(expr: ast.Scoped, scope: Scope) -> Value:
    """Check ``self->x`` or ``this->x``."""
    where: typed.VarScope = "self" if expr.scope == "self" else "local"
    var = scope.variable(where, expr.name)
    if var is None:
        known = [n for s, n in scope.variables if s == where]
        hint = did_you_mean(expr.name, known)
        message = f"{expr.scope}->{expr.name} is read before anything assigned it"
        raise refuse("D_VAR_UNDEF", expr.span, message, hint)
    return _whole(var)


# Arrays.


def element(expr: ast.Index, scope: Scope, *, create: bool = False, checked: Sequence[Value] | None = None) -> Value:
    """Check ``base[keys]``: an element of an associative array, an inline with parameters, or a pointer's target.

    ``create``: make an element that is an object, because it is being assigned. ``checked``: the keys, if they are
    checked already.
    """
    base = expr.base
    if isinstance(base, ast.Name) and scope.bound_value(base.name) is None:
        if (inline := scope.inlines.get(base.name)) is not None and inline.params:
            return expand(inline, [scope.check(k) for k in expr.keys], expr.span, scope, expr.keys)
        if base.name in ("args", "regs", "uregs"):
            return _machine_array(base.name, expr, scope)
    var = _array_named(base, scope)
    if var is not None and var.keys is not None:
        values = [scope.check(k) for k in expr.keys] if checked is None else checked
        keys = _keys(var, values, expr, scope)
        m = machine(var.type)
        object_ = is_object(var.type)
        node: TypedExpr = (
            typed.AddressOfElement(var, keys, create or scope.creating) if object_ else typed.ElemLoad(var, keys, m)
        )
        return Value(node, var.type, ElemPlace(var, keys))
    if var is None:
        _want_array(base, expr, scope)
    return subscript(scope.check(base), expr, scope)


def _want_array(base: ast.Expr, expr: ast.Index, scope: Scope) -> None:
    """Refuse an array that nothing has defined."""
    match base:
        case ast.Name(name=name) if name not in FUNCTIONS and is_unknown(name, scope):
            known = [n for s, n in scope.variables if s == "global"]
            message = f"{name}[] is read before anything assigned it"
            raise refuse("D_VAR_UNDEF", expr.span, message, did_you_mean(name, known))
        case ast.Scoped(scope="this", name=name):
            message = f"this->{name} cannot be an associative array: write self-> or a global"
            raise refuse("D_ARR_LOCAL", expr.span, message)
        case _:
            pass


def is_unknown(name: str, scope: Scope) -> bool:
    """Tell whether neither D nor the program has defined a name."""
    return (
        scope.bound_value(name) is None
        and name not in scope.inlines
        and name not in VARIABLES
        and name not in CONSTANTS
        and name not in scope.types.enumerators
        and name != "NULL"
        and scope.variable("global", name) is None
    )


def _array_named(base: ast.Expr, scope: Scope) -> Var | None:
    match base:
        case ast.Name(name=name) if scope.bound_value(name) is None and name not in scope.inlines:
            return scope.variable("global", name)
        case ast.Scoped(scope="self", name=name):
            return scope.variable("self", name)
        case ast.Scoped(name=name):
            return scope.variable("local", name)
        case _:
            return None


def key_types(keys: Sequence[Value], written: Sequence[ast.Expr], scope: Scope) -> tuple[Type, ...]:
    """Return the key types of an array that its first use defines."""
    for key, expr in zip(keys, written, strict=True):
        if key.dynamic or key.action or key.translated or not is_key(key.type, scope.string_size):
            raise refuse("D_KEY_TYPE", expr.span, f"{describe(key)} cannot be a key")
    return tuple(StringType(scope.string_size) if is_string_like(k.type) else k.type for k in keys)


_MOST_KEY_BYTES = 256


def is_key(t: Type, string_size: int) -> bool:
    """Tell whether a type can be a key: scalars, string-like types, and small structs and arrays."""
    return is_scalar(t) or is_string_like(t) or (is_object(t) and 0 < sizeof(t, string_size) <= _MOST_KEY_BYTES)


def key_sizes(t: Type, string_size: int) -> tuple[int, ...]:
    """Return the bytes of each integer that a key becomes: a struct becomes as many as it takes."""
    if is_string_like(t) or not is_object(t):
        return (_WORD,)
    sizes: list[int] = []
    left = sizeof(t, string_size)
    while left:
        sizes.append(next(size for size in (8, 4, 2, 1) if size <= left))
        left -= sizes[-1]
    return tuple(sizes)


def _words(value: Value, string_size: int) -> Iterator[TypedExpr]:
    """Read a struct or array, which is a key byte by byte, as integers."""
    at = 0
    for size in key_sizes(value.type, string_size):
        yield convert(typed.MemLoad(moved(value.node, at), IntType("", 8 * size, False)), INT64)
        at += size


_WORD = 8


def _keys(var: Var, values: Sequence[Value], expr: ast.Index, scope: Scope) -> tuple[TypedExpr, ...]:
    types = var.keys or ()
    if len(values) != len(types):
        message = f"{var.name}[] has {len(types)} keys, not {len(values)}"
        raise refuse("D_PROTO_LEN", expr.span, message)
    nodes: list[TypedExpr] = []
    for number, (t, value, written) in enumerate(zip(types, values, expr.keys, strict=True), 1):
        if not fits(t, value):
            message = f"key {number} of {var.name}[] is {t}, not {describe(value)}"
            raise refuse("D_PROTO_ARG", written.span, message)
        if isinstance(t, StringType):
            nodes.append(as_string(value))
        elif is_object(t):
            nodes.extend(_words(value, scope.string_size))
        else:
            nodes.append(as_integer(value, INT64))
    return tuple(nodes)


def _machine_array(name: str, expr: ast.Index, scope: Scope) -> Value:
    """Check ``args[n]``, ``regs[n]`` or ``uregs[n]``. The index must be a constant."""
    if len(expr.keys) != 1:
        raise refuse("D_PROTO_LEN", expr.span, f"{name}[] takes one index")
    index = scope.check(expr.keys[0])
    if name != "args":
        _constant_index(name, index, expr.keys[0].span)
        raise refuse("D_REGS_IDX", expr.span, f"{name}[] has no registers here")
    return typed_argument(_constant_index(name, index, expr.keys[0].span), expr.span, scope)


def _constant_index(name: str, index: Value, span: Span) -> int:
    if not isinstance(index.node, typed.Const) or not is_integer(index.type):
        raise refuse("D_PROTO_ARG", span, f"the index of {name}[] must be an integer constant")
    return index.node.value


# Inlines.


def expand(
    inline: NamedInline, args: Sequence[Value], span: Span, scope: Scope, written: Sequence[ast.Expr] = ()
) -> Value:
    """Return the value of an inline, with its parameters replaced."""
    if len(args) != len(inline.params):
        raise refuse("D_PROTO_LEN", span, f"{inline.name}[] takes {len(inline.params)} arguments, not {len(args)}")
    names: dict[str, Value] = {}
    around: list[Callable[[TypedExpr], TypedExpr]] = []
    for (name, t), value, expr in zip(inline.params, args, written, strict=True):
        if not fits(t, value):
            raise refuse("D_PROTO_ARG", expr.span, f"{name} of {inline.name}[] is {t}, not {describe(value)}")
        names[name], wrap = scope.once(Value(coerce(value, t), t, _FIXED))
        around.append(wrap)
    scope.expanding(names, span)
    try:
        value = scope.check(inline.value)
    finally:
        scope.bound.pop()
    if value.translated is not None:
        return translators.around(value.translated, _wrapped(around))
    if not fits(inline.type, value):
        raise refuse("D_OP_INCOMPAT", span, f"the inline {inline.name} is {inline.type}, not {describe(value)}")
    return Value(_wrapped(around)(coerce(value, inline.type)), inline.type, _FIXED)


def _wrapped(around: Sequence[Callable[[TypedExpr], TypedExpr]]) -> Callable[[TypedExpr], TypedExpr]:
    def wrap(node: TypedExpr) -> TypedExpr:
        for one in reversed(around):
            node = one(node)
        return node

    return wrap
