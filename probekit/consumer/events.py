"""The neutral model of what tracing yields: every renderer starts from these, none adds facts of its own.

    printf("%d %s\\n", pid, execname)  ->  ProbeFired(cpu=0, probe=Probe(7, ...), clause=0, timestamp=...,
                                               items=(Printed(("12 ", GuestText("bash"), "\\n")),))

Text that the guest supplied stays apart from text that the user wrote
(:class:`GuestText`), so that a renderer for a terminal can escape the one and
leave the other alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from probekit.buffers.aggs import AggFuncName
from probekit.consumer.drops import Drop
from probekit.probe.names import ProbeName

__all__ = (
    "Aggregation",
    "Attached",
    "Average",
    "Drop",
    "Event",
    "ExitRequested",
    "Fault",
    "Flow",
    "GuestText",
    "Item",
    "KeyKind",
    "KeyValue",
    "Message",
    "Piece",
    "Printed",
    "Probe",
    "ProbeFired",
    "Quantize",
    "Row",
    "Stats",
    "TraceInt",
    "TraceString",
    "Value",
)


@dataclass(frozen=True, slots=True)
class Probe:
    """One probe of this session: its ID, as ``-l`` lists it, and its name."""

    id: int
    name: ProbeName


@dataclass(frozen=True, slots=True)
class TraceInt:
    """An integer of ``bits`` (8, 16, 32, 64) width; ``value`` is already extended by its signedness."""

    value: int
    bits: int = 64
    signed: bool = True


@dataclass(frozen=True, slots=True)
class TraceString:
    """A string from the guest."""

    text: str


@dataclass(frozen=True, slots=True)
class GuestText:
    """A stretch of printed text that came from the guest and may hold anything."""

    text: str


Piece = str | GuestText


@dataclass(frozen=True, slots=True)
class Printed:
    """What one ``printf()`` printed: the user's own text, and the guest's."""

    pieces: tuple[Piece, ...]

    @property
    def text(self) -> str:
        """All of it, unescaped."""
        return "".join(p if isinstance(p, str) else p.text for p in self.pieces)


Item = TraceInt | TraceString | Printed


@dataclass(frozen=True, slots=True)
class Flow:
    """How ``-F`` draws one firing. ``prefix``: ``" -> "`` and its kin; ``named``: the probe's name is part of it."""

    indent: int
    prefix: str
    named: bool


@dataclass(frozen=True, slots=True)
class ProbeFired:
    """One clause ran at one probe and left a record. ``timestamp``: nanoseconds; ``epid``: None when not numbered."""

    cpu: int
    probe: Probe
    clause: int
    timestamp: int
    items: tuple[Item, ...]
    epid: int | None = None
    flow: Flow | None = None


@dataclass(frozen=True, slots=True)
class KeyKind:
    """The type of one key column. ``kind``: ``int``, ``uint`` or ``string``; ``bits``: an integer's D width."""

    kind: str
    bits: int = 64


@dataclass(frozen=True, slots=True)
class Average:
    """The value of ``avg()``: the sum of all data and how many there were."""

    total: int
    count: int

    @property
    def value(self) -> int:
        """The quotient, rounded towards zero as C divides."""
        if not self.count:
            return 0
        quotient = abs(self.total) // abs(self.count)
        return quotient if (self.total < 0) == (self.count < 0) else -quotient


@dataclass(frozen=True, slots=True)
class Quantize:
    """The value of ``quantize()``: a count for each bucket of :mod:`probekit.buffers.quantize`."""

    buckets: tuple[int, ...]


Value = int | Average | Quantize
KeyValue = int | str


@dataclass(frozen=True, slots=True)
class Row:
    """One key and its value."""

    key: tuple[KeyValue, ...]
    value: Value


@dataclass(frozen=True, slots=True)
class Aggregation:
    """One aggregation, merged over all CPUs and sorted.

    ``name``: without the ``@``; ``normal``: what values are divided by when printed (``normalize()``).
    """

    name: str
    func: AggFuncName
    keys: tuple[KeyKind, ...]
    rows: tuple[Row, ...]
    normal: int = 1


@dataclass(frozen=True, slots=True)
class Fault:
    """A clause was aborted at a probe.

    ``kind``: DTrace's number (``FaultKind``); ``value``: the address or operand at fault, if known;
    ``clause``: how the script names the clause; ``where``: the place in the script, such as ``line 3``.
    """

    probe: Probe
    kind: int
    cpu: int | None = None
    value: int | None = None
    clause: str = ""
    where: str = ""
    timestamp: int = 0


@dataclass(frozen=True, slots=True)
class ExitRequested:
    """The script called ``exit(status)``."""

    status: int


@dataclass(frozen=True, slots=True)
class Attached:
    """Tracing starts. ``what``: ``description 'x'`` or ``script 'x.d'``; ``probes``: how many it matched."""

    what: str
    probes: int
    refused: int = 0
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """Something to tell the user that belongs to no probe."""

    text: str
    details: dict[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stats:
    """What enabling, tracing and restoring took. ``values``: seconds end in ``_s``, counts and bytes are plain."""

    values: dict[str, float | int]


Event = ProbeFired | Aggregation | Drop | Fault | ExitRequested | Attached | Message | Stats
