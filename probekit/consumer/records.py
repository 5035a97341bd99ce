"""Records of guest memory turned into events.

    RecordPlan: Trace(field 0: int, 4 bytes at 0)   payload ff ff ff ff 00 00 00 00
    ->  ProbeFired(..., items=(TraceInt(-1, bits=32, signed=True),))

The guest is untrusted: a payload that does not hold the fields that its plan
promises, a clause or a site that does not exist, all come out as
:class:`Corrupt`, which the caller counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

from probekit.buffers.actions import Action, Default, Exit, Field, Printf, RecordPlan, Trace
from probekit.buffers.layout import RawRecord
from probekit.consumer.events import Event, ExitRequested, Fault, Item, Probe, ProbeFired, TraceInt, TraceString
from probekit.consumer.printf import DEFAULT_CONTEXT, Argument, Context, render
from probekit.consumer.strings import decode
from probekit.probe.names import ProbeName

__all__ = ("Clause", "Corrupt", "Decoded", "Program", "decode_record", "probe_field", "record_events")

_INT_SIZES = frozenset((1, 2, 4, 8))


@dataclass(frozen=True, slots=True)
class Corrupt:
    """A record that makes no sense. ``reason``: for the log."""

    reason: str


@dataclass(frozen=True, slots=True)
class Decoded:
    """The items of one record in order, and the status if the clause called ``exit()``."""

    items: tuple[Item, ...]
    exit_status: int | None = None


@dataclass(frozen=True, slots=True)
class Clause:
    """What the consumer knows of one clause. ``name``: for messages; ``where``: its place in the script."""

    plan: RecordPlan
    name: str = ""
    where: str = ""


@dataclass(frozen=True, slots=True)
class Program:
    """A compiled program as its reader sees it. ``clauses``: by number; ``probes``: by site number."""

    clauses: Sequence[Clause]
    probes: Mapping[int, Probe]
    context: Context = DEFAULT_CONTEXT


class _MisfitError(ValueError):
    """A field that is not in the payload."""


def probe_field(name: ProbeName, detail: str) -> str:
    """The part of a probe's name that ``probeprov``, ``probemod``, ``probefunc`` or ``probename`` asks for."""
    parts = {"probeprov": name.provider, "probemod": name.module, "probefunc": name.function, "probename": name.name}
    return parts.get(detail) or ("" if detail in parts else str(name))


def _argument(field: Field, payload: bytes, probe: Probe) -> Argument:
    end = field.offset + field.size
    if field.offset < 0 or field.size < 0 or end > len(payload):
        raise _MisfitError(f"field at {field.offset}, {field.size} bytes, in a payload of {len(payload)}")
    data = payload[field.offset : end]
    match field.kind:
        case "probe":
            return TraceString(probe_field(probe.name, field.detail))
        case "string":
            return TraceString(decode(data))
        case "int" | "uint":
            if field.size not in _INT_SIZES:
                raise _MisfitError(f"integer of {field.size} bytes")
            signed = field.kind == "int"
            return TraceInt(int.from_bytes(data, "little", signed=signed), bits=8 * field.size, signed=signed)
        case _:
            assert_never(field.kind)


def decode_record(
    plan: RecordPlan, payload: bytes, *, probe: Probe, context: Context = DEFAULT_CONTEXT
) -> Decoded | Corrupt:
    """The items that ``plan`` finds in ``payload``. Never raises, whatever the bytes."""
    items: list[Item] = []
    exit_status: int | None = None
    try:
        arguments = [_argument(field, payload, probe) for field in plan.fields]
        for action in plan.actions:
            item = _item(action, arguments, context)
            if isinstance(action, Exit):
                exit_status = item.value if isinstance(item, TraceInt) else 0
            elif item is not None:
                items.append(item)
    except _MisfitError as misfit:
        return Corrupt(str(misfit))
    return Decoded(tuple(items), exit_status)


def _item(action: Action, arguments: Sequence[Argument], context: Context) -> Item | None:
    match action:
        case Trace(field=number) | Exit(field=number):
            return _at(arguments, number)
        case Printf(format=form, fields=numbers):
            return render(form, [_at(arguments, n) for n in numbers], context)
        case Default():
            return None
        case _:
            assert_never(action)


def _at(arguments: Sequence[Argument], number: int) -> Argument:
    if not 0 <= number < len(arguments):
        raise _MisfitError(f"no field {number}")
    return arguments[number]


def record_events(program: Program, record: RawRecord, *, cpu: int, timestamp: int) -> list[Event] | Corrupt:
    """The events of one record. ``timestamp``: the record's own, in nanoseconds.

    A record with a fault yields only that: the clause was aborted. Its payload,
    if any, starts with the word at fault.
    """
    probe = program.probes.get(record.site)
    if probe is None or not 0 <= record.clause < len(program.clauses):
        return Corrupt(f"no clause {record.clause} at site {record.site}")
    clause = program.clauses[record.clause]
    if record.fault:
        value = int.from_bytes(record.payload[:8], "little") if len(record.payload) >= 8 else None
        return [
            Fault(
                probe=probe,
                kind=record.fault,
                cpu=cpu,
                value=value,
                clause=clause.name,
                where=clause.where,
                timestamp=timestamp,
            )
        ]
    decoded = decode_record(clause.plan, record.payload, probe=probe, context=program.context)
    if isinstance(decoded, Corrupt):
        return decoded
    events: list[Event] = []
    if clause.plan.actions:
        events.append(ProbeFired(cpu=cpu, probe=probe, clause=record.clause, timestamp=timestamp, items=decoded.items))
    if decoded.exit_status is not None:
        events.append(ExitRequested(decoded.exit_status))
    return events
