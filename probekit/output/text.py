"""Writes text exactly as DTrace does, to the column.

    CPU     ID                    FUNCTION:NAME
      0      1                           :BEGIN hello

The header comes before the first record, as with dtrace, so a script that only aggregates has none. Output of the
script is written to ``out``. Drops, faults and messages are written to ``messages``, after the program's name. Control
characters in text from the guest are spelled out, unless ``escape`` is off.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import assert_never

from probekit.buffers.aggs import AggFuncName
from probekit.consumer import events as model
from probekit.consumer.events import (
    Aggregation,
    AggValue,
    Attached,
    Costs,
    Drop,
    Event,
    ExitRequested,
    Fault,
    Flow,
    Histogram,
    JoinedRow,
    KeyKind,
    KeyValue,
    Message,
    ProbeFired,
    Quantize,
    RecordItem,
    Row,
    Stats,
)
from probekit.consumer.text.costs import costs_lines
from probekit.consumer.text.drops import drop_text
from probekit.consumer.text.faults import fault_text
from probekit.consumer.text.printa import scaled
from probekit.consumer.text.quantize import histogram_lines
from probekit.consumer.text.strings import escape_controls, padded
from probekit.output.api import PROGRAM, TextStyle
from probekit.output.dump import hexdump, looks_like_text, typed_lines
from probekit.output.effects import Effects, NoEffects
from probekit.output.streams import TextStream

__all__ = (
    "TextRenderer",
    "aggregation_text",
)

_HEADER = f"{'CPU':>3} {'ID':>6} {'FUNCTION:NAME':>32}\n"
_FLOW_HEADER = f"{'CPU':>3} {'FUNCTION':<41}\n"
_TRACE_STRING = 33
_KEY_STRING = 50
_PRINT_INDENT = 44
_INT_COLUMNS = {8: 3, 16: 5, 32: 8, 64: 16}


class TextRenderer:
    """Writes events as dtrace(1) does."""

    def __init__(
        self,
        out: TextStream,
        messages: TextStream,
        style: TextStyle | None = None,
        *,
        effects: Effects | None = None,
    ) -> None:
        """Prepare. ``effects``: carries out ``system()``, ``freopen()``, ``setopt()``; by default they do nothing."""
        self._out = out
        self._messages = messages
        self._style = style or TextStyle()
        self._effects = effects or NoEffects()
        self._headed = False

    def header(self) -> None:
        """Write nothing yet: the header comes with the first record."""

    def event(self, event: Event) -> None:
        """Write one event."""
        match event:
            case ProbeFired():
                self._head()
                self._fired(event)
            case Aggregation():
                self._out.write("\n" + aggregation_text(event, self._style))
            case Drop():
                tag = f"[DTRACEDROP_{event.kind.upper()}] " if self._style.drop_tags else ""
                self._say(tag + drop_text(event))
            case Fault():
                self._say(escape_controls(fault_text(event)))
            case Attached():
                if event.refused or not self._style.quiet:
                    self._say(_attached_text(event))
            case Message(text=text):
                self._say(escape_controls(text))
            case Stats(values=values):
                if self._style.verbose:
                    for line in _stats_lines(values):
                        self._say(line)
            case Costs():
                for line in costs_lines(event, verbose=self._style.verbose):
                    self._say(line)
            case ExitRequested():
                pass
            case _:
                assert_never(event)

    @property
    def takes_text(self) -> bool:
        """Whether the output is only printed text, unchanged and without columns about the probe."""
        return self._style.quiet and not self._style.flow and not self._style.escape

    def printed(self, text: str) -> None:
        """Write the printed text of many records."""
        self._out.write(text)

    def aggregations(self, aggregations: Sequence[Aggregation]) -> None:
        """Write the aggregations, after a blank line. As with dtrace, the line is written even if there are none."""
        self._out.write("\n")
        for aggregation in aggregations:
            self._out.write(aggregation_text(aggregation, self._style))

    def _fired(self, fired: ProbeFired) -> None:
        """Write a line, or with ``quiet`` only its items. Carry out ``system()`` and ``freopen()`` between items."""
        self._out.write(_columns(fired, self._style))
        for item in fired.items:
            match item:
                case model.Command(text=text):
                    self._out.flush()
                    self._effects.run(text)
                case model.Reopened(path=path):
                    self._out.flush()
                    self._reopen(path)
                case model.Truncated():
                    self._out.flush()
                    self._effects.truncate(self._out)
                case model.OptionSet(name=name, value=value):
                    self._style = self._effects.restyle(self._style, name, value)
                case _:
                    self._out.write(_item(item, self._style))
        if not self._style.quiet:
            self._out.write("\n")

    def _reopen(self, path: str) -> None:
        try:
            self._out = self._effects.reopen(path)
        except OSError as error:
            self._say(f'couldn\'t freopen("{escape_controls(path)}"): {error.strerror}')

    def flush(self) -> None:
        """Flush what was written."""
        self._out.flush()

    def close(self) -> None:
        """Flush both streams."""
        self._out.flush()
        self._messages.flush()

    def _head(self) -> None:
        if not self._headed and (self._style.flow or not self._style.quiet):
            self._out.write(_FLOW_HEADER if self._style.flow else _HEADER)
        self._headed = True

    def _say(self, text: str) -> None:
        # Both streams may be one terminal: earlier output must come first.
        self._out.flush()
        self._messages.write(f"{PROGRAM}: {text}\n")
        self._messages.flush()


def _stats_lines(values: Mapping[str, float | int]) -> Iterator[str]:
    """Yield a line for each figure of ``-v``. Times are in milliseconds."""
    for name, value in values.items():
        label = name.removesuffix("_s").replace("_", " ")
        if name.endswith("_s"):
            yield f"{label}: {value * 1000:.1f} ms"
        else:
            yield f"{label}: {value:,.1f}" if isinstance(value, float) else f"{label}: {value:,}"


def _attached_text(attached: Attached) -> str:
    """Return ``description 'x' matched 3 probes``, and how many more there are that cannot be enabled."""
    matched = f"{attached.what} matched {attached.probes} probe{'' if attached.probes == 1 else 's'}"
    return f"{matched}, {attached.refused} not available (-l -v says why)" if attached.refused else matched


def _columns(fired: ProbeFired, style: TextStyle) -> str:
    """Return the columns before the items."""
    if style.flow:
        return f"{fired.cpu:>3} {_flow_name(fired, style):<41} "
    if style.quiet:
        return ""
    name = style.guest(f"{fired.probe.name.function}:{fired.probe.name.name}")
    return f"{fired.cpu:>3} {fired.probe.id:>6} {name:>32} "


def _flow_name(fired: ProbeFired, style: TextStyle) -> str:
    flow = fired.flow or Flow(indent=0, prefix="| ", named=True)
    name = fired.probe.name.function
    if flow.named:
        name += f":{fired.probe.name.name}"
    return " " * flow.indent + flow.prefix + style.guest(name)


def _item(item: RecordItem, style: TextStyle) -> str:
    match item:
        case model.TraceInt(value=value, bits=bits):
            return _number(value if bits in _AS_TYPED else _as_key(value, bits), bits, quiet=style.quiet)
        case model.TraceString(text=text):
            if style.raw_bytes:
                return _raw_string(text, style)
            return style.guest(text) if style.quiet else _string(text, _TRACE_STRING, style)
        case model.TraceBytes(data=data):
            return _bytes(data, style)
        case model.Dump(data=data):
            return hexdump(data)
        case model.Printed(pieces=pieces):
            return "".join(p if isinstance(p, str) else style.guest(p.text) for p in pieces)
        case model.StackFrames(frames=frames):
            return "\n" + "".join(f"{'':{style.stack_indent}}{style.guest(frame)}\n" for frame in frames)
        case model.SymbolName(text=text):
            return _string(text, _KEY_STRING, style)
        case model.TypedValue():
            return _typed(item, style)
        case model.Table():
            return "\n" + "".join(_row(row, item.keys, item.funcs, style) for row in item.rows)
        case model.Command() | model.Reopened() | model.Truncated() | model.OptionSet():
            return ""
        case _:
            assert_never(item)


def _as_key(value: int, bits: int) -> int:
    """Return the number that DTrace shows for a key: 32 and 64 bits are signed, narrower ones are not."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if bits >= 32 and value >> (bits - 1) else value


_AS_TYPED = (16, 32)
"""The widths whose values ``trace()`` shows as their type has them. It shows others as keys are shown."""


def _number(value: int, bits: int, *, quiet: bool = False) -> str:
    return str(value) if quiet else f" {value:>{_INT_COLUMNS.get(bits, 16)}}"


def _string(text: str, columns: int, style: TextStyle) -> str:
    return f"  {padded(style.guest(text), columns, left=True)}"


def _raw_string(text: str, style: TextStyle) -> str:
    """Return a string in hexadecimal: all bytes that a variable of type string has."""
    return hexdump(text.encode("utf-8", "surrogateescape")[: style.string_size].ljust(style.string_size, b"\0"))


def _bytes(data: bytes, style: TextStyle) -> str:
    text = None if style.raw_bytes else looks_like_text(data)
    if text is None:
        return hexdump(data) if data else ""
    return style.guest(text) if style.quiet else _string(text, _TRACE_STRING, style)


def _typed(value: model.TypedValue, style: TextStyle) -> str:
    lines = [style.guest(line) for line in typed_lines(value.type, value.data)]
    if value.addr is None and len(lines) == 1:
        return lines[0]
    indent = "" if style.quiet else " " * _PRINT_INDENT
    head = "" if value.addr is None else f"0x{value.addr:x} = *"
    return head + "\n" + "".join(f"{indent}{line}\n" for line in lines)


def aggregation_text(aggregation: Aggregation, style: TextStyle) -> str:
    """Return all rows of one aggregation, without the blank line before it."""
    return "".join(_single(row, aggregation, style) for row in aggregation.rows)


def _single(row: Row, aggregation: Aggregation, style: TextStyle) -> str:
    return _row(JoinedRow(row.key, (row.value,), (row.normal,)), aggregation.keys, (aggregation.func,), style)


def _row(row: JoinedRow, kinds: Sequence[KeyKind], funcs: Sequence[AggFuncName], style: TextStyle) -> str:
    keys = "".join(_key(part, kind, style) for part, kind in zip(row.key, kinds, strict=False))
    values = "".join(_value(v, n, style) for v, n, _ in zip(row.values, row.normals, funcs, strict=False))
    return f"{keys}{values}\n"


def _key(part: KeyValue, kind: KeyKind, style: TextStyle) -> str:
    if isinstance(part, int):
        return _number(_as_key(part, kind.bits), kind.bits)
    if kind.kind == "stack":
        return "\n" + "".join(f"{'':{style.stack_indent}}{style.guest(frame)}\n" for frame in part.splitlines())
    if style.raw_bytes and kind.kind == "string":
        return _raw_string(part, style)
    return _string(part, _KEY_STRING, style)


def _value(value: AggValue | None, normal: int, style: TextStyle) -> str:
    if isinstance(value, Quantize | Histogram):
        return "\n" + "".join(f"{line}\n" for line in histogram_lines(value, normal=normal, zoom=style.zoom))
    return f" {scaled(value, normal):>16}"
