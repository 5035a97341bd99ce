"""Check operators on values: arithmetic, comparison, logic, ``?:``, ``,`` and casts.

pid + 1u    ->   Arith("add", Convert(pid, unsigned int), Const(1), unsigned int)
p + 2       ->   Arith("add", p, Const(2 * sizeof *p), pointer)
"""

from __future__ import annotations

from probekit.errors import InternalError
from probekit.lang import ast, typed
from probekit.lang.arith import COMPARE, compute
from probekit.lang.diagnostics import refuse
from probekit.lang.scope import Scope
from probekit.lang.source import Span
from probekit.lang.typed import ArithOp, CompareOp, TypedExpr
from probekit.lang.types import (
    INT,
    LONG,
    MACHINE_POINTER,
    VOID,
    ArrayType,
    EnumType,
    IntType,
    PointerType,
    StringType,
    StructType,
    SymbolType,
    Type,
    VoidType,
    is_object,
    promote,
    same,
    sizeof,
    usual,
)
from probekit.lang.values import (
    Value,
    as_integer,
    as_string,
    compatible,
    convert,
    is_integer,
    is_pointer,
    is_scalar,
    is_string_like,
    is_vfptr,
    machine,
    pointee,
    pointers_fit,
)

__all__ = (
    "arithmetic",
    "binary",
    "cast",
    "choose",
    "chosen",
    "comma",
    "condition",
    "conditional",
    "constant_of",
    "decided",
    "truth",
    "unary",
)

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
"""For each operator its operation, and the tag of the fault when an operand's type does not fit."""

_COMPARE: dict[str, CompareOp] = {"==": "eq", "!=": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge"}


def unary(expr: ast.Unary, scope: Scope) -> Value:
    """Check ``+ - ! ~`` (:mod:`probekit.lang.access` has ``&`` and ``*``)."""
    value = scope.check(expr.operand)
    tag = {"!": "D_OP_SCALAR", "~": "D_OP_INT"}.get(expr.op, "D_OP_ARITH")
    if expr.op == "!":
        return Value(_not(value, expr.operand.span, tag), INT)
    t = promote(want_integer(value, expr.operand.span, tag, f"the operand of {expr.op}"))
    node = as_integer(value, t)
    match expr.op:
        case "-":
            return Value(_arith("sub", typed.Const(0, t), node, t, expr.span), t)
        case "~":
            return Value(_arith("xor", node, typed.Const(t.wrap(-1), t), t, expr.span), t)
        case _:
            return Value(node, t)


def want_integer(value: Value, span: Span, tag: str, what: str) -> IntType:
    """Return the machine type of an integer operand. Refuses any other, as ``tag`` and ``what`` say."""
    if not is_integer(value.type) or value.action or value.dynamic:
        raise refuse(tag, span, f"{what} must be an integer, not {describe(value)}")
    t = machine(value.type)
    if not isinstance(t, IntType):
        raise InternalError("what was checked to be an integer has another type")
    return t


def describe(value: Value) -> str:
    """Return the name of a value for messages."""
    if value.action:
        return f"{value.action}()"
    return value.dynamic or f"a {value.type}"


def _not(value: Value, span: Span, tag: str) -> TypedExpr:
    return _compare("eq", truth_operand(value, span, tag, "the operand of !"), typed.Const(0, INT))


def truth_operand(value: Value, span: Span, tag: str, what: str) -> TypedExpr:
    """Return a scalar as an integer that is 0 when it is false."""
    if not is_scalar(value.type) or value.action or value.dynamic:
        raise refuse(tag, span, f"{what} must be a scalar, not {describe(value)}")
    return value.node


def truth(expr: ast.Expr, scope: Scope, tag: str, what: str) -> TypedExpr:
    """Check a condition."""
    return truth_operand(scope.check(expr), expr.span, tag, what)


def binary(expr: ast.Binary, scope: Scope) -> Value:
    """Check two operands. A long chain of ``&&`` or ``||`` is walked in a loop."""
    first, nodes = ast.chain(expr)
    left = scope.check(first)
    for node in nodes:
        if (known := decided(node.op, left)) is not None:
            left = Value(typed.Const(known, INT), INT)
        else:
            left = _combine(node, left, _right(node, left, scope))
    return left


def decided(op: str, left: Value) -> int | None:
    """Return what ``&&`` or ``||`` gives when its left side, a constant, decides it; the right side is not checked."""
    known = constant_of(left)
    if op not in ("&&", "||") or known is None or bool(known) != (op == "||"):
        return None
    return int(op == "||")


def constant_of(value: Value) -> int | None:
    """Return the value of a constant scalar, or None. An action and an aggregation have no value at all."""
    if not isinstance(value.node, typed.Const) or not is_scalar(value.type) or value.action or value.dynamic:
        return None
    return value.node.value


def _right(node: ast.Binary, left: Value, scope: Scope) -> Value:
    """Check the right operand. Compared with an enumeration, a name may be one of its enumerators."""
    if node.op in _COMPARE and isinstance(left.type, EnumType) and isinstance(node.right, ast.Name):
        found = dict(left.type.values).get(node.right.name)
        if found is not None:
            name = node.right.name
            if scope.variable("global", name) is not None or name in scope.inlines:
                raise refuse("D_IDENT_AMBIG", node.right.span, f"{name} is a value of {left.type}, and a variable too")
            return Value(typed.Const(found, INT), left.type)
    return scope.check(node.right)


def _combine(expr: ast.Binary, left: Value, right: Value) -> Value:
    op = expr.op
    if op in _COMPARE:
        return Value(_comparison(op, left, right, expr.span), INT)
    if op in ("&&", "||", "^^"):
        a = truth_operand(left, expr.left.span, "D_OP_SCALAR", f"the left side of {op}")
        b = truth_operand(right, expr.right.span, "D_OP_SCALAR", f"the right side of {op}")
        if op != "^^" and isinstance(a, typed.Const):  # it leaves the answer to the right side
            return Value(_flag(b), INT)
        if op != "^^":
            return Value(typed.Logic("and" if op == "&&" else "or", a, b), INT)
        return Value(_compare("ne", _flag(a), _flag(b)), INT)
    return arithmetic(op, left, right, (expr.left.span, expr.right.span, expr.span))


def _flag(node: TypedExpr) -> TypedExpr:
    return _compare("ne", node, typed.Const(0, INT))


def _comparison(op: str, left: Value, right: Value, span: Span) -> TypedExpr:
    dead = left.action or right.action or left.dynamic or right.dynamic
    if dead or not compatible(left, right):
        raise refuse("D_OP_INCOMPAT", span, f"{describe(left)} and {describe(right)} cannot be compared with {op}")
    if isinstance(left.type, StringType) or isinstance(right.type, StringType):
        return typed.CompareStrings(_COMPARE[op], as_string(left), as_string(right))
    return _compare(_COMPARE[op], left.node, right.node)


def _compare(op: CompareOp, left: TypedExpr, right: TypedExpr) -> TypedExpr:
    if not isinstance(left.type, IntType):
        raise InternalError("what was checked to be an integer has another type")
    if not isinstance(right.type, IntType):
        raise InternalError("what was checked to be an integer has another type")
    t = usual(left.type, right.type)
    left, right = convert(left, t), convert(right, t)
    if isinstance(left, typed.Const) and isinstance(right, typed.Const):
        return typed.Const(int(COMPARE[op](left.value, right.value)), INT)
    return typed.Compare(op, left, right, t.signed)


def arithmetic(op: str, left: Value, right: Value, spans: tuple[Span, Span, Span]) -> Value:
    """Check an arithmetic operator.

    ``spans``: the places of the left operand, of the right one and of the whole.
    """
    name, tag = _ARITH[op]
    if name in ("add", "sub"):
        if is_pointer(left.type) or is_pointer(right.type):
            return _pointer_arithmetic(op, left, right, spans)
        if isinstance(left.type, StringType) != isinstance(right.type, StringType):
            return _text_arithmetic(op, left, right, spans)
    a = want_integer(left, spans[0], tag, f"the left side of {op}")
    b = want_integer(right, spans[1], tag, f"the right side of {op}")
    if name in ("shl", "shr"):
        t = promote(a)
        return Value(_arith(name, as_integer(left, t), right.node, t, spans[2]), t)
    t = usual(a, b)
    return Value(_arith(name, as_integer(left, t), as_integer(right, t), t, spans[2]), t)


def _pointer_arithmetic(op: str, left: Value, right: Value, spans: tuple[Span, Span, Span]) -> Value:
    for value, span in ((left, spans[0]), (right, spans[1])):
        if is_vfptr(value.type):
            raise refuse("D_OP_INCOMPAT", span, f"there is no arithmetic on {describe(value)}")
    if is_pointer(left.type) and is_pointer(right.type):
        if op == "+" or not pointers_fit(left, right):
            raise _misfit(op, left, right, spans[2])
        return _difference(left, right, spans)
    if is_integer(left.type) and op == "+":
        left, right, spans = right, left, (spans[1], spans[0], spans[2])
    if not is_integer(right.type):
        raise _misfit(op, left, right, spans[2])
    _check_bounds(left, right, spans[2])
    inner = pointee(left.type)
    if inner is None:
        raise InternalError("what was checked to be a pointer points to nothing")
    offset = _arith("mul", convert(right.node, LONG), typed.Const(_stride(inner, spans[0]), LONG), LONG, spans[2])
    node = _arith("add" if op == "+" else "sub", left.node, convert(offset, MACHINE_POINTER), MACHINE_POINTER, spans[2])
    return Value(node, PointerType(inner))


def _text_arithmetic(op: str, left: Value, right: Value, spans: tuple[Span, Span, Span]) -> Value:
    """Add an integer to a string: the string from that character on, as for a pointer."""
    if isinstance(right.type, StringType) and op == "+":
        left, right = right, left
    if not isinstance(left.type, StringType) or not is_integer(right.type):
        raise _misfit(op, left, right, spans[2])
    _check_bounds(left, right, spans[2])
    addr = typed.StringToScratch(left.node)
    offset = convert(right.node, MACHINE_POINTER)
    moved = _arith("add" if op == "+" else "sub", addr, offset, MACHINE_POINTER, spans[2])
    return Value(typed.StringLoad(moved, 0, left.type), left.type)


def _check_bounds(left: Value, right: Value, span: Span) -> None:
    """Refuse a constant index outside of an array that has a size."""
    if isinstance(left.type, ArrayType) and left.type.count and isinstance(right.node, typed.Const):
        index = right.node.value
        if not 0 <= index < left.type.count:
            raise refuse("D_ARR_BOUNDS", span, f"{index} is outside of {left.type}")


def _stride(inner: Type, span: Span) -> int:
    size = sizeof(inner)
    if size == 0:
        raise refuse("D_OP_INCOMPLETE", span, f"{inner} has no size here")
    return size


def _difference(left: Value, right: Value, spans: tuple[Span, Span, Span]) -> Value:
    inner = pointee(left.type)
    if inner is None:
        raise InternalError("what was checked to be a pointer points to nothing")
    bytes_ = _arith("sub", convert(left.node, LONG), convert(right.node, LONG), LONG, spans[2])
    return Value(_arith("div", bytes_, typed.Const(_stride(inner, spans[0]), LONG), LONG, spans[2]), LONG)


def _misfit(op: str, left: Value, right: Value, span: Span) -> Exception:
    return refuse("D_OP_INCOMPAT", span, f"{describe(left)} {op} {describe(right)} has no meaning")


def _arith(op: ArithOp, left: TypedExpr, right: TypedExpr, t: IntType, span: Span) -> TypedExpr:
    if op in ("div", "rem") and isinstance(right, typed.Const) and right.value == 0:
        raise refuse("D_DIV_ZERO", span, "division by zero")
    if isinstance(left, typed.Const) and isinstance(right, typed.Const):
        return typed.Const(t.wrap(compute(op, left.value, right.value, signed=t.signed)), t)
    return typed.Arith(op, left, right, t)


def conditional(expr: ast.Conditional, scope: Scope) -> Value:
    """Check ``cond ? then : orelse``."""
    cond = condition(expr, scope)
    return scope.check(branch) if (branch := chosen(expr, cond)) is not None else choose(expr, cond, scope)


def condition(expr: ast.Conditional, scope: Scope) -> TypedExpr:
    """Check the condition of ``?:``."""
    return truth(expr.cond, scope, "D_OP_SCALAR", "the condition of ?:")


def chosen(expr: ast.Conditional, cond: TypedExpr) -> ast.Expr | None:
    """Return the branch that a constant condition chooses. The other one is not checked, as in DTrace."""
    if not isinstance(cond, typed.Const):
        return None
    return expr.then if cond.value else expr.orelse


def choose(expr: ast.Conditional, cond: TypedExpr, scope: Scope) -> Value:
    """Check the branches of ``?:``, whose condition is no constant."""
    then, orelse = scope.check(expr.then), scope.check(expr.orelse)
    if then.dynamic or orelse.dynamic or same(then.type, orelse.type):
        _want_values("?:", expr.span, then, orelse)
    if isinstance(then.type, VoidType) and isinstance(orelse.type, VoidType):
        return Value(typed.Choose(cond, then.node, orelse.node, INT), VOID)
    if isinstance(then.type, StructType) and same(then.type, orelse.type):
        return Value(typed.Choose(cond, then.node, orelse.node, MACHINE_POINTER), then.type)
    if not compatible(then, orelse):
        message = f"?: must give one type, not {describe(then)} and {describe(orelse)}"
        raise refuse("D_OP_INCOMPAT", expr.span, message)
    if is_integer(then.type) and is_integer(orelse.type):
        a, b = machine(then.type), machine(orelse.type)
        if not isinstance(a, IntType):
            raise InternalError("what was checked to be an integer has another type")
        if not isinstance(b, IntType):
            raise InternalError("what was checked to be an integer has another type")
        t = usual(a, b)
        return Value(typed.Choose(cond, convert(then.node, t), convert(orelse.node, t), t), t)
    if isinstance(then.type, StringType) or isinstance(orelse.type, StringType):
        x, y = as_string(then), as_string(orelse)
        size = max(n.size for n in (x.type, y.type) if isinstance(n, StringType))
        text = StringType(size)
        return Value(typed.Choose(cond, x, y, text), text)
    inner = pointee(then.type) or pointee(orelse.type)
    if inner is None:
        raise InternalError("what was checked to be a pointer points to nothing")
    x, y = as_integer(then, MACHINE_POINTER), as_integer(orelse, MACHINE_POINTER)
    return Value(typed.Choose(cond, x, y, MACHINE_POINTER), PointerType(inner))


def _want_values(op: str, span: Span, *values: Value) -> None:
    for value in values:
        if value.dynamic:
            raise refuse("D_OP_DYN", span, f"{value.dynamic} has no value that {op} could take")
        if value.action or isinstance(value.type, SymbolType):
            name = value.action or str(value.type)
            raise refuse("D_OP_ACT", span, f"{name} is the result of an action: {op} cannot take it")


def comma(expr: ast.Comma, scope: Scope) -> Value:
    """Check ``left, right``."""
    left, right = scope.check(expr.left), scope.check(expr.right)
    _want_values("the operator ,", expr.span, left, right)
    return Value(typed.Sequence(left.node, right.node, right.node.type), right.type)


def cast(expr: ast.Cast, scope: Scope) -> Value:
    """Check ``(type)operand``."""
    target, value = scope.types.resolve(expr.type), scope.check(expr.operand)
    bad = refuse("D_CAST_INVAL", expr.span, f"{describe(value)} cannot be cast to {target}")
    if value.dynamic:
        raise bad
    if isinstance(target, VoidType):
        if value.action:
            raise refuse("D_CG_EXPR", expr.operand.span, f"{value.action}() may only stand alone as a statement")
        return Value(value.node, VOID)
    if isinstance(target, StringType):
        if not (is_scalar(value.type) or is_string_like(value.type)):
            raise bad
        return Value(as_string(value), StringType(scope.string_size))
    if is_object(target):
        if not same(target, value.type):
            raise bad
        return value
    if not is_scalar(target):
        raise bad
    m = machine(target)
    if not isinstance(m, IntType):
        raise InternalError("what was checked to be an integer has another type")
    if is_scalar(value.type) or (isinstance(value.type, ArrayType) and isinstance(target, PointerType)):
        return Value(as_integer(value, m), target)
    raise bad
