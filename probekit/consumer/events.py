"""Defines the events that tracing yields. Every renderer starts from them, and none adds facts of its own.

    printf("%d %s\\n", pid, execname)  ->  ProbeFired(cpu=0, probe=ProbeIdentity(7, ...), clause=0, timestamp=...,
                                               items=(Printed(("12 ", GuestText("bash"), "\\n")),))

:data:`Event` lists all kinds of events, :data:`RecordItem` all items of a record. Text from the guest is kept apart
(:class:`GuestText`) from text that the user wrote, so that a renderer for a terminal escapes only text from the guest.
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
    """The number and name of a probe."""

    id: int
    """Its number in this session, as ``-l`` lists it."""
    name: ProbeName


# Items of a record.


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
    """A piece of printed text that came from the guest and may hold any characters."""

    text: str


Piece = str | GuestText
"""A piece of printed text: the user's own text, or text from the guest."""


@record
class Printed:
    """The output of one ``printf()``: the user's own text, and text from the guest."""

    pieces: tuple[Piece, ...]

    @property
    def text(self) -> str:
        """The whole text, not escaped."""
        return "".join(p if isinstance(p, str) else p.text for p in self.pieces)


@record
class TraceBytes:
    """Memory that ``trace()`` recorded: a struct or an array. It is shown as text when it looks like text."""

    data: bytes


@record
class Dump:
    """Memory that ``tracemem()`` recorded. It is always shown in hexadecimal."""

    data: bytes


@record
class StackFrames:
    """A stack that ``stack()`` or ``ustack()`` recorded."""

    frames: tuple[str, ...]
    """The frames, innermost first, as ``module`name+0x10`` or as an address in hexadecimal."""


@record
class SymbolName:
    """The name of an address, from ``sym()``, ``func()`` or ``mod()``."""

    text: str


@record
class TypedValue:
    """A value that ``print()`` recorded."""

    type: PrintType
    """The type of the value, which gives the layout of ``data``."""
    data: bytes
    addr: int | None = None
    """The guest address that ``data`` was read from, when a pointer was given."""


@record
class Command:
    """A command that the script runs now, by ``system()``."""

    text: str


@record
class Reopened:
    """A change of the output file, by ``freopen()``. Later output goes to this file."""

    path: str
    """The file; empty to return to the first output."""


@record
class Truncated:
    """A truncation of the output file, by ``ftruncate()``: its contents so far are deleted."""


@record
class OptionSet:
    """A change of an option, by ``setopt()``. The session has checked the value, and applied it to the run."""

    name: str
    value: str


@record
class Table:
    """The output of ``printa()`` without a format: rows of one aggregation, or of several joined by key."""

    keys: tuple[KeyKind, ...]
    """The type of each key column."""
    rows: tuple[JoinedRow, ...]
    names: tuple[str, ...]
    """The aggregations' names, without the ``@``."""
    funcs: tuple[AggFuncName, ...]
    """The aggregations' functions."""


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
"""One item of a record: a value to show, or an action on the output."""


@record
class Flow:
    """The indentation and arrow of one firing, for ``-F``."""

    indent: int
    """Columns before the prefix."""
    prefix: str
    """``" -> "``, ``" <- "``, ``" => "``, ``" <= "`` or ``"| "``."""
    named: bool
    """Whether the probe's name follows its function."""


@record
class ProbeFired:
    """One clause has run at one probe and written a record."""

    cpu: int
    probe: ProbeIdentity
    clause: int
    """The number of the clause in the program, from 0."""
    timestamp: int
    """Nanoseconds of the guest's clock, which may start at any moment."""
    items: tuple[RecordItem, ...]
    """The items that the clause recorded, in order."""
    flow: Flow | None = None
    """Its indentation and arrow; None without ``-F``."""


# Aggregations.


@record
class KeyKind:
    """The type of one key column."""

    kind: str
    """``int``, ``uint``, ``string``, ``symbol`` (a name found for an address) or ``stack`` (a frame on each line)."""
    bits: int = 64
    """The width of an integer in bits, by its type in D."""


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
    """The sum of all values."""
    count: int
    """How many values there were."""

    @property
    def value(self) -> int:
        """The quotient, rounded towards zero as C divides."""
        return divide(self.total, self.count)


@record
class StdDev:
    """The value of ``stddev()``."""

    count: int
    """How many values there were."""
    total: int
    """The sum of all values."""
    squares: int
    """The sum of the squares of all values."""

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
    """The bounds of the buckets."""
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
    """The divisor of the value in output (``normalize()``)."""


@record
class JoinedRow:
    """The values of several aggregations for one key."""

    key: tuple[KeyValue, ...]
    values: tuple[AggValue | None, ...]
    """The value of each aggregation; None for one that does not have the key."""
    normals: tuple[int, ...]
    """The divisor of each value in output (``normalize()``)."""


@record
class Aggregation:
    """One aggregation, merged over all CPUs and sorted."""

    name: str
    """Its name, without the ``@``."""
    func: AggFuncName
    keys: tuple[KeyKind, ...]
    """The type of each key column."""
    rows: tuple[Row, ...]


# Other events.


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
    "missed",
]
"""The kinds of lost data. The text of each drop message is in :data:`probekit.consumer.text.drops.DROP_WORDS`.

The first eight are DTrace's. ``recursion``: a probe fired while its CPU was already inside a clause. ``corrupt``: a
record was malformed. ``silenced``: the guest's watchdog turned the clauses off. ``missed``: a ``tick-N`` or
``profile-N`` probe was late by whole periods, on each CPU that it fires for. Only the stop engine has the others.
``unseen``: watched memory changed, but no stop reported it. ``undecoded``: of an access only the range is known.
``steps``: the trap of a single step was lost.
"""


@record
class Drop:
    """Data was lost."""

    kind: DropKind
    cpu: int | None
    """The CPU that lost the data; None for a loss that belongs to no single CPU."""
    count: int
    """How many items were lost since the last report."""
    total: int
    """How many items were lost since tracing began."""
    probe: ProbeIdentity | None = None
    """The probe that has missed firings; None for all other losses."""


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
    """The clause's name in messages, such as ``clause 2``."""
    where: str = ""
    """The place in the script, such as ``line 3``."""
    timestamp: int = 0
    """Nanoseconds, as in :class:`ProbeFired`."""


@record
class ExitRequested:
    """The script called ``exit(status)``."""

    status: int


@record
class Attached:
    """Tracing begins: all probes are live."""

    what: str
    """The program: ``description 'x'`` or ``script 'x.d'``."""
    probes: int
    """How many probes it enables."""
    refused: int = 0
    """How many matching probes cannot be enabled."""


@record
class Message:
    """A message to the user that belongs to no probe."""

    text: str


@record
class Stats:
    """The time, memory and counts of enabling, tracing and restoring."""

    values: dict[str, float | int]
    """Figures by name. They are seconds where the name ends in ``_s``, else counts or bytes."""


@record
class Cost:
    """The CPU time of one clause in the guest."""

    clause: int
    """The number of the clause in the program, from 0."""
    firings: int
    """How often the clause has run."""
    ns: float
    """Nanoseconds of all its firings together."""


@record
class Costs:
    """The CPU time of the program in the guest, as measured there."""

    clauses: tuple[Cost, ...]
    """The cost of each clause that has fired."""
    entries: int
    """How often a thunk, which runs the clauses of a site, was called."""
    entries_ns: float
    """Nanoseconds of these calls and their returns, without the clauses themselves."""
    percent: float
    """The total, in percent of the time of the guest's CPUs."""
    limit: int | None = None
    """The limit, in percent, if the program was ended because it exceeded it; else None."""


Event = ProbeFired | Aggregation | Drop | Fault | ExitRequested | Attached | Message | Stats | Costs
"""One event of a run."""
