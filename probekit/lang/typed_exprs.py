"""Typed expressions."""

from __future__ import annotations

from typing import Literal, final

from probekit.lang.types import INT, MACHINE_POINTER, IntType, StringType, Type
from probekit.records import record

__all__ = (
    "Arg",
    "Arith",
    "ArithOp",
    "Bind",
    "Builtin",
    "Choose",
    "Compare",
    "CompareOp",
    "CompareText",
    "Const",
    "Convert",
    "ElemAddr",
    "ElemLoad",
    "ElemStore",
    "Invoke",
    "Load",
    "Logic",
    "MemBits",
    "MemCopy",
    "MemLoad",
    "MemStore",
    "MemText",
    "MemTextStore",
    "Sequence",
    "Slot",
    "Step",
    "Store",
    "Text",
    "TextAddr",
    "TypedExpr",
    "Var",
    "VarAddr",
    "VarScope",
)

ArithOp = Literal["add", "sub", "mul", "div", "rem", "and", "or", "xor", "shl", "shr"]
VarScope = Literal["global", "self", "local"]
CompareOp = Literal["eq", "ne", "lt", "le", "gt", "ge"]


@final
@record
class Var:
    """A variable of the program. ``scope``: ``self`` for ``self->``, ``local`` for ``this->``, else ``global``.

    ``keys``: the key types of an associative array, else None.
    """

    index: int
    name: str
    scope: VarScope
    type: Type
    keys: tuple[Type, ...] | None = None


@final
@record
class Const:
    """An integer constant, always within its type."""

    value: int
    type: IntType


@final
@record
class Text:
    """A string constant."""

    value: bytes
    type: StringType


@final
@record
class Builtin:
    """A built-in variable, by its IR name."""

    name: str
    type: IntType | StringType


@final
@record
class Arg:
    """``argN``."""

    index: int
    type: IntType


@final
@record
class Load:
    """A variable's value."""

    var: Var
    type: IntType | StringType


@final
@record
class VarAddr:
    """The address of a struct or array that is a variable."""

    var: Var
    type: IntType = MACHINE_POINTER


@final
@record
class ElemLoad:
    """The value of one element of an associative array."""

    var: Var
    keys: tuple[TypedExpr, ...]
    type: IntType | StringType


@final
@record
class ElemAddr:
    """The address of a struct or array that is an element; it is made when ``create`` and not there, else 0."""

    var: Var
    keys: tuple[TypedExpr, ...]
    create: bool
    type: IntType = MACHINE_POINTER


@final
@record
class ElemStore:
    """Assign to an element; 0 frees it. The value is what was stored."""

    var: Var
    keys: tuple[TypedExpr, ...]
    value: TypedExpr
    type: IntType | StringType


@final
@record
class MemLoad:
    """An integer out of memory."""

    addr: TypedExpr
    type: IntType


@final
@record
class MemStore:
    """An integer into memory; the value is what was stored."""

    addr: TypedExpr
    value: TypedExpr
    type: IntType


@final
@record
class MemBits:
    """Assign to ``bits`` bits from bit ``shift`` on of the integer at ``addr``; the value is what was stored."""

    addr: TypedExpr
    value: TypedExpr
    shift: int
    bits: int
    type: IntType


@final
@record
class MemText:
    """The string at an address, of at most ``limit`` bytes; ``limit`` 0: as long as strings may be."""

    addr: TypedExpr
    limit: int
    type: StringType


@final
@record
class MemTextStore:
    """Write a string and its NUL, within ``size`` bytes; the value is what was stored."""

    addr: TypedExpr
    value: TypedExpr
    size: int
    type: StringType


@final
@record
class MemCopy:
    """Copy ``size`` bytes; the value is the destination's address."""

    target: TypedExpr
    source: TypedExpr
    size: int
    type: IntType = MACHINE_POINTER


@final
@record
class TextAddr:
    """The address of a copy of a string in scratch memory."""

    value: TypedExpr
    type: IntType = MACHINE_POINTER


@final
@record
class Invoke:
    """A subroutine. ``type`` None: it has no value."""

    name: str
    args: tuple[TypedExpr, ...]
    type: IntType | StringType


@final
@record
class Slot:
    """What a :class:`Bind` around it has worked out."""

    number: int
    type: IntType | StringType


@final
@record
class Bind:
    """Work out ``value`` once, then ``body``, which has it as slot ``number``."""

    number: int
    value: TypedExpr
    body: TypedExpr
    type: IntType | StringType


@final
@record
class Arith:
    """Arithmetic in ``type``; both operands have it already (a shift's right one has its own)."""

    op: ArithOp
    left: TypedExpr
    right: TypedExpr
    type: IntType


@final
@record
class Compare:
    """An integer comparison; both operands have one type, of signedness ``signed``."""

    op: CompareOp
    left: TypedExpr
    right: TypedExpr
    signed: bool
    type: IntType = INT


@final
@record
class CompareText:
    """A string comparison."""

    op: CompareOp
    left: TypedExpr
    right: TypedExpr
    type: IntType = INT


@final
@record
class Logic:
    """``&&`` or ``||``: the right operand runs only when it decides."""

    op: Literal["and", "or"]
    left: TypedExpr
    right: TypedExpr
    type: IntType = INT


@final
@record
class Convert:
    """An integer converted to ``type``."""

    operand: TypedExpr
    type: IntType


@final
@record
class Choose:
    """``cond ? then : orelse``."""

    cond: TypedExpr
    then: TypedExpr
    orelse: TypedExpr
    type: IntType | StringType


@final
@record
class Sequence:
    """``first, second``."""

    first: TypedExpr
    second: TypedExpr
    type: IntType | StringType


@final
@record
class Store:
    """Assign to a variable; the value is what was stored."""

    var: Var
    value: TypedExpr
    type: IntType | StringType


@final
@record
class Step:
    """``++``/``--``: add ``delta``; the value is the new one (``prefix``) or the old one."""

    var: Var
    delta: int
    prefix: bool
    type: IntType


TypedExpr = (
    Const
    | Text
    | Builtin
    | Arg
    | Load
    | VarAddr
    | ElemLoad
    | ElemAddr
    | ElemStore
    | MemLoad
    | MemStore
    | MemBits
    | MemText
    | MemTextStore
    | MemCopy
    | TextAddr
    | Invoke
    | Slot
    | Bind
    | Arith
    | Compare
    | CompareText
    | Logic
    | Convert
    | Choose
    | Sequence
    | Store
    | Step
)
