"""DTrace's own text, to the column.

    CPU     ID                    FUNCTION:NAME
      0      1                           :BEGIN hello

The header waits for the first record, as dtrace's does: a script that only
aggregates has none. What the script asked for goes to ``out``; drops, faults
and messages go to ``messages`` under the program's name. Text that the guest
supplied has its control characters spelled out unless ``escape`` is off.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TextIO, assert_never

from probekit.consumer.drops import drop_text
from probekit.consumer.events import (
    Aggregation,
    Attached,
    Average,
    Drop,
    Event,
    ExitRequested,
    Fault,
    Flow,
    Item,
    KeyKind,
    KeyValue,
    Message,
    Printed,
    ProbeFired,
    Quantize,
    Row,
    Stats,
    TraceInt,
    TraceString,
    Value,
)
from probekit.consumer.faults import fault_text
from probekit.consumer.strings import escape_controls
from probekit.output.api import PROGRAM
from probekit.output.histogram import divide, quantize_lines

__all__ = ("TextRenderer", "TextStyle", "aggregation_text", "attached_text", "fired_text")

_HEADER = f"{'CPU':>3} {'ID':>6} {'FUNCTION:NAME':>32}\n"
_FLOW_HEADER = f"{'CPU':>3} {'FUNCTION':<41}\n"
_TRACE_STRING = 33
_KEY_STRING = 50
_INT_COLUMNS = {8: 3, 16: 5, 32: 8, 64: 16}


@dataclass(frozen=True, slots=True)
class TextStyle:
    """``quiet``: only what the script prints (``-q``); ``flow``: indented (``-F``); ``escape``: guest text defused.

    ``verbose``: figures of what enabling and restoring took (``-v``).
    """

    quiet: bool = False
    flow: bool = False
    escape: bool = True
    verbose: bool = False

    def guest(self, text: str) -> str:
        """Text from the guest as it may be written."""
        return escape_controls(text) if self.escape else text


class TextRenderer:
    """Writes events as dtrace(1) does."""

    def __init__(self, out: TextIO, messages: TextIO, style: TextStyle | None = None) -> None:
        self._out = out
        self._messages = messages
        self._style = style or TextStyle()
        self._headed = False

    def header(self) -> None:
        """Nothing yet: the header comes with the first record."""

    def event(self, event: Event) -> None:
        """Write one event."""
        match event:
            case ProbeFired():
                self._head()
                self._out.write(fired_text(event, self._style))
            case Aggregation():
                self._out.write("\n" + aggregation_text(event, self._style))
            case Drop():
                self._say(drop_text(event))
            case Fault():
                self._say(escape_controls(fault_text(event)))
            case Attached():
                if not self._style.quiet:
                    self._say(attached_text(event))
            case Message(text=text):
                self._say(escape_controls(text))
            case Stats(values=values):
                if self._style.verbose:
                    for line in stats_lines(values):
                        self._say(line)
            case ExitRequested():
                pass
            case _:
                assert_never(event)

    def aggregations(self, aggregations: Sequence[Aggregation]) -> None:
        """Write what is left at the end, after a blank line even if there is nothing: dtrace ends so."""
        self._out.write("\n" + "".join(aggregation_text(a, self._style) for a in aggregations))

    def close(self) -> None:
        """Flush both streams."""
        self._out.flush()
        self._messages.flush()

    def _head(self) -> None:
        if not self._headed and (self._style.flow or not self._style.quiet):
            self._out.write(_FLOW_HEADER if self._style.flow else _HEADER)
        self._headed = True

    def _say(self, text: str) -> None:
        # What came before belongs before it, also when both streams are one terminal.
        self._out.flush()
        self._messages.write(f"{PROGRAM}: {text}\n")


def stats_lines(values: Mapping[str, float | int]) -> Iterator[str]:
    """``-v``: each figure on a line, times in milliseconds."""
    for name, value in values.items():
        label = name.removesuffix("_s").replace("_", " ")
        if name.endswith("_s"):
            yield f"{label}: {value * 1000:.1f} ms"
        else:
            yield f"{label}: {value:,.1f}" if isinstance(value, float) else f"{label}: {value:,}"


def attached_text(attached: Attached) -> str:
    """``description 'x' matched 3 probes``."""
    return f"{attached.what} matched {attached.probes} probe{'' if attached.probes == 1 else 's'}"


def fired_text(fired: ProbeFired, style: TextStyle) -> str:
    """One record: its line, or with ``quiet`` what was traced and printed and nothing else."""
    items = "".join(_item(item, style) for item in fired.items)
    if style.flow:
        return f"{fired.cpu:>3} {_flow_name(fired, style):<41} {items}\n"
    if style.quiet:
        return items
    name = style.guest(f"{fired.probe.name.function}:{fired.probe.name.name}")
    return f"{fired.cpu:>3} {fired.probe.id:>6} {name:>32} {items}\n"


def _flow_name(fired: ProbeFired, style: TextStyle) -> str:
    flow = fired.flow or Flow(indent=0, prefix="| ", named=True)
    name = fired.probe.name.function
    if flow.named:
        name += f":{fired.probe.name.name}"
    return " " * flow.indent + flow.prefix + style.guest(name)


def _item(item: Item, style: TextStyle) -> str:
    match item:
        case TraceInt(value=value, bits=bits):
            return str(value) if style.quiet else _integer(value, bits)
        case TraceString(text=text):
            return style.guest(text) if style.quiet else _string(text, _TRACE_STRING, style)
        case Printed(pieces=pieces):
            return "".join(p if isinstance(p, str) else style.guest(p.text) for p in pieces)
        case _:
            assert_never(item)


def _integer(value: int, bits: int) -> str:
    return f" {value:>{_INT_COLUMNS.get(bits, 16)}}"


def _string(text: str, columns: int, style: TextStyle) -> str:
    return f"  {style.guest(text):<{columns}}"


def aggregation_text(aggregation: Aggregation, style: TextStyle) -> str:
    """All rows of one aggregation, without the blank line before."""
    return "".join(_row(row, aggregation, style) for row in aggregation.rows)


def _row(row: Row, aggregation: Aggregation, style: TextStyle) -> str:
    keys = "".join(_keys(row.key, aggregation.keys, style))
    return f"{keys}{_value(row.value, aggregation.normal)}\n"


def _keys(key: Sequence[KeyValue], kinds: Sequence[KeyKind], style: TextStyle) -> Iterator[str]:
    for part, kind in zip(key, kinds, strict=False):
        yield _integer(part, kind.bits) if isinstance(part, int) else _string(part, _KEY_STRING, style)


def _value(value: Value, normal: int) -> str:
    match value:
        case int():
            return _integer(divide(value, normal), 64)
        case Average(total=total, count=count):
            return _integer(divide(divide(total, normal), count) if count else 0, 64)
        case Quantize():
            return "\n" + "".join(f"{line}\n" for line in quantize_lines(value, normal=normal))
        case _:
            assert_never(value)
