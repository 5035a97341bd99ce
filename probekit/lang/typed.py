"""The checked program: names resolved, every conversion explicit, every type known.

    pid + 'a'  (pid is pid_t)   ->  Arith("add", Builtin("pid"), Const(97), type=int)
    arg0 == 1                   ->  Compare("eq", Arg(0), Convert(Const(1), int64_t), signed=True)

What lowering needs is here and nothing else; the syntax tree stays untouched.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

from probekit.buffers.aggs import AggPlan
from probekit.buffers.formats import Format
from probekit.lang.scan import Option
from probekit.lang.source import Span
from probekit.lang.types import INT, IntType, StringType
from probekit.probe.names import ProbeDescription

__all__ = (
    "Aggregate",
    "Arg",
    "Arith",
    "ArithOp",
    "Builtin",
    "CheckedClause",
    "CheckedProgram",
    "Choose",
    "Compare",
    "CompareOp",
    "CompareText",
    "Const",
    "Convert",
    "Do",
    "Exit",
    "IfElse",
    "Load",
    "Logic",
    "Printf",
    "Sequence",
    "Step",
    "Store",
    "Text",
    "Trace",
    "TypedExpr",
    "TypedStatement",
    "Var",
    "VarScope",
)

ArithOp = Literal["add", "sub", "mul", "div", "rem", "and", "or", "xor", "shl", "shr"]
VarScope = Literal["global", "local"]
CompareOp = Literal["eq", "ne", "lt", "le", "gt", "ge"]


@final
@dataclass(frozen=True, slots=True)
class Var:
    """A variable of the program. ``scope``: ``global``, or ``local`` for ``this->``."""

    index: int
    name: str
    scope: VarScope
    type: IntType


@final
@dataclass(frozen=True, slots=True)
class Const:
    """An integer constant, always within its type."""

    value: int
    type: IntType


@final
@dataclass(frozen=True, slots=True)
class Text:
    """A string constant."""

    value: bytes
    type: StringType


@final
@dataclass(frozen=True, slots=True)
class Builtin:
    """A built-in variable, by its IR name."""

    name: str
    type: IntType | StringType


@final
@dataclass(frozen=True, slots=True)
class Arg:
    """``argN``."""

    index: int
    type: IntType


@final
@dataclass(frozen=True, slots=True)
class Load:
    """A variable's value."""

    var: Var
    type: IntType


@final
@dataclass(frozen=True, slots=True)
class Arith:
    """Arithmetic in ``type``; both operands have it already (a shift's right one has its own)."""

    op: ArithOp
    left: TypedExpr
    right: TypedExpr
    type: IntType


@final
@dataclass(frozen=True, slots=True)
class Compare:
    """An integer comparison; both operands have one type, of signedness ``signed``."""

    op: CompareOp
    left: TypedExpr
    right: TypedExpr
    signed: bool
    type: IntType = INT


@final
@dataclass(frozen=True, slots=True)
class CompareText:
    """A string comparison."""

    op: CompareOp
    left: TypedExpr
    right: TypedExpr
    type: IntType = INT


@final
@dataclass(frozen=True, slots=True)
class Logic:
    """``&&`` or ``||``: the right operand runs only when it decides."""

    op: Literal["and", "or"]
    left: TypedExpr
    right: TypedExpr
    type: IntType = INT


@final
@dataclass(frozen=True, slots=True)
class Convert:
    """An integer converted to ``type``."""

    operand: TypedExpr
    type: IntType


@final
@dataclass(frozen=True, slots=True)
class Choose:
    """``cond ? then : orelse``."""

    cond: TypedExpr
    then: TypedExpr
    orelse: TypedExpr
    type: IntType | StringType


@final
@dataclass(frozen=True, slots=True)
class Sequence:
    """``first, second``."""

    first: TypedExpr
    second: TypedExpr
    type: IntType | StringType


@final
@dataclass(frozen=True, slots=True)
class Store:
    """Assign to a variable; the value is what was stored."""

    var: Var
    value: TypedExpr
    type: IntType


@final
@dataclass(frozen=True, slots=True)
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


@final
@dataclass(frozen=True, slots=True)
class Do:
    """Evaluate for the effect."""

    value: TypedExpr


@final
@dataclass(frozen=True, slots=True)
class Trace:
    """``trace(value)``."""

    value: TypedExpr


@final
@dataclass(frozen=True, slots=True)
class Printf:
    """``printf(format, args)``."""

    format: Format
    args: tuple[TypedExpr, ...]


@final
@dataclass(frozen=True, slots=True)
class Exit:
    """``exit(status)``; the status is an ``int``."""

    status: TypedExpr


@final
@dataclass(frozen=True, slots=True)
class Aggregate:
    """``@agg[keys] = function(value)``."""

    agg: int
    keys: tuple[TypedExpr, ...]
    value: TypedExpr | None


@final
@dataclass(frozen=True, slots=True)
class IfElse:
    """``if``; once ``split`` has run, nothing in it records data."""

    cond: TypedExpr
    then: tuple[TypedStatement, ...]
    orelse: tuple[TypedStatement, ...]


TypedStatement = Do | Trace | Printf | Exit | Aggregate | IfElse


@final
@dataclass(frozen=True, slots=True)
class CheckedClause:
    """One clause. ``default``: its body is empty, so firing shows the probe's line."""

    probes: tuple[ProbeDescription, ...]
    predicate: TypedExpr | None
    statements: tuple[TypedStatement, ...]
    default: bool
    span: Span


@final
@dataclass(frozen=True, slots=True)
class CheckedProgram:
    """What lowering starts from."""

    clauses: tuple[CheckedClause, ...]
    variables: tuple[Var, ...]
    aggregations: tuple[AggPlan, ...]
    options: tuple[Option, ...]
