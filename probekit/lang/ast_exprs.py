"""Define the syntax tree's expressions. See :mod:`probekit.lang.ast`."""

from __future__ import annotations

from typing import Literal, final

from probekit.lang.ast_types import TypeName
from probekit.lang.source import Span
from probekit.lang.types import IntType
from probekit.records import record

__all__ = (
    "AggRef",
    "Assign",
    "Binary",
    "CallExpr",
    "Cast",
    "Comma",
    "Conditional",
    "Expr",
    "IncDec",
    "Index",
    "Integer",
    "MemberExpr",
    "Name",
    "Offsetof",
    "Scope",
    "Scoped",
    "Sizeof",
    "SizeofType",
    "String",
    "Stringof",
    "SymbolExpr",
    "Unary",
    "Xlate",
)

Scope = Literal["self", "this"]
"""Where ``self->x`` and ``this->x`` live: with the thread, or with the clause."""


@final
@record
class Integer:
    """An integer or character constant."""

    value: int
    type: IntType
    """The type that C gives the constant, from its value and suffix."""
    span: Span


@final
@record
class String:
    """A string constant."""

    text: bytes
    """The bytes that it stands for: escapes replaced, without quotes."""
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
class SymbolExpr:
    """A kernel symbol."""

    text: str
    """As written, with its backquote: ``mod`name`` or `` `name ``."""
    span: Span


@final
@record
class AggRef:
    """``@name`` or ``@name[keys]``."""

    name: str
    """Without the ``@``."""
    keys: tuple[Expr, ...] | None
    """None when there are no brackets."""
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
    """``++`` or ``--``."""

    op: str
    operand: Expr
    prefix: bool
    """It stands before its operand."""
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
    """``=`` or one of the compound assignments, such as ``+=``."""

    op: str
    """As written."""
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
    """One index, or the keys of an associative array."""
    span: Span


@final
@record
class MemberExpr:
    """``base.name`` or ``base->name``."""

    base: Expr
    name: str
    arrow: bool
    """It was written ``->``."""
    span: Span


@final
@record
class CallExpr:
    """``function(args)``."""

    function: Expr
    """What is called. Only a name can be; the checker refuses everything else."""
    args: tuple[Expr, ...]
    span: Span


Expr = (
    Integer
    | String
    | Name
    | Scoped
    | SymbolExpr
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
    | MemberExpr
    | CallExpr
)
