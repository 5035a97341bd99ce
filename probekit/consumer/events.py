"""The neutral model of what tracing yields: every renderer starts from these, none adds facts of its own.

    printf("%d %s\\n", pid, execname)  ->  ProbeFired(cpu=0, probe=Probe(7, ...), clause=0, timestamp=...,
                                               items=(Printed(("12 ", GuestText("bash"), "\\n")),))

Text that the guest supplied stays apart from text that the user wrote
(:class:`GuestText`), so that a renderer for a terminal can escape the one and
leave the other alone.
"""

from __future__ import annotations

from math import isqrt

from probekit.buffers.aggs import AggFuncName
from probekit.buffers.print_types import PrintType
from probekit.buffers.quantize import Linear, LogLinear
from probekit.consumer.drops import Drop
from probekit.probe.names import ProbeName
from probekit.records import fresh, record

__all__ = (
    "Aggregation",
    "Attached",
    "Average",
    "Command",
    "Cost",
    "Costs",
    "Drop",
    "Dump",
    "Event",
    "ExitRequested",
    "Fault",
    "Flow",
    "GuestText",
    "Histogram",
    "Item",
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
    "Value",
    "divide",
)


@record
class ProbeIdentity:
    """One probe of this session: its ID, as ``-l`` lists it, and its name."""

    id: int
    name: ProbeName


@record
class TraceInt:
    """An integer of ``bits`` (8, 16, 32, 64) width; ``value`` is already extended by its signedness."""

    value: int
    bits: int = 64
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


@record
class Printed:
    """What one ``printf()`` printed: the user's own text, and the guest's."""

    pieces: tuple[Piece, ...]

    @property
    def text(self) -> str:
        """All of it, unescaped."""
        return "".join(p if isinstance(p, str) else p.text for p in self.pieces)


@record
class TraceBytes:
    """Memory that ``trace()`` recorded: a struct, an array. Shown as text when it looks like text."""

    data: bytes


@record
class Dump:
    """Memory that ``tracemem()`` recorded: shown in hexadecimal, whatever it holds."""

    data: bytes


@record
class StackFrames:
    """``stack()``: the frames, innermost first, as ``module`name+0x10`` or a bare address."""

    frames: tuple[str, ...]


@record
class SymbolName:
    """``sym()``, ``func()``, ``mod()``: an address by name."""

    text: str


@record
class TypedValue:
    """``print()``: bytes and the type that makes sense of them. ``addr``: where they were, when a pointer was given."""

    type: PrintType
    data: bytes
    addr: int | None = None


@record
class Command:
    """``system()``: a command that the script wants to be run now."""

    text: str


@record
class Reopened:
    """``freopen()``: from here on output goes to this file; an empty name is the first output again."""

    path: str


@record
class Truncated:
    """``ftruncate()``: what was written to the output file so far is thrown away."""


@record
class OptionSet:
    """``setopt()``: the option has this value from here on (checked, and applied to what is ours)."""

    name: str
    value: str


@record
class Table:
    """``printa()`` without a format: one aggregation's rows, or several aggregations' joined by key."""

    keys: tuple[KeyKind, ...]
    rows: tuple[JoinedRow, ...]
    names: tuple[str, ...]
    funcs: tuple[AggFuncName, ...]


Item = (
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


@record
class Flow:
    """How ``-F`` draws one firing. ``prefix``: ``" -> "`` and its kin; ``named``: the probe's name is part of it."""

    indent: int
    prefix: str
    named: bool


@record
class ProbeFired:
    """One clause ran at one probe and left a record. ``timestamp``: nanoseconds; ``epid``: None when not numbered."""

    cpu: int
    probe: ProbeIdentity
    clause: int
    timestamp: int
    items: tuple[Item, ...]
    epid: int | None = None
    flow: Flow | None = None


@record
class KeyKind:
    """The type of one key column. ``bits``: an integer's D width.

    ``kind``: ``int``, ``uint``, ``string``, ``symbol`` (a name found for an address) or ``stack`` (a line a frame).
    """

    kind: str
    bits: int = 64


def divide(value: int, by: int) -> int:
    """C's division, towards zero; by zero it is 0."""
    if not by:
        return 0
    quotient = abs(value) // abs(by)
    return quotient if (value < 0) == (by < 0) else -quotient


@record
class Average:
    """The value of ``avg()``: the sum of all data and how many there were."""

    total: int
    count: int

    @property
    def value(self) -> int:
        """The quotient, rounded towards zero as C divides."""
        return divide(self.total, self.count)


@record
class StdDev:
    """The value of ``stddev()``: how many data, their sum and the sum of their squares."""

    count: int
    total: int
    squares: int

    def value(self, normal: int = 1) -> int:
        """The root of the average square minus the squared average, in integers as DTrace computes it."""
        if not self.count or not normal:
            return 0
        average = abs(divide(divide(self.total, normal), self.count))
        squares = self.squares // normal // normal // self.count
        return isqrt((squares - average * average) & ((1 << 128) - 1))


@record
class Quantize:
    """The value of ``quantize()``: a count for each bucket of :mod:`probekit.buffers.quantize`."""

    buckets: tuple[int, ...]


@record
class Histogram:
    """The value of ``lquantize()`` and ``llquantize()``: a count for each bucket of ``scale``."""

    scale: Linear | LogLinear
    buckets: tuple[int, ...]


Value = int | Average | StdDev | Quantize | Histogram
KeyValue = int | str


@record
class Row:
    """One key and its value. ``normal``: what the value is divided by when it is shown (``normalize()``)."""

    key: tuple[KeyValue, ...]
    value: Value
    normal: int = 1


@record
class JoinedRow:
    """One key of several aggregations side by side: a value is None where that aggregation has no such key."""

    key: tuple[KeyValue, ...]
    values: tuple[Value | None, ...]
    normals: tuple[int, ...]


@record
class Aggregation:
    """One aggregation, merged over all CPUs and sorted. ``name``: without the ``@``."""

    name: str
    func: AggFuncName
    keys: tuple[KeyKind, ...]
    rows: tuple[Row, ...]


@record
class Fault:
    """A clause was aborted at a probe.

    ``kind``: DTrace's number (``FaultKind``); ``value``: the address or operand at fault, if known;
    ``clause``: how the script names the clause; ``where``: the place in the script, such as ``line 3``.
    """

    probe: ProbeIdentity
    kind: int
    cpu: int | None = None
    value: int | None = None
    clause: str = ""
    where: str = ""
    timestamp: int = 0


@record
class ExitRequested:
    """The script called ``exit(status)``."""

    status: int


@record
class Attached:
    """Tracing starts. ``what``: ``description 'x'`` or ``script 'x.d'``; ``probes``: how many it matched."""

    what: str
    probes: int
    refused: int = 0
    seconds: float | None = None


@record
class Message:
    """Something to tell the user that belongs to no probe."""

    text: str
    details: dict[str, str | int] = fresh(dict)


@record
class Stats:
    """What enabling, tracing and restoring took. ``values``: seconds end in ``_s``, counts and bytes are plain."""

    values: dict[str, float | int]


@record
class Cost:
    """What one clause has cost: how often it has run, and nanoseconds for all of these."""

    clause: int
    firings: int
    ns: float


@record
class Costs:
    """What the program has cost the guest, as measured in it.

    ``entries``, ``entries_ns``: how often control has gone to clauses and back, and what that takes beside them.
    ``percent``: all of it, of the time of the guest's CPUs. ``limit``: what it had to be stopped for, in percent.
    """

    clauses: tuple[Cost, ...]
    entries: int
    entries_ns: float
    percent: float
    limit: int | None = None


Event = ProbeFired | Aggregation | Drop | Fault | ExitRequested | Attached | Message | Stats | Costs
