"""Build the syntax tree: one method for each rule or alias of grammar/*.lark, with its name.

Lark calls a method when it reduces the rule, so no tree of Lark's own is ever built. A method gets the parts of its
rule: the tokens that the grammar names (``LPAR``, but not ``"("``), the nodes of other rules, and None for each
``[...]`` that is missing. Methods are pure. They refuse what cannot be a node, with its place.
"""

from __future__ import annotations

from typing import Any, Literal

from lark import Token, Transformer

from probekit.errors import InternalError
from probekit.lang import ast
from probekit.lang.diagnostics import refuse
from probekit.lang.parse.literals import char_value, integer_value, string_value
from probekit.lang.source import Span
from probekit.lang.types import INT, INT64

__all__ = ("TreeBuilder", "span_of")

_Parts = list[Any]
"""The parts of a rule, as Lark passes them."""


def span_of(token: Token) -> Span:
    """Return the place of a token."""
    return Span(token.start_pos, token.end_pos)  # type: ignore[arg-type]  # Lark's lexer sets both


def _any_span(part: Any) -> Span:
    return span_of(part) if isinstance(part, Token) else part.span


def _want_equals(op: Token) -> None:
    if op != "=":
        raise refuse("D_SYNTAX", span_of(op), f"= is wanted here, not {op}")


def _array(inner: ast.Declarator | None, dims: Any, span: Span) -> ast.ArrayOf:
    if isinstance(dims, ast.Params):
        return ast.ArrayOf(inner, None, dims, span)
    return ast.ArrayOf(inner, dims, None, span)


class _ProgramBuilder:
    """Builds the rules of d.lark."""

    def start(self, parts: _Parts) -> ast.Script:
        """Build the script."""
        return ast.Script(tuple(parts), parts[0].span.to(parts[-1].span) if parts else Span(0, 0))

    def clause(self, parts: _Parts) -> ast.ClauseDef:
        """Build ``probes [predicate] [block]``."""
        probes, predicate, block = parts
        end = block.span if block else predicate.span if predicate else probes[-1].span
        return ast.ClauseDef(tuple(probes), predicate, block, probes[0].span.to(end))

    def probes(self, parts: _Parts) -> list[ast.ProbeText]:
        """Build a list of probe descriptions."""
        return [ast.ProbeText(str(token), span_of(token)) for token in parts]

    def predicate(self, parts: _Parts) -> ast.Expr:
        """Return the expression of ``/ expr /``."""
        return parts[1]  # type: ignore[no-any-return]

    def block(self, parts: _Parts) -> ast.CompoundStatement:
        """Build ``{ ... }``, whose last statement may lack its semicolon."""
        opening, *statements, last, closing = parts
        if last is not None:
            statements.append(last)
        return ast.CompoundStatement(tuple(statements), span_of(opening).to(span_of(closing)))

    def last_statement(self, parts: _Parts) -> ast.ExprStatement:
        """Build the expression before ``}``."""
        return ast.ExprStatement(parts[0], parts[0].span)

    def expression_statement(self, parts: _Parts) -> ast.ExprStatement:
        """Build ``expr;``."""
        return ast.ExprStatement(parts[0], parts[0].span)

    def empty_statement(self, parts: _Parts) -> ast.Empty:
        """Build ``;``."""
        return ast.Empty(span_of(parts[0]))

    def if_statement(self, parts: _Parts) -> ast.If:
        """Build ``if (cond) branch [else branch]``."""
        word, cond, then, _, orelse = parts
        return ast.If(cond, then, orelse, span_of(word).to((orelse or then).span))

    def declaration(self, parts: _Parts) -> ast.Declaration:
        """Build ``specifiers declarators;``."""
        specs, declarators, end = parts
        return ast.Declaration(specs, tuple(declarators or ()), specs.span.to(span_of(end)))

    def declarators(self, parts: _Parts) -> list[ast.Declarator]:
        """Return a list of declarators."""
        return parts

    def inline(self, parts: _Parts) -> ast.InlineDecl:
        """Build ``inline type name = value;``."""
        word, specs, declarator, op, value, end = parts
        _want_equals(op)
        return ast.InlineDecl(specs, declarator, value, span_of(word).to(span_of(end)))

    def translator(self, parts: _Parts) -> ast.TranslatorDecl:
        """Build ``translator target < source > { ... };``."""
        word, target, _lt, source, _gt, _open, *members, _close, end = parts
        return ast.TranslatorDecl(target, source, tuple(members), span_of(word).to(span_of(end)))

    def translation(self, parts: _Parts) -> ast.Translation:
        """Build ``member = value;``."""
        name, op, value, end = parts
        _want_equals(op)
        return ast.Translation(str(name), value, span_of(name).to(span_of(end)))

    def provider(self, parts: _Parts) -> ast.ProviderDecl:
        """Build ``provider name { ... };``."""
        word, name, _open, *probes, _close, end = parts
        return ast.ProviderDecl(str(name), tuple(probes), span_of(word).to(span_of(end)))

    def provided(self, parts: _Parts) -> ast.Provided:
        """Build ``probe name(args) : (translated);``."""
        tokens = [p for p in parts if isinstance(p, Token)]
        args, translated = parts[3], parts[6] if len(parts) > 6 else None
        return ast.Provided(str(parts[1]), args, translated, span_of(tokens[0]).to(span_of(tokens[-1])))


class _TypeBuilder:
    """Builds the rules of types.lark."""

    def decl_specs(self, parts: _Parts) -> ast.Specs:
        """Build specifiers."""
        storage: list[str] = []
        words: list[str] = []
        tagged: list[ast.StructSpec | ast.EnumSpec] = []
        for part in parts:
            if not isinstance(part, Token):
                tagged.append(part)
            elif part.type in ("STORAGE", "SCOPE"):
                storage.append(str(part))
            else:
                words.append(str(part))
        return ast.Specs(tuple(storage), tuple(words), tuple(tagged), _any_span(parts[0]).to(_any_span(parts[-1])))

    def tag(self, parts: _Parts) -> Token:
        """Return the tag of a struct, union or enumeration."""
        return parts[0]  # type: ignore[no-any-return]

    def struct_tag(self, parts: _Parts) -> ast.StructSpec:
        """Build ``struct tag``."""
        word, tag = parts
        return ast.StructSpec("struct" if word == "struct" else "union", str(tag), None, span_of(word).to(span_of(tag)))

    def struct_body(self, parts: _Parts) -> ast.StructSpec:
        """Build ``struct [tag] { ... }``."""
        word, tag, _open, *members, close = parts
        kind: Literal["struct", "union"] = "struct" if word == "struct" else "union"
        return ast.StructSpec(kind, str(tag or ""), tuple(members), span_of(word).to(span_of(close)))

    def member_decl(self, parts: _Parts) -> ast.MemberDecl:
        """Build one member declaration."""
        specs, members, end = parts
        return ast.MemberDecl(specs, tuple(members or ()), specs.span.to(span_of(end)))

    def member_list(self, parts: _Parts) -> list[tuple[ast.Declarator | None, ast.Expr | None]]:
        """Return the declarators of one member declaration."""
        return parts

    def member_item(self, parts: _Parts) -> tuple[ast.Declarator | None, ast.Expr | None]:
        """Return ``declarator [: width]``."""
        return parts[0], parts[1]

    def member_padding(self, parts: _Parts) -> tuple[ast.Declarator | None, ast.Expr | None]:
        """Return ``: width``, which has no declarator."""
        return None, parts[0]

    def enum_tag(self, parts: _Parts) -> ast.EnumSpec:
        """Build ``enum tag``."""
        word, tag = parts
        return ast.EnumSpec(str(tag), None, span_of(word).to(span_of(tag)))

    def enum_body(self, parts: _Parts) -> ast.EnumSpec:
        """Build ``enum [tag] { ... }``."""
        word, tag, *_rest, close = parts
        values = tuple(p for p in parts if isinstance(p, ast.EnumeratorDecl))
        return ast.EnumSpec(str(tag or ""), values, span_of(word).to(span_of(close)))

    def enumerator(self, parts: _Parts) -> ast.EnumeratorDecl:
        """Build ``name [= value]``."""
        name, op, value = parts
        if op is not None:
            _want_equals(op)
        return ast.EnumeratorDecl(str(name), value, span_of(name) if value is None else span_of(name).to(value.span))

    def stars(self, parts: _Parts) -> tuple[int, Span]:
        """Count the levels of pointer. Qualifiers between the stars do not count."""
        first, *rest = parts
        if isinstance(first, Token):
            return 1, span_of(first)
        count, span = first
        return count + (rest[0].type == "STAR"), span.to(span_of(rest[0]))

    def pointer_declarator(self, parts: _Parts) -> ast.Declarator:
        """Build ``* declarator``."""
        (count, span), *inner = parts
        target = inner[0] if inner else None
        return ast.PointerTo(count, target, span if target is None else span.to(target.span))

    def declared_name(self, parts: _Parts) -> ast.Declarator:
        """Build the name in a declarator."""
        return ast.Named(str(parts[0]), False, span_of(parts[0]))

    def declared_symbol(self, parts: _Parts) -> ast.Declarator:
        """Build the name in a declarator, written with a backquote."""
        return ast.Named(str(parts[0]), True, span_of(parts[0]))

    def grouped(self, parts: _Parts) -> ast.Declarator:
        """Return the declarator of ``(declarator)``."""
        return parts[1]  # type: ignore[no-any-return]

    def array_declarator(self, parts: _Parts) -> ast.Declarator:
        """Build ``declarator[dims]``."""
        inner, _opening, dims, close = parts
        return _array(inner, dims, inner.span.to(span_of(close)))

    def array_abstract(self, parts: _Parts) -> ast.Declarator:
        """Build ``[dims]`` in a type name."""
        opening, dims, close = parts
        return _array(None, dims, span_of(opening).to(span_of(close)))

    def function_declarator(self, parts: _Parts) -> ast.Declarator:
        """Build ``declarator(params)``."""
        inner, _opening, params, close = parts
        return ast.FunctionOf(inner, params, inner.span.to(span_of(close)))

    def function_abstract(self, parts: _Parts) -> ast.Declarator:
        """Build ``(params)`` in a type name."""
        opening, params, close = parts
        return ast.FunctionOf(None, params, span_of(opening).to(span_of(close)))

    def params(self, parts: _Parts) -> ast.Params:
        """Build parameters."""
        params = tuple(p for p in parts if isinstance(p, ast.ParamDecl))
        return ast.Params(params, any(isinstance(p, Token) for p in parts))

    def param(self, parts: _Parts) -> ast.ParamDecl:
        """Build one parameter."""
        specs, declarator = parts
        return ast.ParamDecl(specs, declarator, specs.span if declarator is None else specs.span.to(declarator.span))

    def type_name(self, parts: _Parts) -> ast.TypeName:
        """Build specifiers with an abstract declarator."""
        specs, declarator = parts
        return ast.TypeName(specs, declarator, specs.span if declarator is None else specs.span.to(declarator.span))


class _ExpressionBuilder:
    """Builds the rules of expr.lark."""

    def binary(self, parts: _Parts) -> ast.Binary:
        """Build ``left op right``."""
        left, op, right = parts
        return ast.Binary(str(op), left, right, left.span.to(right.span))

    def comma(self, parts: _Parts) -> ast.Comma:
        """Build ``left, right``."""
        left, right = parts
        return ast.Comma(left, right, left.span.to(right.span))

    def assignment(self, parts: _Parts) -> ast.Assign:
        """Build ``target op value``."""
        target, op, value = parts
        return ast.Assign(str(op), target, value, target.span.to(value.span))

    def conditional(self, parts: _Parts) -> ast.Conditional:
        """Build ``cond ? then : orelse``."""
        cond, then, orelse = parts
        return ast.Conditional(cond, then, orelse, cond.span.to(orelse.span))

    def cast_to(self, parts: _Parts) -> ast.Cast:
        """Build ``(type)operand``."""
        opening, type_name, operand = parts
        return ast.Cast(type_name, operand, span_of(opening).to(operand.span))

    def prefix(self, parts: _Parts) -> ast.IncDec:
        """Build ``++operand``."""
        op, operand = parts
        return ast.IncDec(str(op), operand, True, span_of(op).to(operand.span))

    def postfix_incr(self, parts: _Parts) -> ast.IncDec:
        """Build ``operand++``."""
        operand, op = parts
        return ast.IncDec(str(op), operand, False, operand.span.to(span_of(op)))

    def unary_op(self, parts: _Parts) -> ast.Unary:
        """Build ``op operand``."""
        op, operand = parts
        return ast.Unary(str(op), operand, span_of(op).to(operand.span))

    def sizeof_expr(self, parts: _Parts) -> ast.Sizeof:
        """Build ``sizeof operand``."""
        word, operand = parts
        return ast.Sizeof(operand, span_of(word).to(operand.span))

    def sizeof_type(self, parts: _Parts) -> ast.SizeofType:
        """Build ``sizeof (type)``."""
        word, type_name, closing = parts
        return ast.SizeofType(type_name, span_of(word).to(span_of(closing)))

    def stringof(self, parts: _Parts) -> ast.Stringof:
        """Build ``stringof operand``."""
        word, operand = parts
        return ast.Stringof(operand, span_of(word).to(operand.span))

    def offsetof(self, parts: _Parts) -> ast.Offsetof:
        """Build ``offsetof (type, member)``."""
        word, type_name, member, closing = parts
        return ast.Offsetof(type_name, str(member), span_of(word).to(span_of(closing)))

    def xlate(self, parts: _Parts) -> ast.Xlate:
        """Build ``xlate <type> (operand)``."""
        word, type_name, _, operand, closing = parts
        return ast.Xlate(type_name, operand, span_of(word).to(span_of(closing)))

    def index(self, parts: _Parts) -> ast.Expr:
        """Build ``base[keys]``; for an aggregation, its reference with keys."""
        base, opening, keys, closing = parts
        span = base.span.to(span_of(closing))
        if isinstance(base, ast.AggRef):
            if base.keys is not None:
                raise refuse("D_AGG_MDIM", span_of(opening), "an aggregation has one list of keys: write @a[x, y]")
            return ast.AggRef(base.name, keys, span)
        return ast.Index(base, keys, span)

    def call(self, parts: _Parts) -> ast.CallExpr:
        """Build ``function(args)``."""
        function, _, args, closing = parts
        return ast.CallExpr(function, args or (), function.span.to(span_of(closing)))

    def arguments(self, parts: _Parts) -> tuple[ast.Expr, ...]:
        """Return a list of arguments or keys."""
        return tuple(parts)

    def dot(self, parts: _Parts) -> ast.MemberExpr:
        """Build ``base.name``."""
        base, name = parts
        return ast.MemberExpr(base, str(name), False, base.span.to(span_of(name)))

    def arrow(self, parts: _Parts) -> ast.MemberExpr:
        """Build ``base->name``."""
        base, name = parts
        return ast.MemberExpr(base, str(name), True, base.span.to(span_of(name)))

    def scoped(self, parts: _Parts) -> ast.Scoped:
        """Build ``self->name``."""
        scope, name = parts
        return ast.Scoped("self" if scope == "self" else "this", str(name), span_of(scope).to(span_of(name)))

    def member(self, parts: _Parts) -> Token:
        """Return the name of a member."""
        return parts[0]  # type: ignore[no-any-return]

    def name(self, parts: _Parts) -> ast.Name:
        """Build an identifier."""
        return ast.Name(str(parts[0]), span_of(parts[0]))

    def symbol(self, parts: _Parts) -> ast.SymbolExpr:
        """Build a kernel symbol."""
        return ast.SymbolExpr(str(parts[0]), span_of(parts[0]))

    def integer(self, parts: _Parts) -> ast.Integer:
        """Build an integer constant."""
        span = span_of(parts[0])
        value, t = integer_value(str(parts[0]), span)
        return ast.Integer(value, t, span)

    def char(self, parts: _Parts) -> ast.Integer:
        """Build a character constant: an ``int``, or 64 bits when it has more than four characters."""
        span = span_of(parts[0])
        value = char_value(str(parts[0]), span)
        t = INT if -(1 << 31) <= value < 1 << 32 else INT64
        return ast.Integer(t.wrap(value), t, span)

    def string(self, parts: _Parts) -> ast.String:
        """Build a string constant."""
        span = span_of(parts[0])
        return ast.String(string_value(str(parts[0]), span), span)

    def float_literal(self, parts: _Parts) -> ast.Expr:
        """Refuse a floating-point constant: D has none."""
        raise refuse("D_SYNTAX", span_of(parts[0]), "floating-point constants are not part of D")

    def macro(self, parts: _Parts) -> ast.Expr:
        """Fail: no macro variable is left in the tokens that the parser gets."""
        raise InternalError(f"{parts[0]} was not replaced")

    def aggregation(self, parts: _Parts) -> ast.AggRef:
        """Build ``@name``."""
        return ast.AggRef(str(parts[0])[1:], None, span_of(parts[0]))

    def paren(self, parts: _Parts) -> ast.Expr:
        """Return the expression of ``(expr)``."""
        return parts[1]  # type: ignore[no-any-return]


class TreeBuilder(_ProgramBuilder, _TypeBuilder, _ExpressionBuilder, Transformer[Token, ast.Script]):
    """Builds the syntax tree while Lark parses (Lark's option ``transformer``)."""
