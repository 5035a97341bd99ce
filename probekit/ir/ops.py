"""Define the operations of the IR: flat, final, frozen. No operation has a subclass, so ``match`` stays exact.

A *register* (:data:`Reg`) holds either a 64-bit integer or a string. The operation that defines it decides which.
Integers narrower than 64 bits are kept extended to 64 bits according to their D type (:class:`Ext` does that), so
64-bit arithmetic and one ``Ext`` after it give C's result. A register may be assigned in several blocks (``?:``,
``&&``). Every use must be dominated by definitions. ``var`` is a variable's index, ``agg`` an aggregation's.

    /pid == 7/ { @[execname] = count(); }
        b0:  r0 = builtin pid
             r1 = int 7
             r2 = cmp eq r0, r1
             branch r2, b1, b2
        b1:  r3 = builtin execname
             aggregate @0 [r3]
             jump b2
        b2:  return
"""

from __future__ import annotations

from enum import Enum
from typing import Literal, final

from probekit.buffers.actions import RecordPlan
from probekit.buffers.aggs import AggPlan
from probekit.lang.types import STRING_SIZE
from probekit.probe.names import ProbeDescription
from probekit.records import record

__all__ = (
    "BasicBlock",
    "Bin",
    "BinOp",
    "Branch",
    "CallSubroutine",
    "Clause",
    "Cmp",
    "CmpOp",
    "Copy",
    "CopyMem",
    "ElemAddress",
    "Emit",
    "EmitMem",
    "Ext",
    "Int",
    "Jump",
    "Kind",
    "LoadArg",
    "LoadBuiltin",
    "LoadElem",
    "LoadMem",
    "LoadStr",
    "LoadVar",
    "Op",
    "Program",
    "Reg",
    "Return",
    "StoreElem",
    "StoreMem",
    "StoreStr",
    "StoreVar",
    "Str",
    "StrAddress",
    "StrCmp",
    "Terminator",
    "UpdateAgg",
    "VarAddress",
    "Variable",
)

Kind = Literal["int", "string"]
"""What a register holds."""

Reg = int
"""The number of a register, from 0 on in each clause."""


class BinOp(Enum):
    """64-bit arithmetic. Shifts take their count modulo 64. A division by zero aborts the clause (DIVZERO)."""

    ADD = "add"
    SUB = "sub"
    MUL = "mul"
    SDIV = "sdiv"
    UDIV = "udiv"
    SREM = "srem"
    UREM = "urem"
    AND = "and"
    OR = "or"
    XOR = "xor"
    SHL = "shl"
    SAR = "sar"
    SHR = "shr"


class CmpOp(Enum):
    """Comparisons; the result is 0 or 1. Strings use EQ, NE and the S forms, and compare by unsigned bytes."""

    EQ = "eq"
    NE = "ne"
    SLT = "slt"
    SLE = "sle"
    SGT = "sgt"
    SGE = "sge"
    ULT = "ult"
    ULE = "ule"
    UGT = "ugt"
    UGE = "uge"


@final
@record
class Int:
    """Set ``dst`` to a constant."""

    dst: Reg
    value: int
    """-2**63 .. 2**64-1."""


@final
@record
class Str:
    """Set ``dst`` to a constant string."""

    dst: Reg
    value: bytes
    """Without any NUL."""


@final
@record
class LoadArg:
    """Set ``dst`` to an argument of the probe, 64 bits."""

    dst: Reg
    index: int
    """N of ``argN``, 0 to 9."""


@final
@record
class LoadBuiltin:
    """Set ``dst`` to a built-in variable."""

    dst: Reg
    name: str
    """A name in :data:`probekit.ir.names.BUILTINS`."""


@final
@record
class Bin:
    """Set ``dst`` to ``left`` op ``right`` on 64 bits."""

    dst: Reg
    op: BinOp
    left: Reg
    right: Reg


@final
@record
class Cmp:
    """Set ``dst`` to 1 if ``left`` op ``right``, else to 0. Both are integers."""

    dst: Reg
    op: CmpOp
    left: Reg
    right: Reg


@final
@record
class StrCmp:
    """Set ``dst`` to 1 if ``left`` op ``right``, else to 0. Both are strings."""

    dst: Reg
    op: CmpOp
    left: Reg
    right: Reg


@final
@record
class Ext:
    """Set ``dst`` to the low bits of ``src``, sign- or zero-extended to 64."""

    dst: Reg
    src: Reg
    bits: int
    """8, 16 or 32."""
    signed: bool


@final
@record
class LoadVar:
    """Set ``dst`` to a variable."""

    dst: Reg
    var: int
    """The variable's index."""


@final
@record
class StoreVar:
    """Set a variable to ``src``."""

    var: int
    src: Reg


@final
@record
class Emit:
    """Record ``src``."""

    field: int
    """The field's number in the clause's record."""
    src: Reg


@final
@record
class Copy:
    """Set ``dst`` to ``src``, a string. (An integer is copied by an ``or`` with itself.)"""

    dst: Reg
    src: Reg


@final
@record
class VarAddress:
    """Set ``dst`` to the address of a variable that is an object."""

    dst: Reg
    var: int


@final
@record
class LoadElem:
    """Set ``dst`` to an element of an associative array; to 0 or an empty string when there is none."""

    dst: Reg
    var: int
    """The array's index."""
    keys: tuple[Reg, ...]


@final
@record
class StoreElem:
    """Set an element of an associative array to ``src``; 0 or an empty string frees it."""

    var: int
    keys: tuple[Reg, ...]
    src: Reg


@final
@record
class ElemAddress:
    """Set ``dst`` to the address of an element that is an object."""

    dst: Reg
    var: int
    keys: tuple[Reg, ...]
    create: bool
    """True: make a missing element. False: the address of a missing one is 0."""


@final
@record
class LoadMem:
    """Set ``dst`` to the integer at ``addr``, extended. Where no memory is, the clause faults (BADADDR)."""

    dst: Reg
    addr: Reg
    size: int
    """Bytes: 1, 2, 4 or 8."""
    signed: bool


@final
@record
class StoreMem:
    """Store the low bytes of ``src`` at ``addr``."""

    addr: Reg
    src: Reg
    size: int
    """Bytes: 1, 2, 4 or 8."""


@final
@record
class LoadStr:
    """Set ``dst`` to the string at ``addr``."""

    dst: Reg
    addr: Reg
    limit: int
    """The most bytes of it; 0: as long as strings may be."""


@final
@record
class StoreStr:
    """Store the string ``src`` and its NUL at ``addr``, cut to ``size`` bytes; the rest of these bytes become 0."""

    addr: Reg
    src: Reg
    size: int
    """Bytes of the target."""


@final
@record
class StrAddress:
    """Set ``dst`` to the address of a copy of the string ``src`` in scratch memory."""

    dst: Reg
    src: Reg


@final
@record
class CopyMem:
    """Copy ``size`` bytes of memory from ``source`` to ``target``, which may overlap."""

    target: Reg
    source: Reg
    size: int


@final
@record
class CallSubroutine:
    """Set ``dst`` to the value of a subroutine."""

    dst: Reg
    name: str
    """A name in :data:`probekit.ir.names.CALLS`."""
    args: tuple[Reg, ...]


@final
@record
class EmitMem:
    """Record the bytes at ``addr``, as many as the field has."""

    field: int
    addr: Reg


@final
@record
class UpdateAgg:
    """Add a datum to an aggregation."""

    agg: int
    """The aggregation's index."""
    keys: tuple[Reg | None, ...]
    """One for each part of the plan's key; None for a ``probe`` part, which has no register."""
    value: Reg | None
    """The datum; None for ``count()``."""
    weight: Reg | None = None
    """The increment of a quantizing function; None for 1."""


@final
@record
class Jump:
    """Continue at a later block."""

    target: int
    """The block's index."""


@final
@record
class Branch:
    """Continue at ``then`` if ``cond`` is not 0, else at ``orelse``; both are indexes of later blocks."""

    cond: Reg
    then: int
    orelse: int


@final
@record
class Return:
    """End the clause."""


Op = (
    Int
    | Str
    | LoadArg
    | LoadBuiltin
    | Bin
    | Cmp
    | StrCmp
    | Ext
    | LoadVar
    | StoreVar
    | Copy
    | VarAddress
    | LoadElem
    | StoreElem
    | ElemAddress
    | LoadMem
    | StoreMem
    | LoadStr
    | StoreStr
    | StrAddress
    | CopyMem
    | CallSubroutine
    | Emit
    | EmitMem
    | UpdateAgg
)
Terminator = Jump | Branch | Return


@record
class BasicBlock:
    """A basic block. Its index in the clause is its name."""

    ops: tuple[Op, ...]
    end: Terminator
    """How it ends; it names only blocks with higher indexes."""


@record
class Variable:
    """A D variable."""

    index: int
    name: str
    scope: Literal["global", "self", "local"]
    """``global``: for all CPUs; ``self``: for one thread; ``local`` (``this->``): for one firing."""
    kind: Literal["int", "string", "object"]
    """An integer, a string, or an object in memory (a struct, union or array)."""
    bits: int = 64
    """The width of an integer."""
    signed: bool = True
    size: int = 8
    """Bytes of a string, with its NUL, or of an object."""
    keys: tuple[Kind, ...] | None = None
    """The key of an associative array; None for any other variable."""

    @property
    def plain(self) -> bool:
        """True for a scalar: one integer or string."""
        return self.keys is None and self.kind != "object"


@record
class Clause:
    """A compiled clause: predicate and body."""

    index: int
    probes: tuple[ProbeDescription, ...]
    """The probe descriptions as they are written."""
    blocks: tuple[BasicBlock, ...]
    body: int
    """Index of the block that runs if the predicate holds, 0 without a predicate. Entering it opens the record."""
    record: RecordPlan | None
    """None when nothing is recorded, as in a clause that only aggregates."""
    registers: int
    """How many registers it uses."""
    text: str = ""
    """The clause as the user wrote it, for listings."""
    line: int = 0
    """The line of the clause in its own script, by ``#line`` marks where there are any."""
    start: int = 0
    """The offset of the clause in the text that was compiled."""


@record
class Program:
    """A compiled script."""

    clauses: tuple[Clause, ...]
    """In the order of the script."""
    variables: tuple[Variable, ...]
    """By their indexes."""
    aggregations: tuple[AggPlan, ...]
    """By their indexes."""
    options: tuple[tuple[str, str], ...] = ()
    """Names and values of the options that the script sets."""
    string_size: int = STRING_SIZE
    """Bytes of a string with its NUL."""
    destructive: tuple[str, ...] = ()
    """The actions and subroutines that need ``-w``, sorted."""
