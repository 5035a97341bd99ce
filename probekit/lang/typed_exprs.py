"""Define the checked program's expressions. See :mod:`probekit.lang.typed`.

The last field, ``type``, is the type of the value. An assignment's value is what was stored.
"""

from __future__ import annotations

from typing import Literal, final

from probekit.lang.types import INT, MACHINE_POINTER, IntType, StringType, Type
from probekit.records import record

__all__ = (
    "AddressOfElement",
    "AddressOfVariable",
    "Arith",
    "ArithOp",
    "Bind",
    "BitFieldStore",
    "BoundValue",
    "Choose",
    "Compare",
    "CompareOp",
    "CompareStrings",
    "Const",
    "Convert",
    "ElemLoad",
    "ElemStore",
    "Increment",
    "Load",
    "Logic",
    "MemCopy",
    "MemLoad",
    "MemStore",
    "ReadArg",
    "ReadBuiltin",
    "Sequence",
    "Store",
    "StringConst",
    "StringLoad",
    "StringStore",
    "StringToScratch",
    "SubroutineCall",
    "TypedExpr",
    "Var",
    "VarScope",
)

ArithOp = Literal["add", "sub", "mul", "div", "rem", "and", "or", "xor", "shl", "shr"]
VarScope = Literal["global", "self", "local"]
"""``self`` is ``self->``, ``local`` is ``this->``."""
CompareOp = Literal["eq", "ne", "lt", "le", "gt", "ge"]


@final
@record
class Var:
    """A variable of the program."""

    index: int
    """Its number in :attr:`probekit.lang.typed.CheckedProgram.variables`."""
    name: str
    scope: VarScope
    type: Type
    keys: tuple[Type, ...] | None = None
    """The key types of an associative array, else None."""


@final
@record
class Const:
    """An integer constant, always within its type."""

    value: int
    type: IntType


@final
@record
class StringConst:
    """A string constant."""

    value: bytes
    type: StringType


@final
@record
class ReadBuiltin:
    """A built-in variable, by its IR name."""

    name: str
    """Its name in the IR (:data:`probekit.ir.names.BUILTINS`)."""
    type: IntType | StringType


@final
@record
class ReadArg:
    """``arg0`` ... ``arg9``, by number."""

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
class AddressOfVariable:
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
class AddressOfElement:
    """The address of a struct or array that is an element of an associative array."""

    var: Var
    keys: tuple[TypedExpr, ...]
    create: bool
    """Make an element that is not there yet; otherwise its address is 0."""
    type: IntType = MACHINE_POINTER


@final
@record
class ElemStore:
    """Assign to an element of an associative array. Storing 0 frees it."""

    var: Var
    keys: tuple[TypedExpr, ...]
    value: TypedExpr
    type: IntType | StringType


@final
@record
class MemLoad:
    """Load an integer from memory."""

    addr: TypedExpr
    type: IntType


@final
@record
class MemStore:
    """Store an integer in memory."""

    addr: TypedExpr
    value: TypedExpr
    type: IntType


@final
@record
class BitFieldStore:
    """Assign to a bit-field."""

    addr: TypedExpr
    """The address of the integer that holds it."""
    value: TypedExpr
    shift: int
    """Its first bit in that integer."""
    bits: int
    type: IntType
    """The type of that integer."""


@final
@record
class StringLoad:
    """The string at an address."""

    addr: TypedExpr
    limit: int
    """The most bytes of it; 0 for as many as a ``string`` may have."""
    type: StringType


@final
@record
class StringStore:
    """Write a string and its NUL to memory."""

    addr: TypedExpr
    value: TypedExpr
    size: int
    """Bytes available at ``addr``."""
    type: StringType


@final
@record
class MemCopy:
    """Copy bytes; the value is the destination's address."""

    target: TypedExpr
    """The destination's address."""
    source: TypedExpr
    """The source's address."""
    size: int
    type: IntType = MACHINE_POINTER


@final
@record
class StringToScratch:
    """Copy a string to scratch memory; the value is the copy's address."""

    value: TypedExpr
    type: IntType = MACHINE_POINTER


@final
@record
class SubroutineCall:
    """Call a subroutine."""

    name: str
    args: tuple[TypedExpr, ...]
    type: IntType | StringType


@final
@record
class BoundValue:
    """The value of a :class:`Bind` around it."""

    number: int
    type: IntType | StringType


@final
@record
class Bind:
    """Evaluate ``value`` once, then ``body``, which uses it as slot ``number``."""

    number: int
    value: TypedExpr
    body: TypedExpr
    type: IntType | StringType


@final
@record
class Arith:
    """Arithmetic in ``type``. Both operands have that type already, except a shift count, which has its own."""

    op: ArithOp
    left: TypedExpr
    right: TypedExpr
    type: IntType


@final
@record
class Compare:
    """Compare two integers of one type."""

    op: CompareOp
    left: TypedExpr
    right: TypedExpr
    signed: bool
    """The operands' type is signed."""
    type: IntType = INT


@final
@record
class CompareStrings:
    """Compare two strings."""

    op: CompareOp
    left: TypedExpr
    right: TypedExpr
    type: IntType = INT


@final
@record
class Logic:
    """``&&`` or ``||``. The right operand is evaluated only when the left one does not decide."""

    op: Literal["and", "or"]
    left: TypedExpr
    right: TypedExpr
    type: IntType = INT


@final
@record
class Convert:
    """Convert an integer to ``type``."""

    operand: TypedExpr
    type: IntType


@final
@record
class Choose:
    """``cond ? then : orelse``. Only one of the two is evaluated."""

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
    """Assign to a variable."""

    var: Var
    value: TypedExpr
    type: IntType | StringType


@final
@record
class Increment:
    """``++`` or ``--``."""

    var: Var
    delta: int
    """What is added: 1 or -1, times the size of what a pointer points at."""
    prefix: bool
    """The value is the new one; otherwise the old one."""
    type: IntType


TypedExpr = (
    Const
    | StringConst
    | ReadBuiltin
    | ReadArg
    | Load
    | AddressOfVariable
    | ElemLoad
    | AddressOfElement
    | ElemStore
    | MemLoad
    | MemStore
    | BitFieldStore
    | StringLoad
    | StringStore
    | MemCopy
    | StringToScratch
    | SubroutineCall
    | BoundValue
    | Bind
    | Arith
    | Compare
    | CompareStrings
    | Logic
    | Convert
    | Choose
    | Sequence
    | Store
    | Increment
)
