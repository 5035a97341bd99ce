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

from dataclasses import dataclass
from enum import Enum
from typing import Literal, final

from probekit.buffers.actions import RecordPlan
from probekit.buffers.aggs import AggPlan
from probekit.probe.names import ProbeDescription

__all__ = (
    "BUILTINS",
    "Aggregate",
    "Arg",
    "Bin",
    "BinOp",
    "Block",
    "Branch",
    "Builtin",
    "BuiltinInfo",
    "Clause",
    "Cmp",
    "CmpOp",
    "Emit",
    "Ext",
    "Int",
    "Jump",
    "LoadVar",
    "Op",
    "Program",
    "Reg",
    "Return",
    "StoreVar",
    "Str",
    "StrCmp",
    "Terminator",
    "Variable",
)

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


@dataclass(frozen=True, slots=True)
class BuiltinInfo:
    """A built-in variable. ``kind``: what its register holds. ``size``: bytes of a string (with its NUL), else 8.

    ``per_probe``: the probe alone decides the value, so it is a constant of each site.
    ``bits``/``signed``: the D type of an integer.
    """

    kind: Literal["int", "string"]
    size: int = 8
    per_probe: bool = False
    bits: int = 64
    signed: bool = True


BUILTINS: dict[str, BuiltinInfo] = {
    "cpu": BuiltinInfo("int", bits=32),
    "epid": BuiltinInfo("int", bits=32, signed=False),
    "execname": BuiltinInfo("string", size=16),
    "id": BuiltinInfo("int", per_probe=True, bits=32, signed=False),
    "pid": BuiltinInfo("int", bits=32),
    "probefunc": BuiltinInfo("string", size=256, per_probe=True),
    "probemod": BuiltinInfo("string", size=256, per_probe=True),
    "probename": BuiltinInfo("string", size=256, per_probe=True),
    "probeprov": BuiltinInfo("string", size=256, per_probe=True),
    "tid": BuiltinInfo("int", bits=32),
    "timestamp": BuiltinInfo("int", signed=False),
}
"""The built-ins that the IR knows; ``arg0`` .. ``arg9`` are :class:`Arg`. The front end's table adds the rest."""


@final
@dataclass(frozen=True, slots=True)
class Int:
    """``dst`` = a constant, -2**63 .. 2**64-1."""

    dst: Reg
    value: int


@final
@dataclass(frozen=True, slots=True)
class Str:
    """``dst`` = a constant string (no NUL inside)."""

    dst: Reg
    value: bytes


@final
@dataclass(frozen=True, slots=True)
class Arg:
    """``dst`` = ``argN`` of the probe, 64 bits."""

    dst: Reg
    index: int


@final
@dataclass(frozen=True, slots=True)
class Builtin:
    """``dst`` = a built-in variable of :data:`BUILTINS`."""

    dst: Reg
    name: str


@final
@dataclass(frozen=True, slots=True)
class Bin:
    """``dst`` = ``left`` op ``right`` on 64 bits."""

    dst: Reg
    op: BinOp
    left: Reg
    right: Reg


@final
@dataclass(frozen=True, slots=True)
class Cmp:
    """``dst`` = 1 if ``left`` op ``right`` else 0."""

    dst: Reg
    op: CmpOp
    left: Reg
    right: Reg


@final
@dataclass(frozen=True, slots=True)
class StrCmp:
    """The same for two strings."""

    dst: Reg
    op: CmpOp
    left: Reg
    right: Reg


@final
@dataclass(frozen=True, slots=True)
class Ext:
    """``dst`` = the low ``bits`` (8, 16, 32) of ``src``, sign- or zero-extended to 64."""

    dst: Reg
    src: Reg
    bits: int
    signed: bool


@final
@dataclass(frozen=True, slots=True)
class LoadVar:
    """``dst`` = variable number ``var``."""

    dst: Reg
    var: int


@final
@dataclass(frozen=True, slots=True)
class StoreVar:
    """Variable number ``var`` = ``src``."""

    var: int
    src: Reg


@final
@dataclass(frozen=True, slots=True)
class Emit:
    """Record ``src`` as field number ``field`` of the clause's record."""

    field: int
    src: Reg


@final
@dataclass(frozen=True, slots=True)
class Aggregate:
    """Feed aggregation ``agg`` with ``value`` (None for ``count()``) under ``keys`` (``probe`` keys have no register).

    ``keys``: one entry for each KeyPart of the plan; None stands for a ``probe`` part.
    """

    agg: int
    keys: tuple[Reg | None, ...]
    value: Reg | None


@final
@dataclass(frozen=True, slots=True)
class Jump:
    """Go on at a later block."""

    target: int


@final
@dataclass(frozen=True, slots=True)
class Branch:
    """Go on at ``then`` if ``cond`` is not 0, else at ``orelse``; both are later blocks."""

    cond: Reg
    then: int
    orelse: int


@final
@dataclass(frozen=True, slots=True)
class Return:
    """The clause ends."""


Op = Int | Str | Arg | Builtin | Bin | Cmp | StrCmp | Ext | LoadVar | StoreVar | Emit | Aggregate
Terminator = Jump | Branch | Return


@dataclass(frozen=True, slots=True)
class Block:
    """A basic block: its index in the clause is its name; the terminator names only higher indexes."""

    ops: tuple[Op, ...]
    end: Terminator


@dataclass(frozen=True, slots=True)
class Variable:
    """One D variable. ``scope``: ``global`` (all CPUs, guest memory), ``local`` (``this->``, one firing).

    ``kind``: an integer of ``bits``/``signed``, or a string of ``size`` bytes with its NUL.
    ``initial``: the value before the first store.
    """

    index: int
    name: str
    scope: Literal["global", "local"]
    kind: Literal["int", "string"]
    bits: int = 64
    signed: bool = True
    size: int = 8


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Program:
    """A compiled script: clauses in order, its variables and aggregations, and the options it set."""

    clauses: tuple[Clause, ...]
    variables: tuple[Variable, ...]
    aggregations: tuple[AggPlan, ...]
    options: tuple[tuple[str, str], ...] = ()
