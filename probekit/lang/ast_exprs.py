"""Expressions."""

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
    "Call",
    "Cast",
    "Comma",
    "Conditional",
    "Expr",
    "IncDec",
    "Index",
    "Integer",
    "Member",
    "Name",
    "Offsetof",
    "Scope",
    "Scoped",
    "Sizeof",
    "SizeofType",
    "String",
    "Stringof",
    "Symbol",
    "Unary",
    "Xlate",
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
