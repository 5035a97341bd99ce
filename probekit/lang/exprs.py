"""Checking expressions: names, types and C's conversions, tree to typed tree.

pid + 1u    ->   Arith("add", Convert(pid, unsigned int), Const(1), unsigned int)
"""

from __future__ import annotations

from typing import assert_never

from probekit.lang import ast, typed
from probekit.lang.arith import COMPARE, compute
from probekit.lang.builtins import FUNCTIONS, VARIABLES
from probekit.lang.diagnostics import Refusal, did_you_mean, not_yet, refuse
from probekit.lang.scope import Scope
from probekit.lang.source import Span
from probekit.lang.typed import ArithOp, CompareOp, TypedExpr
from probekit.lang.typenames import resolve
from probekit.lang.types import INT, STRING_SIZE, TYPE_NAMES, IntType, StringType, Type, VoidType, promote, same, usual

__all__ = ("check", "check_scalar", "convert", "identifier")

_ARITH: dict[str, tuple[ArithOp, str]] = {
    "+": ("add", "D_OP_INCOMPAT"),
    "-": ("sub", "D_OP_INCOMPAT"),
    "*": ("mul", "D_OP_ARITH"),
    "/": ("div", "D_OP_ARITH"),
    "%": ("rem", "D_OP_INT"),
    "&": ("and", "D_OP_INT"),
    "|": ("or", "D_OP_INT"),
    "^": ("xor", "D_OP_INT"),
    "<<": ("shl", "D_OP_INT"),
    ">>": ("shr", "D_OP_INT"),
}
"""Operator to operation, and the tag when an operand's type does not fit."""

_COMPARE: dict[str, CompareOp] = {"==": "eq", "!=": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge"}


def check(expr: ast.Expr, scope: Scope) -> TypedExpr:
    """The typed form of an expression. Raises :class:`Refusal`."""
    match expr:
        case ast.Integer():
            return typed.Const(expr.value, expr.type)
        case ast.String():
            text = expr.text[: STRING_SIZE - 1]
            return typed.Text(text, StringType(len(text) + 1))
        case ast.Name():
            return identifier(expr, scope)
        case ast.Scoped():
            return _scoped(expr, scope)
        case ast.Unary():
            return _unary(expr, scope)
        case ast.Binary():
            return _binary(expr, scope)
        case ast.Assign():
            return _assign(expr, scope)
        case ast.IncDec():
            return _step(expr, scope)
        case ast.Conditional():
            return _conditional(expr, scope)
        case ast.Comma():
            first, second = check(expr.left, scope), check(expr.right, scope)
            return typed.Sequence(first, second, second.type)
        case ast.Cast():
            return _cast(expr, scope)
        case ast.Sizeof():
            return _sizeof(check(expr.operand, scope).type, expr.span)
        case ast.SizeofType():
            return _sizeof(resolve(expr.type), expr.span)
        case ast.Stringof():
            return _stringof(expr, scope)
        case ast.Call():
            raise _call(expr)
        case ast.Symbol() | ast.AggRef() | ast.Offsetof() | ast.Xlate() | ast.Index() | ast.Member():
            raise _refusal(expr, scope)
        case _:
            assert_never(expr)


def check_scalar(expr: ast.Expr, scope: Scope, tag: str, what: str) -> TypedExpr:
    """An expression that must be an integer; ``tag`` and ``what`` say it when it is not."""
    value = check(expr, scope)
    _want_int(value, expr.span, tag, what)
    return value


def convert(value: TypedExpr, t: IntType) -> TypedExpr:
    """An integer expression converted to ``t``."""
    if isinstance(value, typed.Const):
        return typed.Const(t.wrap(value.value), t)
    return value if same(value.type, t) else typed.Convert(value, t)


def _want_int(value: TypedExpr, span: Span, tag: str, what: str) -> IntType:
    if not isinstance(value.type, IntType):
        raise refuse(tag, span, f"{what} must be an integer, not a {value.type}")
    return value.type


# Names.


def identifier(expr: ast.Name, scope: Scope) -> TypedExpr:
    """A built-in or global variable."""
    name = expr.name
    if (builtin := VARIABLES.get(name)) is not None:
        match builtin.type:
            case None:
                raise not_yet(expr.span, f"the built-in variable {name} is", tag="D_VAR_UNSUP")
            case IntType() as t if name.startswith("arg"):
                return typed.Arg(int(name[3:]), t)
            case t:
                return typed.Builtin(name, t)
    if (var := scope.variable("global", name)) is not None:
        return typed.Load(var, var.type)
    if name in FUNCTIONS:
        raise refuse("D_IDENT_BADREF", expr.span, f"{name} is a function: call it as {name}()")
    known = [*VARIABLES, *(n for s, n in scope.variables if s == "global")]
    raise refuse("D_IDENT_UNDEF", expr.span, f"{name} is not defined", did_you_mean(name, known))


def _scoped(expr: ast.Scoped, scope: Scope) -> TypedExpr:
    if expr.scope == "self":
        raise not_yet(expr.span, "thread-local variables (self->) are", tag="D_VAR_UNSUP")
    var = scope.variable("local", expr.name)
    if var is None:
        known = [n for s, n in scope.variables if s == "local"]
        hint = did_you_mean(expr.name, known)
        raise refuse("D_VAR_UNDEF", expr.span, f"this->{expr.name} is read before anything assigned it", hint)
    return typed.Load(var, var.type)


def _refusal(
    expr: ast.Symbol | ast.AggRef | ast.Offsetof | ast.Xlate | ast.Index | ast.Member, scope: Scope
) -> Refusal:
    match expr:
        case ast.Symbol():
            return not_yet(expr.span, "kernel symbols (`name) are", tag="D_VAR_UNSUP")
        case ast.AggRef():
            return refuse(
                "D_OP_DYN", expr.span, f"@{expr.name} is an aggregation: it has no value inside an expression"
            )
        case ast.Offsetof():
            return not_yet(expr.span, "offsetof is")
        case ast.Xlate():
            return not_yet(expr.span, "xlate is")
        case ast.Index(base=ast.Name(name=name)) if name in VARIABLES and VARIABLES[name].type is not None:
            return refuse("D_ARR_BADREF", expr.span, f"{name} is not an array")
        case ast.Index(base=ast.Name(name=name)) if name in VARIABLES:
            return not_yet(expr.span, f"the built-in variable {name} is", tag="D_VAR_UNSUP")
        case ast.Index(base=ast.Name() | ast.Scoped()):
            return not_yet(expr.span, "associative arrays are", tag="D_VAR_UNSUP")
        case ast.Index():
            return refuse("D_OP_PTR", expr.span, f"a {check(expr.base, scope).type} cannot be indexed")
        case ast.Member():
            t = check(expr.base, scope).type
            tag, what = ("D_OP_PTR", "pointer") if expr.arrow else ("D_OP_SOU", "struct")
            return refuse(tag, expr.span, f"{t} is not a {what}, so it has no member {expr.name}")


def _call(expr: ast.Call) -> Refusal:
    if not isinstance(expr.function, ast.Name):
        return refuse("D_FUNC_IDENT", expr.function.span, "only a function's name can be called")
    name, span = expr.function.name, expr.function.span
    function = FUNCTIONS.get(name)
    if function is None:
        if name in VARIABLES:
            return refuse("D_FUNC_IDKIND", span, f"{name} is a variable, not a function")
        return refuse("D_FUNC_UNDEF", span, f"{name}() is not defined", did_you_mean(name, FUNCTIONS))
    match function.kind:
        case "action":
            return refuse("D_CG_EXPR", span, f"{name}() is an action: it stands alone, not inside an expression")
        case "aggregating":
            return refuse("D_FUNC_IDKIND", span, f"{name}() only feeds an aggregation: @name = {name}(...)")
        case "subroutine":
            return not_yet(span, f"{name}() is")
    assert_never(function.kind)


# Operators.


def _unary(expr: ast.Unary, scope: Scope) -> TypedExpr:
    if expr.op == "&":
        tag = "D_ADDROF_VAR" if isinstance(expr.operand, (ast.Name, ast.Scoped)) else "D_ADDROF_LVAL"
        if isinstance(expr.operand, ast.Symbol):
            raise not_yet(expr.span, "kernel symbols (`name) are", tag="D_VAR_UNSUP")
        raise refuse(tag, expr.span, "only a kernel symbol or a member has an address")
    value = check(expr.operand, scope)
    if expr.op == "*":
        raise refuse("D_DEREF_NONPTR", expr.span, f"a {value.type} is not a pointer")
    tag = {"!": "D_OP_SCALAR", "~": "D_OP_INT"}.get(expr.op, "D_OP_ARITH")
    t = promote(_want_int(value, expr.operand.span, tag, f"the operand of {expr.op}"))
    match expr.op:
        case "!":
            return _compare("eq", value, typed.Const(0, INT), t)
        case "-":
            return _arith("sub", typed.Const(0, t), convert(value, t), t, expr.span)
        case "~":
            return _arith("xor", convert(value, t), typed.Const(t.wrap(-1), t), t, expr.span)
        case _:
            return convert(value, t)


def _binary(expr: ast.Binary, scope: Scope) -> TypedExpr:
    first, nodes = ast.chain(expr)
    left = check(first, scope)
    for node in nodes:
        left = _combine(node, left, check(node.right, scope))
    return left


def _combine(expr: ast.Binary, left: TypedExpr, right: TypedExpr) -> TypedExpr:
    op = expr.op
    if op in _COMPARE:
        return _comparison(op, left, right, expr.span)
    if op in ("&&", "||", "^^"):
        _want_int(left, expr.left.span, "D_OP_SCALAR", f"the left side of {op}")
        _want_int(right, expr.right.span, "D_OP_SCALAR", f"the right side of {op}")
        if op != "^^":
            return typed.Logic("and" if op == "&&" else "or", left, right)
        return _compare("ne", _truth(left), _truth(right), INT)
    return _arithmetic(op, left, right, expr)


def _truth(value: TypedExpr) -> TypedExpr:
    assert isinstance(value.type, IntType)
    return _compare("ne", value, typed.Const(0, INT), promote(value.type))


def _comparison(op: str, left: TypedExpr, right: TypedExpr, span: Span) -> TypedExpr:
    match left.type, right.type:
        case StringType(), StringType():
            return typed.CompareText(_COMPARE[op], left, right)
        case IntType() as a, IntType() as b:
            return _compare(_COMPARE[op], left, right, usual(a, b))
        case a, b:
            raise refuse("D_OP_INCOMPAT", span, f"{a} and {b} cannot be compared with {op}")


def _compare(op: CompareOp, left: TypedExpr, right: TypedExpr, t: IntType) -> TypedExpr:
    left, right = convert(left, t), convert(right, t)
    if isinstance(left, typed.Const) and isinstance(right, typed.Const):
        return typed.Const(int(COMPARE[op](left.value, right.value)), INT)
    return typed.Compare(op, left, right, t.signed)


def _arithmetic(op: str, left: TypedExpr, right: TypedExpr, expr: ast.Binary | ast.Assign) -> TypedExpr:
    name, tag = _ARITH[op]
    sides = (expr.left, expr.right) if isinstance(expr, ast.Binary) else (expr.target, expr.value)
    a = _want_int(left, sides[0].span, tag, f"the left side of {op}")
    b = _want_int(right, sides[1].span, tag, f"the right side of {op}")
    if name in ("shl", "shr"):
        t = promote(a)
        return _arith(name, convert(left, t), right, t, expr.span)
    t = usual(a, b)
    return _arith(name, convert(left, t), convert(right, t), t, expr.span)


def _arith(op: ArithOp, left: TypedExpr, right: TypedExpr, t: IntType, span: Span) -> TypedExpr:
    if isinstance(left, typed.Const) and isinstance(right, typed.Const):
        try:
            return typed.Const(t.wrap(compute(op, left.value, right.value, signed=t.signed)), t)
        except ZeroDivisionError as error:
            raise refuse("D_DIV_ZERO", span, "division by zero") from error
    return typed.Arith(op, left, right, t)


def _conditional(expr: ast.Conditional, scope: Scope) -> TypedExpr:
    cond = check_scalar(expr.cond, scope, "D_OP_SCALAR", "the condition of ?:")
    then, orelse = check(expr.then, scope), check(expr.orelse, scope)
    match then.type, orelse.type:
        case StringType(size=a), StringType(size=b):
            return typed.Choose(cond, then, orelse, StringType(max(a, b)))
        case IntType() as a, IntType() as b:
            t = usual(a, b)
            return typed.Choose(cond, convert(then, t), convert(orelse, t), t)
        case a, b:
            raise refuse("D_OP_INCOMPAT", expr.span, f"?: must give one type, not {a} and {b}")


def _cast(expr: ast.Cast, scope: Scope) -> TypedExpr:
    target, value = resolve(expr.type), check(expr.operand, scope)
    match target, value.type:
        case IntType(), IntType():
            return convert(value, target)
        case StringType(), StringType():
            return value
        case StringType(), IntType():
            raise not_yet(expr.span, "a cast from an address to string is", tag="D_CAST_INVAL")
        case _:
            raise refuse("D_CAST_INVAL", expr.span, f"a {value.type} cannot be cast to {target}")


def _sizeof(t: Type, span: Span) -> TypedExpr:
    match t:
        case IntType():
            size = t.bits // 8
        case StringType():
            size = STRING_SIZE
        case VoidType():
            raise refuse("D_SIZEOF_TYPE", span, "void has no size")
        case _:
            assert_never(t)
    return typed.Const(size, TYPE_NAMES["size_t"])


def _stringof(expr: ast.Stringof, scope: Scope) -> TypedExpr:
    value = check(expr.operand, scope)
    if isinstance(value.type, StringType):
        return value
    raise not_yet(expr.span, "stringof of an address is", tag="D_STRINGOF_TYPE")


# Assignment.


def _assign(expr: ast.Assign, scope: Scope) -> TypedExpr:
    if isinstance(expr.target, ast.AggRef):
        raise refuse("D_AGG_FUNC", expr.span, f"@{expr.target.name} takes only the result of an aggregating function")
    value = check(expr.value, scope)
    var = _target(expr.target, scope, expr.op, value)
    if not isinstance(value.type, IntType):
        raise refuse("D_OP_INCOMPAT", expr.span, f"{var.name} is {var.type} and cannot take a {value.type}")
    if expr.op != "=":
        value = _arithmetic(expr.op[:-1], typed.Load(var, var.type), value, expr)
    return typed.Store(var, convert(value, var.type), var.type)


def _step(expr: ast.IncDec, scope: Scope) -> TypedExpr:
    if isinstance(expr.operand, ast.AggRef):
        raise refuse("D_OP_DYN", expr.span, f"@{expr.operand.name} is an aggregation: {expr.op} does not apply")
    # A variable that nothing defined before is an int64_t, as in DTrace.
    var = _target(expr.operand, scope, expr.op, typed.Const(0, TYPE_NAMES["int64_t"]))
    return typed.Step(var, 1 if expr.op == "++" else -1, expr.prefix, var.type)


def _target(expr: ast.Expr, scope: Scope, op: str, value: TypedExpr) -> typed.Var:
    """The variable on the left of an assignment; one not seen before takes the type of ``value``."""
    match expr:
        case ast.Name(name=name):
            if name in VARIABLES:
                raise refuse("D_OP_WRITE", expr.span, f"{name} is built in and cannot be assigned")
            if name in FUNCTIONS:
                raise refuse("D_IDENT_BADREF", expr.span, f"{name} is a function and cannot be assigned")
            return scope.variable("global", name) or _define(expr, name, "global", scope, value)
        case ast.Scoped(scope="this", name=name):
            return scope.variable("local", name) or _define(expr, name, "local", scope, value)
        case ast.Scoped():
            _scoped(expr, scope)
        case ast.Index() | ast.Symbol():
            raise _refusal(expr, scope)
        case ast.Member():
            raise _refusal(expr, scope)
    raise refuse("D_OP_LVAL", expr.span, f"the operand of {op} cannot be assigned")


def _define(expr: ast.Name | ast.Scoped, name: str, where: typed.VarScope, scope: Scope, value: TypedExpr) -> typed.Var:
    if not isinstance(value.type, IntType):
        raise not_yet(expr.span, "string variables are", tag="D_VAR_UNSUP")
    return scope.define(where, name, value.type)
