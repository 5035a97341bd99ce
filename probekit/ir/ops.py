"""IR operations: flat, final, frozen. No op has a subclass, so ``match`` stays exact.

A *register* (:data:`Reg`) holds either a 64-bit integer or a string; which one
is fixed by the op that defines it. Integers narrower than 64 bits are kept
extended to 64 bits according to their D type (:class:`Ext` does it), so 64-bit
arithmetic followed by one ``Ext`` gives C's result. A register may be assigned
in several blocks (``?:``, ``&&``); every use must be dominated by definitions.

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
    "Aggregate",
    "Arg",
    "Bin",
    "BinOp",
    "Block",
    "Branch",
    "Builtin",
    "Call",
    "Clause",
    "Cmp",
    "CmpOp",
    "Copy",
    "CopyMem",
    "ElemAddr",
    "Emit",
    "EmitMem",
    "Ext",
    "Int",
    "Jump",
    "Kind",
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
    "StrAddr",
    "StrCmp",
    "Terminator",
    "VarAddr",
    "Variable",
)

Kind = Literal["int", "string"]
"""What a register holds."""

Reg = int


class BinOp(Enum):
    """64-bit arithmetic. Shifts take their count modulo 64; division by zero aborts the clause (DIVZERO)."""

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
    """Comparisons; the result is 0 or 1. Strings use EQ, NE and the S forms (by unsigned bytes)."""

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
    """``dst`` = a constant, -2**63 .. 2**64-1."""

    dst: Reg
    value: int


@final
@record
class Str:
    """``dst`` = a constant string (no NUL inside)."""

    dst: Reg
    value: bytes


@final
@record
class Arg:
    """``dst`` = ``argN`` of the probe, 64 bits."""

    dst: Reg
    index: int


@final
@record
class Builtin:
    """``dst`` = a built-in variable of :data:`probekit.ir.names.BUILTINS`."""

    dst: Reg
    name: str


@final
@record
class Bin:
    """``dst`` = ``left`` op ``right`` on 64 bits."""

    dst: Reg
    op: BinOp
    left: Reg
    right: Reg


@final
@record
class Cmp:
    """``dst`` = 1 if ``left`` op ``right`` else 0."""

    dst: Reg
    op: CmpOp
    left: Reg
    right: Reg


@final
@record
class StrCmp:
    """The same for two strings."""

    dst: Reg
    op: CmpOp
    left: Reg
    right: Reg


@final
@record
class Ext:
    """``dst`` = the low ``bits`` (8, 16, 32) of ``src``, sign- or zero-extended to 64."""

    dst: Reg
    src: Reg
    bits: int
    signed: bool


@final
@record
class LoadVar:
    """``dst`` = variable number ``var``."""

    dst: Reg
    var: int


@final
@record
class StoreVar:
    """Variable number ``var`` = ``src``."""

    var: int
    src: Reg


@final
@record
class Emit:
    """Record ``src`` as field number ``field`` of the clause's record."""

    field: int
    src: Reg


@final
@record
class Copy:
    """``dst`` = ``src``, a string (an integer is copied by an ``or`` with itself)."""

    dst: Reg
    src: Reg


@final
@record
class VarAddr:
    """``dst`` = the address of variable ``var``, which is an object."""

    dst: Reg
    var: int


@final
@record
class LoadElem:
    """``dst`` = an element of the associative array ``var``; 0 or an empty string when there is none."""

    dst: Reg
    var: int
    keys: tuple[Reg, ...]


@final
@record
class StoreElem:
    """An element of the associative array ``var`` = ``src``; 0 or an empty string frees it."""

    var: int
    keys: tuple[Reg, ...]
    src: Reg


@final
@record
class ElemAddr:
    """``dst`` = the address of an element that is an object; made when ``create``, else 0 when there is none."""

    dst: Reg
    var: int
    keys: tuple[Reg, ...]
    create: bool


@final
@record
class LoadMem:
    """``dst`` = the integer of ``size`` bytes at ``addr``, extended. Where nothing is, the clause faults (BADADDR)."""

    dst: Reg
    addr: Reg
    size: int
    signed: bool


@final
@record
class StoreMem:
    """The low ``size`` bytes of ``src`` to ``addr``."""

    addr: Reg
    src: Reg
    size: int


@final
@record
class LoadStr:
    """``dst`` = the string at ``addr``, at most ``limit`` bytes of it (0: as long as strings may be)."""

    dst: Reg
    addr: Reg
    limit: int


@final
@record
class StoreStr:
    """The string ``src`` and its NUL to ``addr``, cut off to ``size`` bytes; the rest of them become 0."""

    addr: Reg
    src: Reg
    size: int


@final
@record
class StrAddr:
    """``dst`` = the address of a copy of the string ``src`` in scratch memory."""

    dst: Reg
    src: Reg


@final
@record
class CopyMem:
    """``size`` bytes from ``source`` to ``target``, which may overlap."""

    target: Reg
    source: Reg
    size: int


@final
@record
class Call:
    """``dst`` = a subroutine of :data:`probekit.ir.names.CALLS`."""

    dst: Reg
    name: str
    args: tuple[Reg, ...]


@final
@record
class EmitMem:
    """Record the bytes at ``addr`` as field number ``field``."""

    field: int
    addr: Reg


@final
@record
class Aggregate:
    """Feed aggregation ``agg`` with ``value`` (None for ``count()``) under ``keys`` (``probe`` keys have no register).

    ``keys``: one entry for each KeyPart of the plan; None stands for a ``probe`` part. ``weight``: the increment of
    a quantizing function, None for 1.
    """

    agg: int
    keys: tuple[Reg | None, ...]
    value: Reg | None
    weight: Reg | None = None


@final
@record
class Jump:
    """Go on at a later block."""

    target: int


@final
@record
class Branch:
    """Go on at ``then`` if ``cond`` is not 0, else at ``orelse``; both are later blocks."""

    cond: Reg
    then: int
    orelse: int


@final
@record
class Return:
    """The clause ends."""


Op = (
    Int
    | Str
    | Arg
    | Builtin
    | Bin
    | Cmp
    | StrCmp
    | Ext
    | LoadVar
    | StoreVar
    | Copy
    | VarAddr
    | LoadElem
    | StoreElem
    | ElemAddr
    | LoadMem
    | StoreMem
    | LoadStr
    | StoreStr
    | StrAddr
    | CopyMem
    | Call
    | Emit
    | EmitMem
    | Aggregate
)
Terminator = Jump | Branch | Return


@record
class Block:
    """A basic block: its index in the clause is its name; the terminator names only higher indexes."""

    ops: tuple[Op, ...]
    end: Terminator


@record
class Variable:
    """One D variable. ``scope``: ``global`` (all CPUs), ``self`` (one thread), ``local`` (``this->``, one firing).

    ``kind``: an integer of ``bits``/``signed``, a string of ``size`` bytes with its NUL, or an ``object`` of ``size``
    bytes in memory. ``keys``: of an associative array, None for any other variable.
    """

    index: int
    name: str
    scope: Literal["global", "self", "local"]
    kind: Literal["int", "string", "object"]
    bits: int = 64
    signed: bool = True
    size: int = 8
    keys: tuple[Kind, ...] | None = None

    @property
    def plain(self) -> bool:
        """True for a scalar: one integer or string."""
        return self.keys is None and self.kind != "object"


@record
class Clause:
    """One clause. ``probes``: its descriptions as written; ``blocks``: predicate and body.

    ``body``: index of the block that runs once the predicate held (0 when there is none): entering it
    is what makes a record. ``record``: None when nothing is recorded (a pure aggregation clause).
    ``text``: the clause as the user wrote it, for listings; ``line``: where.
    """

    index: int
    probes: tuple[ProbeDescription, ...]
    blocks: tuple[Block, ...]
    body: int
    record: RecordPlan | None
    registers: int
    text: str = ""
    line: int = 0
    start: int = 0
    """The offset of the clause in the text that was compiled."""


@record
class Program:
    """A compiled script: clauses in order, its variables and aggregations, and the options it set.

    ``string_size``: bytes of a string with its NUL. ``destructive``: the actions in it that need ``-w``.
    """

    clauses: tuple[Clause, ...]
    variables: tuple[Variable, ...]
    aggregations: tuple[AggPlan, ...]
    options: tuple[tuple[str, str], ...] = ()
    string_size: int = STRING_SIZE
    destructive: tuple[str, ...] = ()
