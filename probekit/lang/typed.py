"""Define the checked program: names resolved, every conversion explicit, every type known.

    pid + 'a'  (pid is pid_t)   ->  Arith("add", ReadBuiltin("pid"), Const(97), type=int)
    arg0 == 1                   ->  Compare("eq", ReadArg(0), Convert(Const(1), int64_t), signed=True)
    this->p->count++            ->  a MemLoad and a MemStore at an address that a Bind evaluates once

It holds what lowering (:mod:`probekit.ir.build`) needs and nothing else; the syntax tree stays untouched. A value
is an integer (pointers and enumerations too) or a string; a struct or array is the integer that is its address.
Expressions lie in :mod:`probekit.lang.typed_exprs` and are used by their names here.
"""

from __future__ import annotations

from typing import final

from probekit.buffers.actions import FieldKind
from probekit.buffers.aggs import AggPlan
from probekit.buffers.formats import Format
from probekit.buffers.print_types import PrintType
from probekit.lang.scan import Option
from probekit.lang.source import Span
from probekit.lang.typed_exprs import (
    AddressOfElement,
    AddressOfVariable,
    Arith,
    ArithOp,
    Bind,
    BitFieldStore,
    BoundValue,
    Choose,
    Compare,
    CompareOp,
    CompareStrings,
    Const,
    Convert,
    ElemLoad,
    ElemStore,
    Increment,
    Load,
    Logic,
    MemCopy,
    MemLoad,
    MemStore,
    ReadArg,
    ReadBuiltin,
    Sequence,
    Store,
    StringConst,
    StringLoad,
    StringStore,
    StringToScratch,
    SubroutineCall,
    TypedExpr,
    Var,
    VarScope,
)
from probekit.lang.types import STRING_SIZE
from probekit.probe.names import ProbeDescription
from probekit.records import record

__all__ = (
    "ActionCall",
    "AddressOfElement",
    "AddressOfVariable",
    "AggregationUpdate",
    "Arith",
    "ArithOp",
    "Bind",
    "BitFieldStore",
    "BoundValue",
    "CheckedClause",
    "CheckedProgram",
    "Choose",
    "Compare",
    "CompareOp",
    "CompareStrings",
    "Const",
    "Convert",
    "ElemLoad",
    "ElemStore",
    "Evaluate",
    "IfElse",
    "Increment",
    "Load",
    "Logic",
    "MemCopy",
    "MemLoad",
    "MemStore",
    "ReadArg",
    "ReadBuiltin",
    "RecordedValue",
    "Sequence",
    "Store",
    "StringConst",
    "StringLoad",
    "StringStore",
    "StringToScratch",
    "SubroutineCall",
    "TypedExpr",
    "TypedStatement",
    "Var",
    "VarScope",
)


@final
@record
class Evaluate:
    """Evaluate an expression for its effect."""

    value: TypedExpr


@final
@record
class RecordedValue:
    """One field of a record."""

    value: TypedExpr
    """What is recorded. For ``kind`` ``bytes`` it is the address of ``size`` bytes."""
    kind: FieldKind
    """How the record's reader decodes it."""
    size: int
    """Bytes in the record; 0 for a string that the probe alone decides."""
    detail: str = ""
    """The built-in variable of ``kind`` ``probe``, or the function, such as ``sym``, that shows an address."""


@final
@record
class ActionCall:
    """An action."""

    action: str
    """Its name in D."""
    items: tuple[RecordedValue, ...] = ()
    """What it records."""
    format: Format | None = None
    aggs: tuple[int, ...] = ()
    """The aggregations that it names, by number."""
    shape: PrintType | None = None
    """How ``print()`` shows its item."""
    records: bool = True
    """False when the action by itself prints nothing, such as ``stop()``."""


@final
@record
class AggregationUpdate:
    """``@agg[keys] = function(value)``."""

    agg: int
    """The aggregation, by number."""
    keys: tuple[TypedExpr, ...]
    value: TypedExpr | None
    """None for ``count()``."""
    weight: TypedExpr | None = None
    """The increment of a quantizing function; None for 1."""


@final
@record
class IfElse:
    """``if``. After ``split_clauses`` nothing inside it records data."""

    cond: TypedExpr
    then: tuple[TypedStatement, ...]
    orelse: tuple[TypedStatement, ...]


TypedStatement = Evaluate | ActionCall | AggregationUpdate | IfElse


@final
@record
class CheckedClause:
    """One clause."""

    probes: tuple[ProbeDescription, ...]
    predicate: TypedExpr | None
    statements: tuple[TypedStatement, ...]
    default: bool
    """The body is empty, so that each firing prints the probe's line."""
    span: Span


@final
@record
class CheckedProgram:
    """What lowering starts from."""

    clauses: tuple[CheckedClause, ...]
    variables: tuple[Var, ...]
    aggregations: tuple[AggPlan, ...]
    options: tuple[Option, ...]
    string_size: int = STRING_SIZE
    """Bytes of a ``string``, with its NUL (the option ``strsize``)."""
