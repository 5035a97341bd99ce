"""Types as they are written: specifiers and declarators, the part of the tree that :mod:`probekit.lang.ast` ends in.

unsigned int *x[4]   ->  Specs(words=("unsigned", "int")), ArrayOf(PointerTo(Named("x")), 4)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, final

from probekit.lang.source import Span
from probekit.records import record

# Types hold expressions (the size of an array), and expressions hold types (a cast): the tree is one recursive datum
# in two files, and this is the only import circle of the package.
if TYPE_CHECKING:
    from probekit.lang.ast_exprs import Expr

__all__ = (
    "ArrayOf",
    "Declarator",
    "EnumSpec",
    "Enumerator",
    "FunctionOf",
    "MemberDecl",
    "Named",
    "Param",
    "Params",
    "PointerTo",
    "Specs",
    "StructSpec",
    "TypeName",
)


@final
@record
class StructSpec:
    """``struct tag`` (``members`` None) or ``struct [tag] { ... }``."""

    kind: Literal["struct", "union"]
    tag: str
    members: tuple[MemberDecl, ...] | None
    span: Span


@final
@record
class EnumSpec:
    """``enum tag`` (``values`` None) or ``enum [tag] { ... }``."""

    tag: str
    values: tuple[Enumerator, ...] | None
    span: Span


@final
@record
class Enumerator:
    """``name`` or ``name = value``."""

    name: str
    value: Expr | None
    span: Span


@final
@record
class Specs:
    """Declaration specifiers in the order written. ``storage``: ``typedef extern static ... self this``."""

    storage: tuple[str, ...]
    words: tuple[str, ...]
    tagged: tuple[StructSpec | EnumSpec, ...]
    span: Span


@final
@record
class Named:
    """The name in the middle of a declarator; ``scoped`` when it was written with a backquote."""

    name: str
    scoped: bool
    span: Span


@final
@record
class PointerTo:
    """``stars`` before a declarator; ``inner`` is what stands behind them, None in a type name."""

    stars: int
    inner: Declarator | None
    span: Span


@final
@record
class ArrayOf:
    """``inner[size]``, or ``inner[params]`` with the key types of an associative array."""

    inner: Declarator | None
    size: Expr | None
    params: Params | None
    span: Span


@final
@record
class FunctionOf:
    """``inner(params)``; ``params`` None for empty parentheses."""

    inner: Declarator | None
    params: Params | None
    span: Span


Declarator = Named | PointerTo | ArrayOf | FunctionOf


@final
@record
class Param:
    """One parameter, or the type of one key."""

    specs: Specs
    declarator: Declarator | None
    span: Span


@final
@record
class Params:
    """Parameters in order; ``variadic`` when they end in ``...``."""

    params: tuple[Param, ...]
    variadic: bool


@final
@record
class MemberDecl:
    """A member declaration: each declarator with its bit-field width, either may be missing."""

    specs: Specs
    members: tuple[tuple[Declarator | None, Expr | None], ...]
    span: Span


@final
@record
class TypeName:
    """A type as a cast or ``sizeof`` names it."""

    specs: Specs
    declarator: Declarator | None
    span: Span
