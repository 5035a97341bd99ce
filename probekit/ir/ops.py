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
    "BUILTINS",
    "CALLS",
    "Aggregate",
    "Arg",
    "Bin",
    "BinOp",
    "Block",
    "Branch",
    "Builtin",
    "BuiltinInfo",
    "Call",
    "CallInfo",
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


@record
class BuiltinInfo:
    """A built-in variable. ``kind``: what its register holds. ``size``: bytes of a string (with its NUL), else 8.

    ``per_probe``: the probe alone decides the value, so it is a constant of each site.
    ``made``: a string that is put together where it is read, as long as strings may be.
    ``bits``/``signed``: the D type of an integer.
    """

    kind: Literal["int", "string"]
    size: int = 8
    per_probe: bool = False
    made: bool = False
    bits: int = 64
    signed: bool = True


BUILTINS: dict[str, BuiltinInfo] = {
    "caller": BuiltinInfo("int", signed=False),
    "cpu": BuiltinInfo("int", bits=32),
    "curthread": BuiltinInfo("int", signed=False),
    "cwd": BuiltinInfo("string", size=256, made=True),
    "epid": BuiltinInfo("int", bits=32, signed=False),
    "errno": BuiltinInfo("int", bits=32),
    "execargs": BuiltinInfo("string", size=256, made=True),
    "execname": BuiltinInfo("string", size=16),
    "gid": BuiltinInfo("int", bits=32, signed=False),
    "id": BuiltinInfo("int", per_probe=True, bits=32, signed=False),
    "ipl": BuiltinInfo("int", bits=32, signed=False),
    "percpu_offset": BuiltinInfo("int", signed=False),
    "pid": BuiltinInfo("int", bits=32),
    "ppid": BuiltinInfo("int", bits=32),
    "probefunc": BuiltinInfo("string", size=256, per_probe=True),
    "probemod": BuiltinInfo("string", size=256, per_probe=True),
    "probename": BuiltinInfo("string", size=256, per_probe=True),
    "probeprov": BuiltinInfo("string", size=256, per_probe=True),
    "root": BuiltinInfo("string", size=256, made=True),
    "stackdepth": BuiltinInfo("int", bits=32, signed=False),
    "tid": BuiltinInfo("int", bits=32),
    "timestamp": BuiltinInfo("int", signed=False),
    "ucaller": BuiltinInfo("int", signed=False),
    "uid": BuiltinInfo("int", bits=32, signed=False),
    "ustackdepth": BuiltinInfo("int", bits=32, signed=False),
    "vtimestamp": BuiltinInfo("int", signed=False),
    "walltimestamp": BuiltinInfo("int"),
    "zonename": BuiltinInfo("string", size=256),
}
"""The built-ins that the IR knows; ``arg0`` .. ``arg9`` are :class:`Arg`. The front end's table adds the rest.

``percpu_offset`` has no name in D: it is what makes the address of a per-CPU symbol that of this CPU's variable.
"""


@record
class CallInfo:
    """A subroutine. ``kind``: of its value; ``args``: of its arguments; the last ``optional`` may be missing."""

    kind: Kind
    args: tuple[Kind, ...] = ()
    optional: int = 0


_I: Kind = "int"
_S: Kind = "string"

CALLS: dict[str, CallInfo] = {
    "alloca": CallInfo(_I, (_I,)),
    "basename": CallInfo(_S, (_S,)),
    "bcopy": CallInfo(_I, (_I, _I, _I)),
    "charat": CallInfo(_I, (_S, _I)),
    "cleanpath": CallInfo(_S, (_S,)),
    "copyin": CallInfo(_I, (_I, _I)),
    "copyinstr": CallInfo(_S, (_I, _I), 1),
    "copyinto": CallInfo(_I, (_I, _I, _I)),
    "copyout": CallInfo(_I, (_I, _I, _I)),
    "copyoutstr": CallInfo(_I, (_I, _I, _I)),
    "d_path": CallInfo(_S, (_I,)),
    "dirname": CallInfo(_S, (_S,)),
    "getmajor": CallInfo(_I, (_I,)),
    "getminor": CallInfo(_I, (_I,)),
    "htonl": CallInfo(_I, (_I,)),
    "htonll": CallInfo(_I, (_I,)),
    "htons": CallInfo(_I, (_I,)),
    "index": CallInfo(_I, (_S, _S, _I), 1),
    "inet_ntoa": CallInfo(_S, (_I,)),
    "inet_ntoa6": CallInfo(_S, (_I,)),
    "inet_ntop": CallInfo(_S, (_I, _I)),
    "json": CallInfo(_S, (_S, _S)),
    "jstack": CallInfo(_S, (_I,)),
    "link_ntop": CallInfo(_S, (_I, _I)),
    "lltostr": CallInfo(_S, (_I, _I), 1),
    "mutex_owned": CallInfo(_I, (_I,)),
    "mutex_owner": CallInfo(_I, (_I,)),
    "mutex_type_adaptive": CallInfo(_I, (_I,)),
    "mutex_type_spin": CallInfo(_I, (_I,)),
    "ntohl": CallInfo(_I, (_I,)),
    "ntohll": CallInfo(_I, (_I,)),
    "ntohs": CallInfo(_I, (_I,)),
    "pcap": CallInfo(_I, (_I, _I)),
    "progenyof": CallInfo(_I, (_I,)),
    "rand": CallInfo(_I),
    "rindex": CallInfo(_I, (_S, _S, _I), 1),
    "rw_iswriter": CallInfo(_I, (_I,)),
    "rw_read_held": CallInfo(_I, (_I,)),
    "rw_write_held": CallInfo(_I, (_I,)),
    "speculation": CallInfo(_I),
    "stack": CallInfo(_S, (_I,)),
    "strchr": CallInfo(_S, (_S, _I)),
    "strjoin": CallInfo(_S, (_S, _S)),
    "strlen": CallInfo(_I, (_S,)),
    "strrchr": CallInfo(_S, (_S, _I)),
    "strstr": CallInfo(_S, (_S, _S)),
    "strtok": CallInfo(_S, (_S, _S), 1),
    "strtoll": CallInfo(_I, (_S, _I), 1),
    "substr": CallInfo(_S, (_S, _I, _I), 1),
    "tolower": CallInfo(_S, (_S,)),
    "toupper": CallInfo(_S, (_S,)),
    "ustack": CallInfo(_S, (_I,)),
}
"""The subroutines. ``charat`` is a string's character by its index; the rest have D's names."""


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
    """``dst`` = a built-in variable of :data:`BUILTINS`."""

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
    """``dst`` = a subroutine of :data:`CALLS`."""

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
