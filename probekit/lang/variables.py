"""Names of variables: ``x``, ``this->x``, ``self->x``, ``a[k1, k2]``, built-in ones, inlines and enumerators."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from probekit.lang import ast, typed
from probekit.lang.access import subscript
from probekit.lang.builtins import CONSTANTS, FUNCTIONS, VARIABLES, BuiltinVariable
from probekit.lang.diagnostics import did_you_mean, refuse
from probekit.lang.operators import describe
from probekit.lang.scope import Inline, Scope
from probekit.lang.source import Span
from probekit.lang.typed import TypedExpr, Var
from probekit.lang.types import (
    INT,
    INT64,
    VOID,
    VOID_POINTER,
    IntType,
    StringType,
    Type,
    is_object,
)
from probekit.lang.values import (
    ElemPlace,
    FixedPlace,
    Value,
    VarPlace,
    as_integer,
    as_text,
    coerce,
    fits,
    is_pointer,
    is_scalar,
    is_text,
    machine,
)

__all__ = ("element", "identifier", "key_types", "scoped")

_FIXED = FixedPlace()


def identifier(expr: ast.Name, scope: Scope) -> Value:
    """A name alone."""
    name = expr.name
    if (bound := scope.bound_value(name)) is not None:
        return bound
    if (inline := scope.inlines.get(name)) is not None:
        if inline.params:
            return Value(typed.Const(0, INT), VOID, dynamic=f"the inline {name}[]")
        return expand(inline, (), expr.span, scope)
    if (var := scope.variable("global", name)) is not None:
        return _whole(var)
    if (builtin := VARIABLES.get(name)) is not None:
        return _builtin(builtin, expr.span, scope)
    if name in scope.types.enumerators:
        value, t = scope.types.enumerators[name]
        return Value(typed.Const(value, INT), t)
    if name == "NULL":
        return Value(typed.Const(0, INT), VOID_POINTER)
    if name in CONSTANTS:
        return Value(typed.Const(CONSTANTS[name], INT), INT, _FIXED)
    if name in FUNCTIONS:
        raise refuse("D_IDENT_BADREF", expr.span, f"{name} is a function: call it as {name}()")
    known = [*VARIABLES, *(n for s, n in scope.variables if s == "global"), *scope.inlines]
    raise refuse("D_IDENT_UNDEF", expr.span, f"{name} is not defined", did_you_mean(name, known))


def _whole(var: Var) -> Value:
    if var.keys is not None:
        return Value(typed.Const(0, INT), VOID, dynamic=f"the associative array {var.name}")
    node: TypedExpr = typed.VarAddr(var) if is_object(var.type) else typed.Load(var, machine(var.type))
    return Value(node, var.type, VarPlace(var))


def _builtin(builtin: BuiltinVariable, span: Span, scope: Scope) -> Value:
    name, t = builtin.name, builtin.type
    if t is None:
        if name in ("args", "regs", "uregs"):
            return Value(typed.Const(0, INT), VOID, dynamic=f"the array {name}[]")
        raise refuse("D_VAR_UNSUP", span, f"the built-in variable {name} has no meaning here")
    m = machine(t)
    if name.startswith("arg") and name[3:].isdecimal():
        assert isinstance(m, IntType)
        return Value(typed.Arg(int(name[3:]), m), t, _FIXED)
    return Value(typed.Builtin(name, m), t, _FIXED)


def scoped(expr: ast.Scoped, scope: Scope) -> Value:
    """``self->x`` or ``this->x``."""
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
    """``base[keys]``: an element of an associative array, an inline with parameters, or what a pointer points at."""
    base = expr.base
    if isinstance(base, ast.Name) and scope.bound_value(base.name) is None:
        if (inline := scope.inlines.get(base.name)) is not None and inline.params:
            return expand(inline, [scope.check(k) for k in expr.keys], expr.span, scope, expr.keys)
        if base.name in ("args", "regs", "uregs"):
            return _machine_array(base.name, expr, scope)
    var = _array_named(base, scope)
    if var is not None and var.keys is not None:
        values = [scope.check(k) for k in expr.keys] if checked is None else checked
        keys = _keys(var, values, expr)
        m = machine(var.type)
        object_ = is_object(var.type)
        node: TypedExpr = (
            typed.ElemAddr(var, keys, create or scope.creating) if object_ else typed.ElemLoad(var, keys, m)
        )
        return Value(node, var.type, ElemPlace(var, keys))
    value = scope.check(base)
    if isinstance(value.place, FixedPlace) and not (is_pointer(value.type) or isinstance(value.type, StringType)):
        raise refuse("D_ARR_BADREF", expr.span, f"{describe(value)} cannot be indexed")
    return subscript(value, expr, scope)


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
    """The key types of an array that its first use defines."""
    for key, expr in zip(keys, written, strict=True):
        if key.dynamic or key.action or not (is_scalar(key.type) or is_text(key.type)):
            raise refuse("D_KEY_TYPE", expr.span, f"{describe(key)} cannot be a key")
    return tuple(StringType(scope.string_size) if is_text(k.type) else k.type for k in keys)


def _keys(var: Var, values: Sequence[Value], expr: ast.Index) -> tuple[TypedExpr, ...]:
    types = var.keys or ()
    if len(values) != len(types):
        message = f"{var.name}[] has {len(types)} keys, not {len(values)}"
        raise refuse("D_PROTO_LEN", expr.span, message)
    nodes: list[TypedExpr] = []
    for number, (t, value, written) in enumerate(zip(types, values, expr.keys, strict=True), 1):
        if value.dynamic or value.action:
            raise refuse("D_KEY_TYPE", written.span, f"{describe(value)} cannot be a key")
        if not fits(t, value):
            message = f"key {number} of {var.name}[] is {t}, not {describe(value)}"
            raise refuse("D_PROTO_ARG", written.span, message)
        nodes.append(as_text(value) if isinstance(t, StringType) else as_integer(value, INT64))
    return tuple(nodes)


def _machine_array(name: str, expr: ast.Index, scope: Scope) -> Value:
    """``args[n]``, ``regs[n]``, ``uregs[n]``: known by their place in the probe's description only."""
    if len(expr.keys) != 1:
        raise refuse("D_PROTO_LEN", expr.span, f"{name}[] takes one index")
    index = scope.check(expr.keys[0])
    if name != "args":
        raise refuse("D_REGS_IDX", expr.span, f"{name}[] has no registers here")
    if not isinstance(index.node, typed.Const) or not isinstance(index.type, IntType):
        raise refuse("D_ARGS_TYPE", expr.keys[0].span, "the index of args[] must be an integer constant")
    if not scope.probes:
        raise refuse("D_ARGS_NONE", expr.span, "args[] exists only in a clause")
    if len(scope.probes) > 1:
        raise refuse("D_ARGS_MULTI", expr.span, "args[] may differ from probe to probe of this clause")
    raise refuse("D_ARGS_IDX", expr.span, f"{scope.probes[0]} has no args[{index.node.value}]")


# Inlines.


def expand(inline: Inline, args: Sequence[Value], span: Span, scope: Scope, written: Sequence[ast.Expr] = ()) -> Value:
    """The value of an inline, its parameters replaced."""
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
    if value.xlated is not None:
        return value.xlated.around(_wrapped(around))
    if not fits(inline.type, value):
        raise refuse("D_OP_INCOMPAT", span, f"the inline {inline.name} is {inline.type}, not {describe(value)}")
    return Value(_wrapped(around)(coerce(value, inline.type)), inline.type, _FIXED)


def _wrapped(around: Sequence[Callable[[TypedExpr], TypedExpr]]) -> Callable[[TypedExpr], TypedExpr]:
    def wrap(node: TypedExpr) -> TypedExpr:
        for one in reversed(around):
            node = one(node)
        return node

    return wrap
