"""The syntax tree: what was written, nothing resolved. Closed unions of frozen nodes.

    x = pid + 1     ->  Assign("=", Name("x"), Binary("+", Name("pid"), Integer(1)))

Every node ends with its ``span``. Passes keep their results beside the tree
(``typed``), never in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, final

from probekit.lang.ast_types import (
    ArrayOf,
    Declarator,
    Enumerator,
    EnumSpec,
    FunctionOf,
    MemberDecl,
    Named,
    Param,
    Params,
    PointerTo,
    Specs,
    StructSpec,
    TypeName,
)
from probekit.lang.source import Span
from probekit.lang.types import IntType
from probekit.records import record

__all__ = (
    "AggRef",
    "ArrayOf",
    "Assign",
    "Binary",
    "Block",
    "Call",
    "Cast",
    "Clause",
    "Comma",
    "Conditional",
    "Declaration",
    "Declarator",
    "Empty",
    "EnumSpec",
    "Enumerator",
    "Expr",
    "ExprStatement",
    "FunctionOf",
    "If",
    "IncDec",
    "Index",
    "Inline",
    "Integer",
    "Item",
    "Member",
    "MemberDecl",
    "Name",
    "Named",
    "Node",
    "Offsetof",
    "Param",
    "Params",
    "PointerTo",
    "ProbeText",
    "Provided",
    "Provider",
    "Scoped",
    "Script",
    "Sizeof",
    "SizeofType",
    "Specs",
    "Statement",
    "String",
    "Stringof",
    "StructSpec",
    "Symbol",
    "Translation",
    "Translator",
    "TypeName",
    "Unary",
    "Xlate",
    "chain",
    "children",
)

Scope = Literal["self", "this"]


@final
@record
class Integer:
    """An integer or character constant."""

    value: int
    type: IntType
    span: Span


@final
@record
class String:
    """A string constant; ``text`` is the bytes that it stands for."""

    text: bytes
    span: Span


@final
@record
class Name:
    """An identifier: a variable, or a function where it is called."""

    name: str
    span: Span


@final
@record
class Scoped:
    """``self->name`` or ``this->name``."""

    scope: Scope
    name: str
    span: Span


@final
@record
class Symbol:
    """A kernel symbol, with its backquote: ``mod`name``."""

    text: str
    span: Span


@final
@record
class AggRef:
    """``@name`` or ``@name[keys]``; ``name`` without the ``@``; ``keys`` None when there are no brackets."""

    name: str
    keys: tuple[Expr, ...] | None
    span: Span


@final
@record
class Unary:
    """``+ - ! ~ * &`` before an operand."""

    op: str
    operand: Expr
    span: Span


@final
@record
class IncDec:
    """``++``/``--``, before (``prefix``) or after its operand."""

    op: str
    operand: Expr
    prefix: bool
    span: Span


@final
@record
class Binary:
    """Two operands and an operator, ``&& || ^^`` included."""

    op: str
    left: Expr
    right: Expr
    span: Span


@final
@record
class Assign:
    """``=`` and its kin; ``op`` as written."""

    op: str
    target: Expr
    value: Expr
    span: Span


@final
@record
class Conditional:
    """``cond ? then : orelse``."""

    cond: Expr
    then: Expr
    orelse: Expr
    span: Span


@final
@record
class Comma:
    """``left, right``."""

    left: Expr
    right: Expr
    span: Span


@final
@record
class Cast:
    """``(type)operand``."""

    type: TypeName
    operand: Expr
    span: Span


@final
@record
class Sizeof:
    """``sizeof operand``."""

    operand: Expr
    span: Span


@final
@record
class SizeofType:
    """``sizeof (type)``."""

    type: TypeName
    span: Span


@final
@record
class Stringof:
    """``stringof operand``."""

    operand: Expr
    span: Span


@final
@record
class Offsetof:
    """``offsetof (type, member)``."""

    type: TypeName
    member: str
    span: Span


@final
@record
class Xlate:
    """``xlate <type> (operand)``."""

    type: TypeName
    operand: Expr
    span: Span


@final
@record
class Index:
    """``base[keys]``."""

    base: Expr
    keys: tuple[Expr, ...]
    span: Span


@final
@record
class Member:
    """``base.name`` or ``base->name``."""

    base: Expr
    name: str
    arrow: bool
    span: Span


@final
@record
class Call:
    """``function(args)``."""

    function: Expr
    args: tuple[Expr, ...]
    span: Span


Expr = (
    Integer
    | String
    | Name
    | Scoped
    | Symbol
    | AggRef
    | Unary
    | IncDec
    | Binary
    | Assign
    | Conditional
    | Comma
    | Cast
    | Sizeof
    | SizeofType
    | Stringof
    | Offsetof
    | Xlate
    | Index
    | Member
    | Call
)


@final
@record
class ExprStatement:
    """An expression for its effect."""

    value: Expr
    span: Span


@final
@record
class Empty:
    """A lone ``;``."""

    span: Span


@final
@record
class Block:
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
    span: Span


Statement = ExprStatement | Empty | Block | If


@final
@record
class ProbeText:
    """One probe description as written, macro variables replaced."""

    text: str
    span: Span


@final
@record
class Clause:
    """``probes /predicate/ { body }``; ``body`` is None for a bare probe description."""

    probes: tuple[ProbeText, ...]
    predicate: Expr | None
    body: Block | None
    span: Span


@final
@record
class Declaration:
    """``self int x;``, ``int a[string];``, ``typedef struct s { ... } s_t;``: no declarators for a type alone."""

    specs: Specs
    declarators: tuple[Declarator, ...]
    span: Span


@final
@record
class Inline:
    """``inline type name[params] = value;``."""

    specs: Specs
    declarator: Declarator
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
class Translator:
    """``translator target < source > { ... };``."""

    target: TypeName
    source: Param
    members: tuple[Translation, ...]
    span: Span


@final
@record
class Provided:
    """``probe name(args) [: (translated)];``."""

    name: str
    args: Params | None
    translated: Params | None
    span: Span


@final
@record
class Provider:
    """``provider name { ... };``."""

    name: str
    probes: tuple[Provided, ...]
    span: Span


Item = Clause | Declaration | Inline | Translator | Provider


@final
@record
class Script:
    """A whole program."""

    items: tuple[Item, ...]
    span: Span


Node = Expr | Statement | Clause


def chain(expr: Binary) -> tuple[Expr, list[Binary]]:
    """``a || b || c`` taken apart: its first operand, and the nodes that add the others, innermost first.

    Only ``||`` and ``&&`` make chains (a script made by a program may list a thousand process IDs); passes walk
    them in a loop, so that they do not count as nesting.
    """
    nodes = [expr]
    while expr.op in ("||", "&&") and isinstance(left := nodes[-1].left, Binary) and left.op == expr.op:
        nodes.append(left)
    return nodes[-1].left, nodes[::-1]


def children(node: Node) -> Iterator[Expr | Statement]:
    """The statements and expressions directly under a node, in the order written."""
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
        case Member():
            yield node.base
        case Call():
            yield node.function
            yield from node.args
        case AggRef():
            yield from node.keys or ()
        case ExprStatement():
            yield node.value
        case Block():
            yield from node.statements
        case If():
            yield node.cond
            yield node.then
            if node.orelse is not None:
                yield node.orelse
        case Clause():
            if node.predicate is not None:
                yield node.predicate
            if node.body is not None:
                yield node.body
        case Integer() | String() | Name() | Scoped() | Symbol() | SizeofType() | Offsetof() | Empty():
            return
