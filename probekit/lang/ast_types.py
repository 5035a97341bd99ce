"""Define the syntax tree's types, as they are written: specifiers and declarators. See :mod:`probekit.lang.ast`.

unsigned int *x[4]   ->  Specs(words=("unsigned", "int")), ArrayOf(PointerTo(Named("x")), 4)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, final

from probekit.lang.source import Span
from probekit.records import record

# Types hold expressions (the size of an array), and expressions hold types (a cast). The tree is one recursive datum
# in two files; this is the only import circle of the package.
if TYPE_CHECKING:
    from probekit.lang.ast_exprs import Expr

__all__ = (
    "ArrayOf",
    "Declarator",
    "EnumSpec",
    "EnumeratorDecl",
    "FunctionOf",
    "MemberDecl",
    "Named",
    "ParamDecl",
    "Params",
    "PointerTo",
    "Specs",
    "StructSpec",
    "TypeName",
)


@final
@record
class StructSpec:
    """``struct tag`` or ``struct [tag] { ... }``."""

    kind: Literal["struct", "union"]
    tag: str
    """Empty for an anonymous one."""
    members: tuple[MemberDecl, ...] | None
    """None for a tag alone."""
    span: Span


@final
@record
class EnumSpec:
    """``enum tag`` or ``enum [tag] { ... }``."""

    tag: str
    """Empty for an anonymous one."""
    values: tuple[EnumeratorDecl, ...] | None
    """None for a tag alone."""
    span: Span


@final
@record
class EnumeratorDecl:
    """``name`` or ``name = value``."""

    name: str
    value: Expr | None
    """None: one more than the enumerator before it."""
    span: Span


@final
@record
class Specs:
    """Declaration specifiers, in the order written."""

    storage: tuple[str, ...]
    """``typedef``, ``extern``, ``static``, ``auto``, ``register``, ``self``, ``this``."""
    words: tuple[str, ...]
    """Type names and qualifiers: ``unsigned``, ``int``, ``const``, a typedef's name."""
    tagged: tuple[StructSpec | EnumSpec, ...]
    """Structs, unions and enumerations. More than one is an error that the checker reports."""
    span: Span


@final
@record
class Named:
    """The name in the middle of a declarator."""

    name: str
    scoped: bool
    """It was written with a backquote."""
    span: Span


@final
@record
class PointerTo:
    """Stars before a declarator."""

    stars: int
    """Levels of pointer."""
    inner: Declarator | None
    """The declarator after the stars; None in a type name."""
    span: Span


@final
@record
class ArrayOf:
    """``inner[size]``, or ``inner[params]`` with the key types of an associative array."""

    inner: Declarator | None
    size: Expr | None
    """None for empty brackets, and for an associative array."""
    params: Params | None
    """The key types of an associative array, else None."""
    span: Span


@final
@record
class FunctionOf:
    """``inner(params)``."""

    inner: Declarator | None
    params: Params | None
    """None for empty parentheses."""
    span: Span


Declarator = Named | PointerTo | ArrayOf | FunctionOf


@final
@record
class ParamDecl:
    """One parameter, or the type of one key."""

    specs: Specs
    declarator: Declarator | None
    span: Span


@final
@record
class Params:
    """Parameters, in order."""

    params: tuple[ParamDecl, ...]
    variadic: bool
    """They end in ``...``."""


@final
@record
class MemberDecl:
    """One member declaration: ``unsigned a:3, b;``."""

    specs: Specs
    members: tuple[tuple[Declarator | None, Expr | None], ...]
    """Each declarator with the width of its bit-field. Either may be None: ``int :3;``, ``int a;``."""
    span: Span


@final
@record
class TypeName:
    """A type as a cast or ``sizeof`` names it."""

    specs: Specs
    declarator: Declarator | None
    """None when there are only specifiers."""
    span: Span
