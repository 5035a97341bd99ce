"""Makes fast readers, each for one plan: most records are a few integers and strings, and there may be very many.

    printf("%d %s %d\\n", pid, execname, arg0)
    ->  a, b, c = unpack(payload)
        (Printed(("%d " % a, GuestText(decode(b)), " %d\\n" % c)),)

A reader returns the same items as :func:`probekit.consumer.record_events.decode_record`. A plan with other fields than
plain integers and strings has no fast reader. When only the text of records is needed, :func:`bulk_printer` makes a
function that turns many records into one text.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from probekit.buffers import actions as acts
from probekit.buffers.actions import RecordField, RecordPlan
from probekit.buffers.formats import Conversion, Format
from probekit.buffers.layout import RawRecord
from probekit.consumer.events import GuestText, Printed, ProbeIdentity, RecordItem, TraceInt, TraceString
from probekit.consumer.symbols import probe_field
from probekit.consumer.text.strings import decode, padded

__all__ = ("BulkPrinter", "PlanReader", "bulk_printer", "plan_reader")

PlanReader = Callable[[bytes, ProbeIdentity], "tuple[RecordItem, ...]"]
"""Returns the items of a payload, whose size must be the plan's."""

BulkPrinter = Callable[[Sequence[tuple[int, RawRecord]], Mapping[int, ProbeIdentity]], str]
"""Returns the printed text of records. All must have one plan and its size, and sites that are in the mapping."""

_CODES = {1: "b", 2: "h", 4: "i", 8: "q"}
_SIGNED = frozenset("di")
_LETTERS = {"d": "d", "i": "d", "u": "d", "o": "o", "x": "x", "X": "X", "p": "x"}
_PLAIN_FLAGS = frozenset("-0")
_WIDEST = 4096


class _Unfit(Exception):
    """The plan has a field or action that a fast reader does not support."""


def plan_reader(plan: RecordPlan) -> PlanReader | None:
    """Return a fast reader for ``plan``, or None when it is not simple enough."""
    try:
        return _ReaderSource(plan).compile_reader()
    except _Unfit:
        return None


def bulk_printer(plan: RecordPlan) -> BulkPrinter | None:
    """Return a printer for ``plan``, or None when it has other actions than ``printf()``."""
    try:
        return _ReaderSource(plan).compile_bulk()
    except _Unfit:
        return None


_text = lru_cache(maxsize=4096)(decode)  # the same few names occur again and again


class _ReaderSource:
    """Writes the Python text of a reader. Names in it: ``v0`` ... the unpacked fields, ``c0`` ... constants."""

    def __init__(self, plan: RecordPlan) -> None:
        self._plan = plan
        self._signed = [field.kind == "int" for field in plan.fields]
        self._constants: dict[str, Any] = {
            "Printed": Printed,
            "GuestText": GuestText,
            "TraceInt": TraceInt,
            "TraceString": TraceString,
            "decode": decode,
            "padded": padded,
            "probe_field": probe_field,
        }

    def compile_reader(self) -> PlanReader:
        """Return the reader. Raises :class:`_Unfit`."""
        items = [self._item(action) for action in self._plan.actions]
        names = self._unpacked()
        take = f"    {names} = unpack(payload)\n" if names else ""
        text = f"def read(payload, probe):\n{take}    return ({''.join(f'{item}, ' for item in items)})\n"
        reader: PlanReader = self._made(text)
        return reader

    def compile_bulk(self) -> BulkPrinter:
        """Return the printer of many records. Raises :class:`_Unfit`."""
        template, values = "", list[str]()
        for action in self._plan.actions:
            if not isinstance(action, acts.Printf):
                raise _Unfit
            for text, value in self._parts(action.format, action.fields):
                template += text
                values += value
        self._constants |= {"decode": _text, "template": template}
        names = self._unpacked()
        take = f" for {names} in (unpack(payload),)" if names else ""
        probe = " for probe in (probes[site],)" if any(field.kind == "probe" for field in self._plan.fields) else ""
        line = f"template % ({''.join(f'{value}, ' for value in values)})"
        each = f"for _, (_, _, site, _, payload) in records{take}{probe}"
        printer: BulkPrinter = self._made(f"def read(records, probes):\n    return ''.join([{line} {each}])\n")
        return printer

    def _made(self, text: str) -> Any:
        scope: dict[str, Any] = dict(self._constants)
        exec(compile(text, "<plan>", "exec"), scope)
        return scope["read"]

    def _unpacked(self) -> str:
        """Return the names that a payload is unpacked to, each followed by a comma."""
        shape = self._shape()
        if shape.size > self._plan.size:
            raise _Unfit
        self._constants["unpack"] = shape.unpack_from
        return "".join(f"v{n}, " for n, field in enumerate(self._plan.fields) if field.size)

    def _shape(self) -> struct.Struct:
        parts, at = ["<"], 0
        for number, field in enumerate(self._plan.fields):
            if not field.size:
                continue
            if field.offset < at:
                raise _Unfit
            parts.append(f"{field.offset - at}x" if field.offset > at else "")
            code = f"{field.size}s" if field.kind == "string" else _CODES.get(field.size, "")
            if not code or field.kind not in ("int", "uint", "string") or field.detail:
                raise _Unfit
            parts.append(code if self._signed[number] or field.kind == "string" else code.upper())
            at = field.offset + field.size
        return struct.Struct("".join(parts))

    def _item(self, action: acts.Action) -> str:
        match action:
            case acts.TraceAction(field=number):
                return self._traced(number)
            case acts.Printf(format=form, fields=numbers):
                return self._printed(form, numbers)
            case _:
                raise _Unfit

    def _traced(self, number: int) -> str:
        field = self._plan.fields[number]
        if field.kind in ("string", "probe"):
            return f"TraceString({self._text(number, field)})"
        return f"TraceInt(v{number}, {8 * field.size}, {self._signed[number]})"

    def _text(self, number: int, field: RecordField) -> str:
        if field.kind == "probe":
            return f"probe_field(probe.name, {self._constant(field.detail)})"
        return f"decode(v{number})"

    def _printed(self, form: Format, numbers: tuple[int, ...]) -> str:
        pieces: list[str] = []
        template, values = "", list[str]()
        for text, value in self._parts(form, numbers):
            if value and "s" in text:  # a conversion of text from the guest, which is kept apart
                pieces += self._literal(template, values)
                template, values = "", []
                shown = value[0] if text == "%s" else f"{self._constant(text)} % ({value[0]},)"
                pieces.append(f"GuestText({shown})")
            else:
                template += text
                values += value
        pieces += self._literal(template, values)
        return f"Printed(({''.join(f'{piece}, ' for piece in pieces)}))"

    def _literal(self, template: str, values: list[str]) -> Iterator[str]:
        if template:
            yield f"{self._constant(template)} % ({''.join(f'{value}, ' for value in values)})"

    def _parts(self, form: Format, numbers: tuple[int, ...]) -> Iterator[tuple[str, list[str]]]:
        """Yield the pieces of a Python format, each with the value for it unless it is plain text."""
        left = iter(numbers)
        for part in form.parts:
            if isinstance(part, str):
                yield part.replace("%", "%%"), []
                continue
            number = next(left, None)
            if number is None:
                raise _Unfit
            field = self._plan.fields[number]
            of_kind = self._string if field.kind in ("string", "probe") else self._integer
            text, value = of_kind(part, number, field)
            yield text, [value]

    def _constant(self, value: str) -> str:
        name = f"c{len(self._constants)}"
        self._constants[name] = value
        return name

    def _plain(self, conversion: Conversion) -> str:
        """Return flags and width as Python's own formatting takes them."""
        star = conversion.star_width or conversion.star_precision or conversion.precision is not None
        if star or not _PLAIN_FLAGS.issuperset(conversion.flags) or (conversion.width or 0) > _WIDEST:
            raise _Unfit
        flags = "-" if "-" in conversion.flags else conversion.flags[:1]
        return f"{flags}{conversion.width or ''}"

    def _integer(self, conversion: Conversion, number: int, field: RecordField) -> tuple[str, str]:
        letter = _LETTERS.get(conversion.letter)
        if letter is None or field.kind not in ("int", "uint"):
            raise _Unfit
        value = f"v{number}"
        if field.kind == "int" and conversion.letter not in _SIGNED:
            value = f"(v{number} & {(1 << 8 * field.size) - 1:#x})"
        return f"%{self._plain(conversion)}{letter}", value

    def _string(self, conversion: Conversion, number: int, field: RecordField) -> tuple[str, str]:
        if conversion.letter != "s" or "0" in conversion.flags:
            raise _Unfit
        text, plain = self._text(number, field), self._plain(conversion)
        if not conversion.width:
            return "%s", text
        return "%s", f"padded({text}, {conversion.width}, left={plain.startswith('-')})"
