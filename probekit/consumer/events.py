"""The neutral model of what tracing yields: every renderer starts from these events, and none adds facts of its own.

    printf("%d %s\\n", pid, execname)  ->  ProbeFired(cpu=0, probe=ProbeIdentity(7, ...), clause=0, timestamp=...,
                                               items=(Printed(("12 ", GuestText("bash"), "\\n")),))

:data:`Event` lists all kinds of events, :data:`RecordItem` all that a record can hold. Text that the guest supplied
stays apart from text that the user wrote (:class:`GuestText`), so that a renderer for a terminal can escape the one
and leave the other alone.
"""

from __future__ import annotations

from math import isqrt
from typing import Literal

from probekit.buffers.aggs import AggFuncName
from probekit.buffers.print_types import PrintType
from probekit.buffers.quantize import Linear, LogLinear
from probekit.probe.names import ProbeName
from probekit.records import record

__all__ = (
    "AggValue",
    "Aggregation",
    "Attached",
    "Average",
    "Command",
    "Cost",
    "Costs",
    "Drop",
    "DropKind",
    "Dump",
    "Event",
    "ExitRequested",
    "Fault",
    "Flow",
    "GuestText",
    "Histogram",
    "JoinedRow",
    "KeyKind",
    "KeyValue",
    "Message",
    "OptionSet",
    "Piece",
    "Printed",
    "ProbeFired",
    "ProbeIdentity",
    "Quantize",
    "RecordItem",
    "Reopened",
    "Row",
    "StackFrames",
    "Stats",
    "StdDev",
    "SymbolName",
    "Table",
    "TraceBytes",
    "TraceInt",
    "TraceString",
    "Truncated",
    "TypedValue",
    "divide",
)


@record
class ProbeIdentity:
    """A probe as events name it."""

    id: int
    """Its number in this session, as ``-l`` lists it."""
    name: ProbeName


# What a record holds.


@record
class TraceInt:
    """An integer that ``trace()`` recorded."""

    value: int
    """The value, already extended by its signedness."""
    bits: int = 64
    """Its width: 8, 16, 32 or 64."""
    signed: bool = True


@record
class TraceString:
    """A string from the guest."""

    text: str


@record
class GuestText:
    """A stretch of printed text that came from the guest and may hold anything."""

    text: str


Piece = str | GuestText
"""A stretch of printed text: the user's own, or the guest's."""


@record
class Printed:
    """What one ``printf()`` printed: the user's own text, and the guest's."""

    pieces: tuple[Piece, ...]

    @property
    def text(self) -> str:
        """All of it, not escaped."""
        return "".join(p if isinstance(p, str) else p.text for p in self.pieces)


@record
class TraceBytes:
    """Memory that ``trace()`` recorded: a struct or an array. It is shown as text when it looks like text."""

    data: bytes


@record
class Dump:
    """Memory that ``tracemem()`` recorded. It is shown in hexadecimal, whatever it holds."""

    data: bytes


@record
class StackFrames:
    """What ``stack()`` recorded."""

    frames: tuple[str, ...]
    """The frames, innermost first, as ``module`name+0x10`` or a bare address."""


@record
class SymbolName:
    """An address by name: ``sym()``, ``func()``, ``mod()``."""

    text: str


@record
class TypedValue:
    """What ``print()`` recorded."""

    type: PrintType
    """How ``data`` is laid out."""
    data: bytes
    addr: int | None = None
    """The guest address that ``data`` was read from, when a pointer was given."""


@record
class Command:
    """``system()``: a command that the script runs now."""

    text: str


@record
class Reopened:
    """``freopen()``: from here on output goes to another file."""

    path: str
    """The file; empty for the first output again."""


@record
class Truncated:
    """``ftruncate()``: what was written to the output file so far is thrown away."""


@record
class OptionSet:
    """``setopt()``: the option has this value from here on. The session has checked it, and applied its part."""

    name: str
    value: str


@record
class Table:
    """``printa()`` without a format: one aggregation's rows, or several aggregations' joined by key."""

    keys: tuple[KeyKind, ...]
    """The type of each key column."""
    rows: tuple[JoinedRow, ...]
    names: tuple[str, ...]
    """The aggregations' names, without the ``@``."""
    funcs: tuple[AggFuncName, ...]
    """Their functions."""


RecordItem = (
    TraceInt
    | TraceString
    | TraceBytes
    | Dump
    | Printed
    | StackFrames
    | SymbolName
    | TypedValue
    | Table
    | Command
    | Reopened
    | Truncated
    | OptionSet
)
"""One thing that a record holds or asks for."""


@record
class Flow:
    """How ``-F`` draws one firing."""

    indent: int
    """Columns before the prefix."""
    prefix: str
    """``" -> "``, ``" <- "``, ``" => "``, ``" <= "`` or ``"| "``."""
    named: bool
    """Whether the probe's name follows its function."""


@record
class ProbeFired:
    """One clause ran at one probe and left a record."""

    cpu: int
    probe: ProbeIdentity
    clause: int
    """The number of the clause in the program, from 0."""
    timestamp: int
    """Nanoseconds; where 0 is depends on the guest's clock."""
    items: tuple[RecordItem, ...]
    """What the clause recorded, in order."""
    flow: Flow | None = None
    """How ``-F`` draws it; None without ``-F``."""


# Aggregations.


@record
class KeyKind:
    """The type of one key column."""

    kind: str
    """``int``, ``uint``, ``string``, ``symbol`` (a name found for an address) or ``stack`` (a frame on each line)."""
    bits: int = 64
    """The width of an integer as D has it."""


def divide(value: int, by: int) -> int:
    """Divide as C does, towards zero. Dividing by zero gives 0."""
    if not by:
        return 0
    quotient = abs(value) // abs(by)
    return quotient if (value < 0) == (by < 0) else -quotient


@record
class Average:
    """The value of ``avg()``."""

    total: int
    """The sum of all data."""
    count: int
    """How many there were."""

    @property
    def value(self) -> int:
        """The quotient, rounded towards zero as C divides."""
        return divide(self.total, self.count)


@record
class StdDev:
    """The value of ``stddev()``."""

    count: int
    """How many data there were."""
    total: int
    """Their sum."""
    squares: int
    """The sum of their squares."""

    def value(self, normal: int = 1) -> int:
        """Return the root of the average square minus the squared average, in integers as DTrace computes it."""
        if not self.count or not normal:
            return 0
        average = abs(divide(divide(self.total, normal), self.count))
        squares = self.squares // normal // normal // self.count
        return isqrt((squares - average * average) & ((1 << 128) - 1))


@record
class Quantize:
    """The value of ``quantize()``."""

    buckets: tuple[int, ...]
    """A count for each bucket of :mod:`probekit.buffers.quantize`."""


@record
class Histogram:
    """The value of ``lquantize()`` and ``llquantize()``."""

    scale: Linear | LogLinear
    """Where the buckets begin and end."""
    buckets: tuple[int, ...]
    """A count for each bucket of ``scale``."""


AggValue = int | Average | StdDev | Quantize | Histogram
"""The value of an aggregation for one key: an integer for ``count()``, ``sum()``, ``min()`` and ``max()``."""

KeyValue = int | str
"""One part of a key."""


@record
class Row:
    """One key of an aggregation and its value."""

    key: tuple[KeyValue, ...]
    value: AggValue
    normal: int = 1
    """What the value is divided by when it is shown (``normalize()``)."""


@record
class JoinedRow:
    """One key of several aggregations side by side."""

    key: tuple[KeyValue, ...]
    values: tuple[AggValue | None, ...]
    """The value of each aggregation; None where that one has no such key."""
    normals: tuple[int, ...]
    """What each value is divided by when it is shown."""


@record
class Aggregation:
    """One aggregation, merged over all CPUs and sorted."""

    name: str
    """Its name, without the ``@``."""
    func: AggFuncName
    keys: tuple[KeyKind, ...]
    """The type of each key column."""
    rows: tuple[Row, ...]


# What else can happen.


DropKind = Literal[
    "principal",
    "aggregation",
    "dynamic",
    "dyndirty",
    "spec",
    "specbusy",
    "specunavail",
    "dblerror",
    "recursion",
    "corrupt",
    "silenced",
    "unseen",
    "undecoded",
    "steps",
]
"""What was lost; :data:`probekit.consumer.text.drops.DROP_WORDS` has the words for each.

The first eight are DTrace's. ``recursion``: a probe fired while its CPU was inside a clause already. ``corrupt``: a
record made no sense. ``silenced``: the guest's watchdog turned the clauses off. Of the stop engine: ``unseen`` changes
of watched memory that no stop reported, ``undecoded`` accesses of which only the range is known, and single ``steps``
whose trap was lost.
"""


@record
class Drop:
    """Data was lost."""

    kind: DropKind
    cpu: int | None
    """The CPU that lost it; None when it is not one CPU's."""
    count: int
    """How many items were lost since the last report."""
    total: int
    """How many were lost since tracing began."""


@record
class Fault:
    """A clause was aborted at a probe."""

    probe: ProbeIdentity
    kind: int
    """DTrace's number for the fault (:class:`probekit.buffers.layout.FaultKind`)."""
    cpu: int | None = None
    value: int | None = None
    """The address or operand at fault, if known."""
    clause: str = ""
    """How the script names the clause, such as ``clause 2``."""
    where: str = ""
    """The place in the script, such as ``line 3``."""
    timestamp: int = 0
    """Nanoseconds, as of :class:`ProbeFired`."""


@record
class ExitRequested:
    """The script called ``exit(status)``."""

    status: int


@record
class Attached:
    """Tracing starts."""

    what: str
    """The program: ``description 'x'`` or ``script 'x.d'``."""
    probes: int
    """How many probes it enables."""
    refused: int = 0
    """How many it matched that cannot be enabled."""


@record
class Message:
    """Something to tell the user that belongs to no probe."""

    text: str


@record
class Stats:
    """What enabling, tracing and restoring took."""

    values: dict[str, float | int]
    """Figures by name: seconds where the name ends in ``_s``, else counts and bytes."""


@record
class Cost:
    """What one clause has cost."""

    clause: int
    """The number of the clause in the program, from 0."""
    firings: int
    """How often it has run."""
    ns: float
    """Nanoseconds for all of these."""


@record
class Costs:
    """What the program has cost the guest, as measured in it."""

    clauses: tuple[Cost, ...]
    entries: int
    """How often control has gone to clauses and back."""
    entries_ns: float
    """Nanoseconds that this took, besides the clauses themselves."""
    percent: float
    """All of it, in percent of the time of the guest's CPUs."""
    limit: int | None = None
    """The limit, in percent, that the program was ended for; None when it was not."""


Event = ProbeFired | Aggregation | Drop | Fault | ExitRequested | Attached | Message | Stats | Costs
"""What a run yields."""
