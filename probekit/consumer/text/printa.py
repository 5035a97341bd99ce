r"""Renders ``printa()`` with a format, once for each key. Plain conversions show the key, those with ``@`` the values.

printa("%s %@d\n", @a)   {("sh",): 3}  ->  "sh 3\n"
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from probekit.buffers.aggs import AggFuncName
from probekit.buffers.formats import Conversion, Format
from probekit.consumer.events import (
    AggValue,
    Average,
    GuestText,
    Histogram,
    JoinedRow,
    KeyKind,
    KeyValue,
    Piece,
    Printed,
    Quantize,
    StackFrames,
    StdDev,
    SymbolName,
    Table,
    TraceInt,
    TraceString,
    divide,
)
from probekit.consumer.text.printf import Argument, FormatContext, convert
from probekit.consumer.text.quantize import histogram_lines

__all__ = ("render_rows", "scaled", "shown_values")


def render_rows(form: Format, table: Table, context: FormatContext) -> Printed:
    """Return the text of one ``printa()``, for all rows of its table."""
    pieces: list[Piece] = []
    for row in table.rows:
        keys = iter([_key(part, kind) for part, kind in zip(row.key, table.keys, strict=False)])
        values = list(shown_values(row, table.funcs))
        for part in form.parts:
            if isinstance(part, str):
                pieces.append(part)
            elif "@" in part.flags:
                pieces.append(_aggregated(part, keys, values[0], context))
                values = values[1:] or values  # a further conversion shows the last value again
            else:
                pieces.append(convert(part, keys, context))
    return Printed(tuple(_joined(pieces)))


def _joined(pieces: Sequence[Piece]) -> Iterator[Piece]:
    """Join adjacent pieces of the same kind, so that a table of thousands of rows becomes few pieces."""
    run: list[str] = []
    guest = False
    for piece in pieces:
        text, is_guest = (piece.text, True) if isinstance(piece, GuestText) else (piece, False)
        if is_guest != guest and run:
            yield GuestText("".join(run)) if guest else "".join(run)
            run = []
        guest = is_guest
        run.append(text)
    if run:
        yield GuestText("".join(run)) if guest else "".join(run)


def _key(part: KeyValue, kind: KeyKind) -> Argument:
    if isinstance(part, int):
        return TraceInt(part, bits=kind.bits, signed=kind.kind == "int")
    match kind.kind:
        case "symbol":
            return SymbolName(part)
        case "stack":
            return StackFrames(tuple(part.splitlines()))
        case _:
            return TraceString(part)


def shown_values(row: JoinedRow, funcs: Sequence[AggFuncName]) -> Iterator[tuple[AggValue | None, int]]:
    """Return an iterator over the values, each with its divisor of ``normalize()``; a missing value is None."""
    return iter([(value, normal) for value, normal, _ in zip(row.values, row.normals, funcs, strict=True)])


def scaled(value: int | Average | StdDev | None, normal: int) -> int:
    """Return a value as one number, divided by ``normal``; 0 for a missing one."""
    match value:
        case None:
            return 0
        case int():
            return divide(value, normal)
        case Average(total=total, count=count):
            return divide(divide(total, normal), count)
        case StdDev():
            return value.value(normal)


def _aggregated(
    conversion: Conversion, keys: Iterator[Argument], shown: tuple[AggValue | None, int], context: FormatContext
) -> Piece:
    value, normal = shown
    stars = [next(keys, TraceInt(0)) for star in (conversion.star_width, conversion.star_precision) if star]
    if isinstance(value, Quantize | Histogram):
        lines = histogram_lines(value, normal=normal, zoom=context.zoom)
        return "\n" + "".join(f"{line}\n" for line in lines)
    return convert(conversion, iter([*stars, TraceInt(scaled(value, normal))]), context)
