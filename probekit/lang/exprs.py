"""Check expressions: :func:`check` dispatches on the node, and every part of the checker calls it for operands.

Literals are checked here, names in ``variables``, operators in ``operators``, memory in ``access``, assignment in
``assign``, calls in ``functions``.
"""

from __future__ import annotations

from typing import assert_never

from probekit.lang import ast, typed
from probekit.lang.access import address_of, dereference, member, offset_of, size_of, size_of_type, string_of
from probekit.lang.assign import assign, define_operand, step
from probekit.lang.functions import call
from probekit.lang.kernelside import KernelSide
from probekit.lang.operators import binary, cast, comma, conditional, unary
from probekit.lang.scope import Scope
from probekit.lang.symbols import kernel_symbol
from probekit.lang.translators import translate
from probekit.lang.types import INT, VOID, StringType
from probekit.lang.typetable import TypeTable
from probekit.lang.values import Value
from probekit.lang.variables import element, identifier, scoped

__all__ = ("check", "make_scope")


def check(expr: ast.Expr, scope: Scope) -> Value:
    """Check an expression. Raises :class:`Refusal`."""
    match expr:
        case ast.Integer():
            return Value(typed.Const(expr.value, expr.type), expr.type)
        case ast.String():
            text = expr.text[: scope.string_size - 1]
            t = StringType(len(text) + 1)
            return Value(typed.StringConst(text, t), t)
        case ast.Name():
            return identifier(expr, scope)
        case ast.Scoped():
            return scoped(expr, scope)
        case ast.AggRef():
            return _aggregation(expr)
        case ast.Unary() | ast.Sizeof() | ast.Stringof():
            return _unary(expr, scope)
        case ast.Binary():
            return binary(expr, scope)
        case ast.Assign():
            return assign(expr, scope)
        case ast.IncDec():
            return step(expr, scope)
        case ast.Conditional():
            return conditional(expr, scope)
        case ast.Comma():
            return comma(expr, scope)
        case ast.Cast():
            return cast(expr, scope)
        case _:
            return _more(expr, scope)


def _unary(expr: ast.Unary | ast.Sizeof | ast.Stringof, scope: Scope) -> Value:
    define_operand(expr.operand, scope)
    match expr:
        case ast.Sizeof():
            return size_of(expr, scope)
        case ast.Stringof():
            return string_of(expr, scope)
        case ast.Unary(op="&"):
            return address_of(expr, scope)
        case ast.Unary(op="*"):
            return dereference(expr, scope)
        case _:
            return unary(expr, scope)


def _more(
    expr: ast.SizeofType | ast.Offsetof | ast.Xlate | ast.CallExpr | ast.Index | ast.MemberExpr | ast.SymbolExpr,
    scope: Scope,
) -> Value:
    match expr:
        case ast.SizeofType():
            return size_of_type(scope.types.resolve(expr.type), expr.span, scope)
        case ast.Offsetof():
            return offset_of(expr, scope)
        case ast.Xlate():
            return translate(expr, scope)
        case ast.CallExpr():
            return call(expr, scope)
        case ast.Index():
            return element(expr, scope)
        case ast.MemberExpr():
            return member(expr, scope)
        case ast.SymbolExpr():
            return kernel_symbol(expr, scope)
        case _:
            assert_never(expr)


def _aggregation(expr: ast.AggRef) -> Value:
    return Value(typed.Const(0, INT), VOID, dynamic=f"the aggregation @{expr.name}")


def make_scope(string_size: int, kernel: KernelSide) -> Scope:
    """Make the scope of a new program: D's own names, and the guest's kernel."""
    table = TypeTable(lambda _expr: None, string_size, kernel)
    scope = Scope(table, check, string_size)

    def constant(expr: ast.Expr) -> int | None:
        node = check(expr, scope).node
        return node.value if isinstance(node, typed.Const) else None

    table.constant = constant
    return scope
