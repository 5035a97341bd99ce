"""Define the syntax tree: what was written, nothing resolved. Closed unions of frozen nodes.

    x = pid + 1     ->  Assign("=", Name("x"), Binary("+", Name("pid"), Integer(1)))

Every node ends with its ``span``, the place in the script. Passes keep their results beside the tree
(:mod:`probekit.lang.typed`), never in it. Expressions lie in :mod:`probekit.lang.ast_exprs` and types in
:mod:`probekit.lang.ast_types`; both are used by their names here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

from probekit.lang.ast_exprs import (
    AggRef,
    Assign,
    Binary,
    CallExpr,
    Cast,
    Comma,
    Conditional,
    Expr,
    IncDec,
    Index,
    Integer,
    MemberExpr,
    Name,
    Offsetof,
    Scope,
    Scoped,
    Sizeof,
    SizeofType,
    String,
    Stringof,
    SymbolExpr,
    Unary,
    Xlate,
)
from probekit.lang.ast_types import (
    ArrayOf,
    Declarator,
    EnumeratorDecl,
    EnumSpec,
    FunctionOf,
    MemberDecl,
    Named,
    ParamDecl,
    Params,
    PointerTo,
    Specs,
    StructSpec,
    TypeName,
)
from probekit.lang.source import Span
from probekit.records import record

__all__ = (
    "AggRef",
    "ArrayOf",
    "Assign",
    "Binary",
    "CallExpr",
    "Cast",
    "ClauseDef",
    "Comma",
    "CompoundStatement",
    "Conditional",
    "Declaration",
    "Declarator",
    "Empty",
    "EnumSpec",
    "EnumeratorDecl",
    "Expr",
    "ExprStatement",
    "FunctionOf",
    "If",
    "IncDec",
    "Index",
    "InlineDecl",
    "Integer",
    "MemberDecl",
    "MemberExpr",
    "Name",
    "Named",
    "Node",
    "Offsetof",
    "ParamDecl",
    "Params",
    "PointerTo",
    "ProbeText",
    "Provided",
    "ProviderDecl",
    "Scope",
    "Scoped",
    "Script",
    "Sizeof",
    "SizeofType",
    "Specs",
    "Statement",
    "String",
    "Stringof",
    "StructSpec",
    "SymbolExpr",
    "TopLevel",
    "Translation",
    "TranslatorDecl",
    "TypeName",
    "Unary",
    "Xlate",
    "chain",
    "children",
)


@final
@record
class ExprStatement:
    """An expression that is evaluated for its effect."""

    value: Expr
    span: Span


@final
@record
class Empty:
    """A lone ``;``."""

    span: Span


@final
@record
class CompoundStatement:
    """``{ ... }``."""

    statements: tuple[Statement, ...]
    span: Span


@final
@record
class If:
    """``if (cond) then else orelse``."""

    cond: Expr
    then: Statement
    orelse: Statement | None
    """None without ``else``."""
    span: Span


Statement = ExprStatement | Empty | CompoundStatement | If


@final
@record
class ProbeText:
    """One probe description as written, with its macro variables replaced."""

    text: str
    span: Span


@final
@record
class ClauseDef:
    """``probes /predicate/ { body }``."""

    probes: tuple[ProbeText, ...]
    predicate: Expr | None
    body: CompoundStatement | None
    """None for a bare probe description."""
    span: Span


@final
@record
class Declaration:
    """``self int x;``, ``int a[string];``, ``typedef struct s { ... } s_t;``."""

    specs: Specs
    declarators: tuple[Declarator, ...]
    """Empty for a type alone: ``struct s { ... };``."""
    span: Span


@final
@record
class InlineDecl:
    """``inline type name[params] = value;``."""

    specs: Specs
    declarator: Declarator
    """The name, with the parameters in brackets where there are any."""
    value: Expr
    span: Span


@final
@record
class Translation:
    """``member = value;`` of a translator."""

    member: str
    value: Expr
    span: Span


@final
@record
class TranslatorDecl:
    """``translator target < source > { ... };``."""

    target: TypeName
    source: ParamDecl
    """The type that is translated, and the name of the parameter."""
    members: tuple[Translation, ...]
    span: Span


@final
@record
class Provided:
    """``probe name(args) [: (translated)];``."""

    name: str
    args: Params | None
    """What the probe fires with, as ``arg0``, ``arg1`` ...; None for empty parentheses."""
    translated: Params | None
    """The types of ``args[]``; None when they are not given."""
    span: Span


@final
@record
class ProviderDecl:
    """``provider name { ... };``."""

    name: str
    probes: tuple[Provided, ...]
    span: Span


TopLevel = ClauseDef | Declaration | InlineDecl | TranslatorDecl | ProviderDecl


@final
@record
class Script:
    """A whole program."""

    items: tuple[TopLevel, ...]
    span: Span


Node = Expr | Statement | ClauseDef
"""What :func:`children` walks."""


def chain(expr: Binary) -> tuple[Expr, list[Binary]]:
    """Take ``a || b || c`` apart: return its first operand, and the nodes that add the others, innermost first.

    Only ``||`` and ``&&`` make chains (a generated script may list a thousand process IDs). Passes walk a chain in a
    loop, so a long one does not count as deep nesting.
    """
    nodes = [expr]
    while expr.op in ("||", "&&") and isinstance(left := nodes[-1].left, Binary) and left.op == expr.op:
        nodes.append(left)
    return nodes[-1].left, nodes[::-1]


def children(node: Node) -> Iterator[Expr | Statement]:
    """Yield the statements and expressions directly under a node, in the order written."""
    match node:
        case Unary() | IncDec() | Cast() | Sizeof() | Stringof() | Xlate():
            yield node.operand
        case Binary() | Comma():
            yield node.left
            yield node.right
        case Assign():
            yield node.target
            yield node.value
        case Conditional():
            yield node.cond
            yield node.then
            yield node.orelse
        case Index():
            yield node.base
            yield from node.keys
        case MemberExpr():
            yield node.base
        case CallExpr():
            yield node.function
            yield from node.args
        case AggRef():
            yield from node.keys or ()
        case ExprStatement():
            yield node.value
        case CompoundStatement():
            yield from node.statements
        case If():
            yield node.cond
            yield node.then
            if node.orelse is not None:
                yield node.orelse
        case ClauseDef():
            if node.predicate is not None:
                yield node.predicate
            if node.body is not None:
                yield node.body
        case Integer() | String() | Name() | Scoped() | SymbolExpr() | SizeofType() | Offsetof() | Empty():
            return
