"""The checked program: names resolved, every conversion explicit, every type known.

    pid + 'a'  (pid is pid_t)   ->  Arith("add", Builtin("pid"), Const(97), type=int)
    arg0 == 1                   ->  Compare("eq", Arg(0), Convert(Const(1), int64_t), signed=True)
    this->p->count++            ->  a MemLoad and a MemStore at an address that a Bind has worked out once

What lowering needs is here and nothing else; the syntax tree stays untouched. A value
is an integer (pointers and enumerations too) or a string; a struct or array is the
integer that is its address.
"""

from __future__ import annotations

from typing import final

from probekit.buffers.actions import FieldKind, PrintType
from probekit.buffers.aggs import AggPlan
from probekit.buffers.formats import Format
from probekit.lang.scan import Option
from probekit.lang.source import Span
from probekit.lang.typed_exprs import (
    Arg,
    Arith,
    ArithOp,
    Bind,
    Builtin,
    Choose,
    Compare,
    CompareOp,
    CompareText,
    Const,
    Convert,
    ElemAddr,
    ElemLoad,
    ElemStore,
    Invoke,
    Load,
    Logic,
    MemBits,
    MemCopy,
    MemLoad,
    MemStore,
    MemText,
    MemTextStore,
    Sequence,
    Slot,
    Step,
    Store,
    Text,
    TextAddr,
    TypedExpr,
    Var,
    VarAddr,
    VarScope,
)
from probekit.lang.types import STRING_SIZE
from probekit.probe.names import ProbeDescription
from probekit.records import record

__all__ = (
    "Act",
    "Aggregate",
    "Arg",
    "Arith",
    "ArithOp",
    "Bind",
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
    "ElemAddr",
    "ElemLoad",
    "ElemStore",
    "IfElse",
    "Invoke",
    "Item",
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
    "TypedStatement",
    "Var",
    "VarAddr",
    "VarScope",
)


@final
@record
class Do:
    """Evaluate for the effect."""

    value: TypedExpr


@final
@record
class Item:
    """One field of a record. ``kind`` ``bytes``: ``value`` is the address of ``size`` bytes."""

    value: TypedExpr
    kind: FieldKind
    size: int
    detail: str = ""


@final
@record
class Act:
    """An action: ``action`` is its name in D, ``items`` what it records, ``aggs`` the aggregations that it names.

    ``records``: False for one whose firing shows nothing by itself.
    """

    action: str
    items: tuple[Item, ...] = ()
    format: Format | None = None
    aggs: tuple[int, ...] = ()
    shape: PrintType | None = None
    records: bool = True


@final
@record
class Aggregate:
    """``@agg[keys] = function(value)``; ``weight``: the increment of a quantizing one, None for 1."""

    agg: int
    keys: tuple[TypedExpr, ...]
    value: TypedExpr | None
    weight: TypedExpr | None = None


@final
@record
class IfElse:
    """``if``; once ``split`` has run, nothing in it records data."""

    cond: TypedExpr
    then: tuple[TypedStatement, ...]
    orelse: tuple[TypedStatement, ...]


TypedStatement = Do | Act | Aggregate | IfElse


@final
@record
class CheckedClause:
    """One clause. ``default``: its body is empty, so firing shows the probe's line."""

    probes: tuple[ProbeDescription, ...]
    predicate: TypedExpr | None
    statements: tuple[TypedStatement, ...]
    default: bool
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
