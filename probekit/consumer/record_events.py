"""Turns records from guest memory into events.

    RecordPlan: Trace(field 0: int, 4 bytes at 0)   payload ff ff ff ff 00 00 00 00
    ->  ProbeFired(..., items=(TraceInt(-1, bits=32, signed=True),))

Actions are carried out here, in order, when their record is read: ``printa()`` shows the aggregations as they are at
that moment, ``clear()``, ``trunc()`` and ``normalize()`` change them.

The guest is untrusted. A payload without the fields of its plan, or a clause or site that does not exist, gives
:class:`Corrupt`, which the caller counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from probekit.buffers import actions as acts
from probekit.buffers.actions import Action, RecordField, RecordPlan
from probekit.buffers.layout import RawRecord
from probekit.consumer import events as model
from probekit.consumer.aggregation_store import AggregationStore
from probekit.consumer.events import (
    Event,
    ExitRequested,
    Fault,
    Message,
    ProbeFired,
    ProbeIdentity,
    RecordItem,
    TraceInt,
)
from probekit.consumer.plan_readers import PlanReader, plan_reader
from probekit.consumer.symbols import probe_field
from probekit.consumer.text.printa import render_rows
from probekit.consumer.text.printf import DEFAULT_CONTEXT, Argument, FormatContext, render
from probekit.consumer.text.strings import decode
from probekit.records import fresh, mutable_record, record

__all__ = ("Corrupt", "Decoded", "ReadClause", "ReadProgram", "decode_record", "probe_field", "record_events")

_INT_SIZES = frozenset((1, 2, 4, 8))


@record
class Corrupt:
    """A malformed record."""

    reason: str
    """Why it is malformed."""


@record
class Decoded:
    """The contents of one record."""

    items: tuple[RecordItem, ...]
    """The items for the renderer, in order."""
    exit_status: int | None = None
    """The argument of ``exit()``; None if the clause did not call it."""
    problems: tuple[str, ...] = ()
    """A message for each action that failed."""


@record
class ReadClause:
    """The plan and name of one clause, for reading its records."""

    plan: RecordPlan
    name: str = ""
    """The clause's name in messages, such as ``clause 2``."""
    where: str = ""
    """The clause's place in the script, such as ``line 3``."""


def _no_options(name: str, value: str) -> str:
    """Refuse any option."""
    return "options cannot be set here"


@record
class ReadProgram:
    """Everything that is needed to read the records of one program."""

    clauses: Sequence[ReadClause]
    """The program's clauses, by number."""
    probes: Mapping[int, ProbeIdentity]
    """The probe of each site, by site number."""
    context: FormatContext = DEFAULT_CONTEXT
    store: AggregationStore = fresh(lambda: AggregationStore(()))
    """The program's aggregations."""
    setopt: Callable[[str, str], str] = _no_options
    """Sets an option. Returns the reason why it cannot be set, or an empty string."""
    _readers: dict[int, PlanReader | None] = fresh(dict)

    def plan_reader(self, clause: int) -> PlanReader | None:
        """Return the fast reader of a clause; None if it shows nothing or its plan is not simple enough."""
        if clause not in self._readers:
            plan = self.clauses[clause].plan
            self._readers[clause] = plan_reader(plan) if plan.shown else None
        return self._readers[clause]


class _MisfitError(ValueError):
    """A field is not in the payload, or an aggregation does not exist."""


def _argument(field: RecordField, payload: bytes, probe: ProbeIdentity, context: FormatContext) -> Argument:
    end = field.offset + field.size
    if field.offset < 0 or field.size < 0 or end > len(payload):
        raise _MisfitError(f"field at {field.offset}, {field.size} bytes, in a payload of {len(payload)}")
    data = payload[field.offset : end]
    match field.kind:
        case "probe":
            return model.TraceString(probe_field(probe.name, field.detail))
        case "string":
            return model.TraceString(decode(data))
        case "bytes":
            return model.TraceBytes(data)
        case "stack":
            return model.StackFrames(context.symbols.frames(data, user=field.detail == "ustack"))
    if field.size not in _INT_SIZES:
        raise _MisfitError(f"integer of {field.size} bytes")
    signed = field.kind == "int"
    value = int.from_bytes(data, "little", signed=signed)
    if field.detail:
        return model.SymbolName(context.symbols.named(field.detail, value))
    return TraceInt(value, bits=8 * field.size, signed=signed)


def decode_record(
    plan: RecordPlan, payload: bytes, *, probe: ProbeIdentity, program: ReadProgram | None = None
) -> Decoded | Corrupt:
    """Decode ``payload`` by ``plan``. Never raises, whatever the bytes are."""
    program = program or ReadProgram((), {})
    try:
        arguments = [_argument(field, payload, probe, program.context) for field in plan.fields]
        actions = _RecordActions(plan, payload, arguments, program)
        for action in plan.actions:
            actions.carry_out(action)
    except _MisfitError as misfit:
        return Corrupt(str(misfit))
    return Decoded(tuple(actions.items), actions.exit_status, tuple(actions.problems))


@mutable_record
class _RecordActions:
    """Carries out the actions of one record."""

    plan: RecordPlan
    payload: bytes
    arguments: Sequence[Argument]
    program: ReadProgram
    items: list[RecordItem] = fresh(list)
    exit_status: int | None = None
    problems: list[str] = fresh(list)

    def carry_out(self, action: Action) -> None:
        """Carry out one action, or add an item with which the renderer carries it out."""
        item: RecordItem | None = None
        match action:
            case acts.TraceAction(field=number):
                item = self.field(number)
            case acts.Exit(field=number):
                self.exit_status = self.number(number)
            case acts.Printf(format=form, fields=numbers):
                item = render(form, [self.field(n) for n in numbers], self.program.context)
            case acts.System(format=form, fields=numbers):
                item = model.Command(render(form, [self.field(n) for n in numbers], self.program.context).text)
            case acts.Freopen(format=form, fields=numbers):
                item = model.Reopened(render(form, [self.field(n) for n in numbers], self.program.context).text)
            case acts.Ftruncate():
                item = model.Truncated()
            case acts.Printa():
                item = self.printa(action)
            case acts.Stack(field=number) | acts.SymbolAction(field=number):
                item = self.field(number)
                if isinstance(action, acts.SymbolAction) and isinstance(item, TraceInt):
                    item = model.SymbolName(self.program.context.symbols.named(action.kind, item.value))
            case acts.Tracemem(field=number, size_field=size):
                item = model.Dump(self.memory(number, size))
            case acts.Print(field=number, type=kind, addr_field=addr):
                data = self.memory(number, None)
                item = model.TypedValue(kind, data, None if addr is None else self.number(addr) & ((1 << 64) - 1))
            case acts.Setopt(name=name, value=value):
                item = self.setopt(self.text(name), "" if value is None else self.text(value))
            case _:
                self.change_aggregation(action)
        if item is not None:
            self.items.append(item)

    def change_aggregation(self, action: Action) -> None:
        """Carry out an action that changes an aggregation. All other actions took effect when the probe fired."""
        store = self.program.store
        match action:
            case acts.Clear(agg=agg):
                store.clear(self.checked(agg))
            case acts.Trunc(agg=agg, field=number):
                store.trunc(self.checked(agg), None if number is None else self.number(number))
            case acts.Normalize(agg=agg, field=number):
                store.normalize(self.checked(agg), self.number(number))
            case acts.Denormalize(agg=agg):
                store.denormalize(self.checked(agg))

    def field(self, number: int) -> Argument:
        """Return the value of a field. Raises :class:`_MisfitError` when there is no such field."""
        if not 0 <= number < len(self.arguments):
            raise _MisfitError(f"no field {number}")
        return self.arguments[number]

    def number(self, number: int) -> int:
        """Return the integer in a field; 0 for a field of another kind."""
        argument = self.field(number)
        return argument.value if isinstance(argument, TraceInt) else 0

    def text(self, number: int) -> str:
        """Return the string in a field; an empty one for a field of another kind."""
        argument = self.field(number)
        return argument.text if isinstance(argument, model.TraceString) else ""

    def memory(self, number: int, size: int | None) -> bytes:
        """Return a field's bytes, cut to the length in the field number ``size`` if that length is valid."""
        self.field(number)
        field = self.plan.fields[number]
        wanted = field.size if size is None else self.number(size)
        count = wanted if 0 <= wanted <= field.size else field.size
        return self.payload[field.offset : field.offset + count]

    def checked(self, agg: int) -> int:
        """Return ``agg``. Raises :class:`_MisfitError` when there is no aggregation of that number."""
        if not 0 <= agg < len(self.program.store.plans):
            raise _MisfitError(f"no aggregation {agg}")
        return agg

    def printa(self, action: acts.Printa) -> RecordItem:
        """Return the item of a ``printa()``: a table, or text when it has a format."""
        table = self.program.store.printed([self.checked(agg) for agg in action.aggs])
        return table if action.format is None else render_rows(action.format, table, self.program.context)

    def setopt(self, name: str, value: str) -> RecordItem | None:
        """Set an option. Returns its item; None after a failure, which is noted as a problem."""
        problem = self.program.setopt(name, value)
        if not problem:
            return model.OptionSet(name, value)
        self.problems.append(f'couldn\'t set option "{name}" to "{value}": {problem}')
        return None


def record_events(program: ReadProgram, record: RawRecord, *, cpu: int, timestamp: int) -> list[Event] | Corrupt:
    """Return the events of one record. ``timestamp``: the record's own, in nanoseconds.

    A record with a fault yields only a :class:`Fault`, because the clause was aborted. Its payload, if any, begins with
    the address or operand at fault.
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
    reader = program.plan_reader(record.clause)
    if reader is not None and len(record.payload) == clause.plan.size:
        return [ProbeFired(cpu, probe, record.clause, timestamp, reader(record.payload, probe))]
    decoded = decode_record(clause.plan, record.payload, probe=probe, program=program)
    if isinstance(decoded, Corrupt):
        return decoded
    events: list[Event] = [Message(problem) for problem in decoded.problems]
    if clause.plan.shown:
        events.append(ProbeFired(cpu=cpu, probe=probe, clause=record.clause, timestamp=timestamp, items=decoded.items))
    if decoded.exit_status is not None:
        events.append(ExitRequested(decoded.exit_status))
    return events
