"""Grammar rules to tree nodes: one method for each rule or alias of grammar/*.lark.

Lark calls a method when its rule is reduced, so no concrete tree is ever built.
Methods are pure; what cannot be a node is refused with its place.
"""

from __future__ import annotations

from typing import Any

from lark import Token

from probekit.lang import ast
from probekit.lang.diagnostics import not_yet, refuse
from probekit.lang.literals import char_value, integer_value, string_value
from probekit.lang.source import Span
from probekit.lang.types import INT, INT64

__all__ = ("TreeBuilder",)

# Children as Lark hands them over: tokens that the grammar names, and nodes of other rules.
_Parts = list[Any]


def _span(token: Token) -> Span:
    assert token.start_pos is not None
    assert token.end_pos is not None
    return Span(token.start_pos, token.end_pos)


class TreeBuilder:
    """Lark's ``transformer``."""

    # Program.

    def start(self, parts: _Parts) -> ast.Script:
        """The script."""
        return ast.Script(tuple(parts), parts[0].span.to(parts[-1].span) if parts else Span(0, 0))

    def clause(self, parts: _Parts) -> ast.Clause:
        """``probes [predicate] [block]``."""
        probes, predicate, block = parts
        end = block.span if block else predicate.span if predicate else probes[-1].span
        return ast.Clause(tuple(probes), predicate, block, probes[0].span.to(end))

    def probes(self, parts: _Parts) -> list[ast.ProbeText]:
        """A list of probe descriptions."""
        return [ast.ProbeText(str(token), _span(token)) for token in parts]

    def predicate(self, parts: _Parts) -> ast.Expr:
        """``/ expr /``."""
        return parts[1]  # type: ignore[no-any-return]

    def block(self, parts: _Parts) -> ast.Block:
        """``{ ... }``; the last statement may lack its semicolon."""
        opening, *statements, last, closing = parts
        if last is not None:
            statements.append(last)
        return ast.Block(tuple(statements), _span(opening).to(_span(closing)))

    def last_statement(self, parts: _Parts) -> ast.ExprStatement:
        """An expression before ``}``."""
        return ast.ExprStatement(parts[0], parts[0].span)

    def expression_statement(self, parts: _Parts) -> ast.ExprStatement:
        """``expr;``."""
        return ast.ExprStatement(parts[0], parts[0].span)

    def empty_statement(self, parts: _Parts) -> ast.Empty:
        """``;``."""
        return ast.Empty(_span(parts[0]))

    def if_statement(self, parts: _Parts) -> ast.If:
        """``if (cond) branch [else branch]``."""
        word, cond, then, _, orelse = parts
        return ast.If(cond, then, orelse, _span(word).to((orelse or then).span))

    def declaration(self, parts: _Parts) -> ast.Declaration:
        """``[self|this] type name[keys];``."""
        scope, type_name, name, keys, end = parts
        start = _span(scope) if scope else type_name.span
        return ast.Declaration(
            str(scope) if scope else None,  # type: ignore[arg-type]
            type_name,
            str(name),
            keys,
            start.to(_span(end)),
        )

    def key_types(self, parts: _Parts) -> tuple[ast.TypeName, ...]:
        """``[type, ...]`` of a declaration."""
        return tuple(parts[1:-1])

    # Types.

    def type_name(self, parts: _Parts) -> ast.TypeName:
        """Specifiers and stars."""
        stars = [p for p in parts if isinstance(p, Token)]
        words = [p for p in parts if not isinstance(p, Token)]
        last = _span(stars[-1]) if stars else words[-1][1]
        return ast.TypeName(tuple(word for word, _ in words), len(stars), words[0][1].to(last))

    def specifier(self, parts: _Parts) -> tuple[str, Span]:
        """One word of a type."""
        return str(parts[0]), _span(parts[0])

    def tagged_type(self, parts: _Parts) -> tuple[str, Span]:
        """``struct tag``."""
        return f"{parts[0]} {parts[1]}", _span(parts[0]).to(_span(parts[1]))

    # Operators.

    def binary(self, parts: _Parts) -> ast.Binary:
        """``left op right``."""
        left, op, right = parts
        return ast.Binary(str(op), left, right, left.span.to(right.span))

    def comma(self, parts: _Parts) -> ast.Comma:
        """``left, right``."""
        left, right = parts
        return ast.Comma(left, right, left.span.to(right.span))

    def assignment(self, parts: _Parts) -> ast.Assign:
        """``target op value``."""
        target, op, value = parts
        return ast.Assign(str(op), target, value, target.span.to(value.span))

    def conditional(self, parts: _Parts) -> ast.Conditional:
        """``cond ? then : orelse``."""
        cond, then, orelse = parts
        return ast.Conditional(cond, then, orelse, cond.span.to(orelse.span))

    def cast_to(self, parts: _Parts) -> ast.Cast:
        """``(type)operand``."""
        opening, type_name, operand = parts
        return ast.Cast(type_name, operand, _span(opening).to(operand.span))

    def prefix(self, parts: _Parts) -> ast.IncDec:
        """``++operand``."""
        op, operand = parts
        return ast.IncDec(str(op), operand, True, _span(op).to(operand.span))

    def postfix_incr(self, parts: _Parts) -> ast.IncDec:
        """``operand++``."""
        operand, op = parts
        return ast.IncDec(str(op), operand, False, operand.span.to(_span(op)))

    def unary_op(self, parts: _Parts) -> ast.Unary:
        """``op operand``."""
        op, operand = parts
        return ast.Unary(str(op), operand, _span(op).to(operand.span))

    def sizeof_expr(self, parts: _Parts) -> ast.Sizeof:
        """``sizeof operand``."""
        word, operand = parts
        return ast.Sizeof(operand, _span(word).to(operand.span))

    def sizeof_type(self, parts: _Parts) -> ast.SizeofType:
        """``sizeof (type)``."""
        word, type_name, closing = parts
        return ast.SizeofType(type_name, _span(word).to(_span(closing)))

    def stringof(self, parts: _Parts) -> ast.Stringof:
        """``stringof operand``."""
        word, operand = parts
        return ast.Stringof(operand, _span(word).to(operand.span))

    def offsetof(self, parts: _Parts) -> ast.Offsetof:
        """``offsetof (type, member)``."""
        word, type_name, member, closing = parts
        return ast.Offsetof(type_name, str(member), _span(word).to(_span(closing)))

    def xlate(self, parts: _Parts) -> ast.Xlate:
        """``xlate <type> (operand)``."""
        word, type_name, _, operand, closing = parts
        return ast.Xlate(type_name, operand, _span(word).to(_span(closing)))

    # Postfix and primary expressions.

    def index(self, parts: _Parts) -> ast.Expr:
        """``base[keys]``; on an aggregation, its key tuple."""
        base, opening, keys, closing = parts
        span = base.span.to(_span(closing))
        if isinstance(base, ast.AggRef):
            if base.keys is not None:
                raise refuse("D_AGG_MDIM", _span(opening), "an aggregation has one list of keys: write @a[x, y]")
            return ast.AggRef(base.name, keys, span)
        return ast.Index(base, keys, span)

    def call(self, parts: _Parts) -> ast.Call:
        """``function(args)``."""
        function, _, args, closing = parts
        return ast.Call(function, args or (), function.span.to(_span(closing)))

    def arguments(self, parts: _Parts) -> tuple[ast.Expr, ...]:
        """A list of arguments or keys."""
        return tuple(parts)

    def dot(self, parts: _Parts) -> ast.Member:
        """``base.name``."""
        base, name = parts
        return ast.Member(base, str(name), False, base.span.to(_span(name)))

    def arrow(self, parts: _Parts) -> ast.Member:
        """``base->name``."""
        base, name = parts
        return ast.Member(base, str(name), True, base.span.to(_span(name)))

    def scoped(self, parts: _Parts) -> ast.Scoped:
        """``self->name``."""
        scope, name = parts
        return ast.Scoped("self" if scope == "self" else "this", str(name), _span(scope).to(_span(name)))

    def member(self, parts: _Parts) -> Token:
        """A member's name."""
        return parts[0]  # type: ignore[no-any-return]

    def name(self, parts: _Parts) -> ast.Name:
        """An identifier."""
        return ast.Name(str(parts[0]), _span(parts[0]))

    def symbol(self, parts: _Parts) -> ast.Symbol:
        """A kernel symbol."""
        return ast.Symbol(str(parts[0]), _span(parts[0]))

    def integer(self, parts: _Parts) -> ast.Integer:
        """An integer constant."""
        span = _span(parts[0])
        value, t = integer_value(str(parts[0]), span)
        return ast.Integer(value, t, span)

    def char(self, parts: _Parts) -> ast.Integer:
        """A character constant: an ``int``, or 64 bits when it has more than four characters."""
        span = _span(parts[0])
        value = char_value(str(parts[0]), span)
        t = INT if -(1 << 31) <= value < 1 << 32 else INT64
        return ast.Integer(t.wrap(value), t, span)

    def string(self, parts: _Parts) -> ast.String:
        """A string constant."""
        span = _span(parts[0])
        return ast.String(string_value(str(parts[0]), span), span)

    def float_literal(self, parts: _Parts) -> ast.Expr:
        """D has no floating-point constants."""
        raise refuse("D_SYNTAX", _span(parts[0]), "floating-point constants are not part of D")

    def macro(self, parts: _Parts) -> ast.Expr:
        """Never reached: the token stream has no macro variables left."""
        raise not_yet(_span(parts[0]), f"macro variable {parts[0]} here is")

    def aggregation(self, parts: _Parts) -> ast.AggRef:
        """``@name``."""
        return ast.AggRef(str(parts[0])[1:], None, _span(parts[0]))

    def paren(self, parts: _Parts) -> ast.Expr:
        """``(expr)``."""
        return parts[1]  # type: ignore[no-any-return]
