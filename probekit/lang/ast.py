"""The syntax tree: what was written, nothing resolved. Closed unions of frozen nodes.

    x = pid + 1     ->  Assign("=", Name("x"), Binary("+", Name("pid"), Integer(1)))

Every node ends with its ``span``. Passes keep their results beside the tree
(``typed``), never in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, final

from probekit.lang.source import Span
from probekit.lang.types import IntType

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
@dataclass(frozen=True, slots=True)
class StructSpec:
    """``struct tag`` (``members`` None) or ``struct [tag] { ... }``."""

    kind: Literal["struct", "union"]
    tag: str
    members: tuple[MemberDecl, ...] | None
    span: Span


@final
@dataclass(frozen=True, slots=True)
class EnumSpec:
    """``enum tag`` (``values`` None) or ``enum [tag] { ... }``."""

    tag: str
    values: tuple[Enumerator, ...] | None
    span: Span


@final
@dataclass(frozen=True, slots=True)
class Enumerator:
    """``name`` or ``name = value``."""

    name: str
    value: Expr | None
    span: Span


@final
@dataclass(frozen=True, slots=True)
class Specs:
    """Declaration specifiers in the order written. ``storage``: ``typedef extern static ... self this``."""

    storage: tuple[str, ...]
    words: tuple[str, ...]
    tagged: tuple[StructSpec | EnumSpec, ...]
    span: Span


@final
@dataclass(frozen=True, slots=True)
class Named:
    """The name in the middle of a declarator; ``scoped`` when it was written with a backquote."""

    name: str
    scoped: bool
    span: Span


@final
@dataclass(frozen=True, slots=True)
class PointerTo:
    """``stars`` before a declarator; ``inner`` is what stands behind them, None in a type name."""

    stars: int
    inner: Declarator | None
    span: Span


@final
@dataclass(frozen=True, slots=True)
class ArrayOf:
    """``inner[size]``, or ``inner[params]`` with the key types of an associative array."""

    inner: Declarator | None
    size: Expr | None
    params: Params | None
    span: Span


@final
@dataclass(frozen=True, slots=True)
class FunctionOf:
    """``inner(params)``; ``params`` None for empty parentheses."""

    inner: Declarator | None
    params: Params | None
    span: Span


Declarator = Named | PointerTo | ArrayOf | FunctionOf


@final
@dataclass(frozen=True, slots=True)
class Param:
    """One parameter, or the type of one key."""

    specs: Specs
    declarator: Declarator | None
    span: Span


@final
@dataclass(frozen=True, slots=True)
class Params:
    """Parameters in order; ``variadic`` when they end in ``...``."""

    params: tuple[Param, ...]
    variadic: bool


@final
@dataclass(frozen=True, slots=True)
class MemberDecl:
    """A member declaration: each declarator with its bit-field width, either may be missing."""

    specs: Specs
    members: tuple[tuple[Declarator | None, Expr | None], ...]
    span: Span


@final
@dataclass(frozen=True, slots=True)
class TypeName:
    """A type as a cast or ``sizeof`` names it."""

    specs: Specs
    declarator: Declarator | None
    span: Span


@final
@dataclass(frozen=True, slots=True)
class Integer:
    """An integer or character constant."""

    value: int
    type: IntType
    span: Span


@final
@dataclass(frozen=True, slots=True)
class String:
    """A string constant; ``text`` is the bytes that it stands for."""

    text: bytes
    span: Span


@final
@dataclass(frozen=True, slots=True)
class Name:
    """An identifier: a variable, or a function where it is called."""

    name: str
    span: Span


@final
@dataclass(frozen=True, slots=True)
class Scoped:
    """``self->name`` or ``this->name``."""

    scope: Scope
    name: str
    span: Span


@final
@dataclass(frozen=True, slots=True)
class Symbol:
    """A kernel symbol, with its backquote: ``mod`name``."""

    text: str
    span: Span


@final
@dataclass(frozen=True, slots=True)
class AggRef:
    """``@name`` or ``@name[keys]``; ``name`` without the ``@``; ``keys`` None when there are no brackets."""

    name: str
    keys: tuple[Expr, ...] | None
    span: Span


@final
@dataclass(frozen=True, slots=True)
class Unary:
    """``+ - ! ~ * &`` before an operand."""

    op: str
    operand: Expr
    span: Span


@final
@dataclass(frozen=True, slots=True)
class IncDec:
    """``++``/``--``, before (``prefix``) or after its operand."""

    op: str
    operand: Expr
    prefix: bool
    span: Span


@final
@dataclass(frozen=True, slots=True)
class Binary:
    """Two operands and an operator, ``&& || ^^`` included."""

    op: str
    left: Expr
    right: Expr
    span: Span


@final
@dataclass(frozen=True, slots=True)
class Assign:
    """``=`` and its kin; ``op`` as written."""

    op: str
    target: Expr
    value: Expr
    span: Span


@final
@dataclass(frozen=True, slots=True)
class Conditional:
    """``cond ? then : orelse``."""

    cond: Expr
    then: Expr
    orelse: Expr
    span: Span


@final
@dataclass(frozen=True, slots=True)
class Comma:
    """``left, right``."""

    left: Expr
    right: Expr
    span: Span


@final
@dataclass(frozen=True, slots=True)
class Cast:
    """``(type)operand``."""

    type: TypeName
    operand: Expr
    span: Span


@final
@dataclass(frozen=True, slots=True)
class Sizeof:
    """``sizeof operand``."""

    operand: Expr
    span: Span


@final
@dataclass(frozen=True, slots=True)
class SizeofType:
    """``sizeof (type)``."""

    type: TypeName
    span: Span


@final
@dataclass(frozen=True, slots=True)
class Stringof:
    """``stringof operand``."""

    operand: Expr
    span: Span


@final
@dataclass(frozen=True, slots=True)
class Offsetof:
    """``offsetof (type, member)``."""

    type: TypeName
    member: str
    span: Span


@final
@dataclass(frozen=True, slots=True)
class Xlate:
    """``xlate <type> (operand)``."""

    type: TypeName
    operand: Expr
    span: Span


@final
@dataclass(frozen=True, slots=True)
class Index:
    """``base[keys]``."""

    base: Expr
    keys: tuple[Expr, ...]
    span: Span


@final
@dataclass(frozen=True, slots=True)
class Member:
    """``base.name`` or ``base->name``."""

    base: Expr
    name: str
    arrow: bool
    span: Span


@final
@dataclass(frozen=True, slots=True)
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
@dataclass(frozen=True, slots=True)
class ExprStatement:
    """An expression for its effect."""

    value: Expr
    span: Span


@final
@dataclass(frozen=True, slots=True)
class Empty:
    """A lone ``;``."""

    span: Span


@final
@dataclass(frozen=True, slots=True)
class Block:
    """``{ ... }``."""

    statements: tuple[Statement, ...]
    span: Span


@final
@dataclass(frozen=True, slots=True)
class If:
    """``if (cond) then else orelse``."""

    cond: Expr
    then: Statement
    orelse: Statement | None
    span: Span


Statement = ExprStatement | Empty | Block | If


@final
@dataclass(frozen=True, slots=True)
class ProbeText:
    """One probe description as written, macro variables replaced."""

    text: str
    span: Span


@final
@dataclass(frozen=True, slots=True)
class Clause:
    """``probes /predicate/ { body }``; ``body`` is None for a bare probe description."""

    probes: tuple[ProbeText, ...]
    predicate: Expr | None
    body: Block | None
    span: Span


@final
@dataclass(frozen=True, slots=True)
class Declaration:
    """``self int x;``, ``int a[string];``, ``typedef struct s { ... } s_t;``: no declarators for a type alone."""

    specs: Specs
    declarators: tuple[Declarator, ...]
    span: Span


@final
@dataclass(frozen=True, slots=True)
class Inline:
    """``inline type name[params] = value;``."""

    specs: Specs
    declarator: Declarator
    value: Expr
    span: Span


@final
@dataclass(frozen=True, slots=True)
class Translation:
    """``member = value;`` of a translator."""

    member: str
    value: Expr
    span: Span


@final
@dataclass(frozen=True, slots=True)
class Translator:
    """``translator target < source > { ... };``."""

    target: TypeName
    source: Param
    members: tuple[Translation, ...]
    span: Span


@final
@dataclass(frozen=True, slots=True)
class Provided:
    """``probe name(args) [: (translated)];``."""

    name: str
    args: Params | None
    translated: Params | None
    span: Span


@final
@dataclass(frozen=True, slots=True)
class Provider:
    """``provider name { ... };``."""

    name: str
    probes: tuple[Provided, ...]
    span: Span


Item = Clause | Declaration | Inline | Translator | Provider


@final
@dataclass(frozen=True, slots=True)
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
