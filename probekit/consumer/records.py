"""Records of guest memory turned into events.

    RecordPlan: Trace(field 0: int, 4 bytes at 0)   payload ff ff ff ff 00 00 00 00
    ->  ProbeFired(..., items=(TraceInt(-1, bits=32, signed=True),))

Actions happen here, in order, when their record is read: ``printa()`` takes the
aggregations as they are at that moment, ``clear()`` and its kin change them.

The guest is untrusted: a payload that does not hold the fields that its plan
promises, a clause or a site that does not exist, all come out as
:class:`Corrupt`, which the caller counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from probekit.buffers import actions as acts
from probekit.buffers.actions import Action, RecordField, RecordPlan
from probekit.buffers.layout import RawRecord
from probekit.consumer import events as model
from probekit.consumer.events import Event, ExitRequested, Fault, Item, Message, ProbeFired, ProbeIdentity, TraceInt
from probekit.consumer.printa import render_rows
from probekit.consumer.printf import DEFAULT_CONTEXT, Argument, FormatContext, render
from probekit.consumer.quick import QuickReader, quick_reader
from probekit.consumer.store import AggregationStore
from probekit.consumer.strings import decode
from probekit.consumer.symbols import probe_field
from probekit.records import fresh, mutable_record, record

__all__ = ("Corrupt", "Decoded", "ReadClause", "ReadProgram", "decode_record", "probe_field", "record_events")

_INT_SIZES = frozenset((1, 2, 4, 8))


@record
class Corrupt:
    """A record that makes no sense. ``reason``: for the log."""

    reason: str


@record
class Decoded:
    """The items of one record in order, the status if the clause called ``exit()``, and what could not be done."""

    items: tuple[Item, ...]
    exit_status: int | None = None
    problems: tuple[str, ...] = ()


@record
class ReadClause:
    """What the consumer knows of one clause. ``name``: for messages; ``where``: its place in the script."""

    plan: RecordPlan
    name: str = ""
    where: str = ""


def _no_options(name: str, value: str) -> str:
    return "options cannot be set here"


@record
class ReadProgram:
    """A compiled program as its reader sees it. ``clauses``: by number; ``probes``: by site number.

    ``store``: its aggregations; ``setopt``: sets an option, returns what is wrong with it or nothing.
    """

    clauses: Sequence[ReadClause]
    probes: Mapping[int, ProbeIdentity]
    context: FormatContext = DEFAULT_CONTEXT
    store: AggregationStore = fresh(lambda: AggregationStore(()))
    setopt: Callable[[str, str], str] = _no_options
    _quick: dict[int, QuickReader | None] = fresh(dict)

    def quick_reader(self, clause: int) -> QuickReader | None:
        """The reader made for the plan of a clause whose records are shown, where it is simple enough."""
        if clause not in self._quick:
            plan = self.clauses[clause].plan
            self._quick[clause] = quick_reader(plan) if plan.shown else None
        return self._quick[clause]


class _MisfitError(ValueError):
    """A field that is not in the payload, or an aggregation that is not there."""


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
    """The items that ``plan`` finds in ``payload``. Never raises, whatever the bytes."""
    program = program or ReadProgram((), {})
    try:
        arguments = [_argument(field, payload, probe, program.context) for field in plan.fields]
        reading = _Reading(plan, payload, arguments, program)
        for action in plan.actions:
            reading.carry_out(action)
    except _MisfitError as misfit:
        return Corrupt(str(misfit))
    return Decoded(tuple(reading.items), reading.exit_status, tuple(reading.problems))


@mutable_record
class _Reading:
    """One record while its actions are carried out."""

    plan: RecordPlan
    payload: bytes
    arguments: Sequence[Argument]
    program: ReadProgram
    items: list[Item] = fresh(list)
    exit_status: int | None = None
    problems: list[str] = fresh(list)

    def carry_out(self, action: Action) -> None:
        """Do what one action asks, or note what others shall do."""
        item: Item | None = None
        match action:
            case acts.TraceAction(field=number):
                item = self.at(number)
            case acts.Exit(field=number):
                self.exit_status = self.number(number)
            case acts.Printf(format=form, fields=numbers):
                item = render(form, [self.at(n) for n in numbers], self.program.context)
            case acts.System(format=form, fields=numbers):
                item = model.Command(render(form, [self.at(n) for n in numbers], self.program.context).text)
            case acts.Freopen(format=form, fields=numbers):
                item = model.Reopened(render(form, [self.at(n) for n in numbers], self.program.context).text)
            case acts.Ftruncate():
                item = model.Truncated()
            case acts.Printa():
                item = self.printa(action)
            case acts.Stack(field=number) | acts.SymbolAction(field=number):
                item = self.at(number)
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
                self.change(action)
        if item is not None:
            self.items.append(item)

    def change(self, action: Action) -> None:
        """The actions that change aggregations; the rest (speculation, destructive ones) happened where it fired."""
        store = self.program.store
        match action:
            case acts.Clear(agg=agg):
                store.clear(self.known(agg))
            case acts.Trunc(agg=agg, field=number):
                store.trunc(self.known(agg), None if number is None else self.number(number))
            case acts.Normalize(agg=agg, field=number):
                store.normalize(self.known(agg), self.number(number))
            case acts.Denormalize(agg=agg):
                store.denormalize(self.known(agg))

    def at(self, number: int) -> Argument:
        if not 0 <= number < len(self.arguments):
            raise _MisfitError(f"no field {number}")
        return self.arguments[number]

    def number(self, number: int) -> int:
        argument = self.at(number)
        return argument.value if isinstance(argument, TraceInt) else 0

    def text(self, number: int) -> str:
        argument = self.at(number)
        return argument.text if isinstance(argument, model.TraceString) else ""

    def memory(self, number: int, size: int | None) -> bytes:
        """A field's own bytes, cut to what an integer field says if that makes sense."""
        self.at(number)
        place = self.plan.fields[number]
        wanted = place.size if size is None else self.number(size)
        count = wanted if 0 <= wanted <= place.size else place.size
        return self.payload[place.offset : place.offset + count]

    def known(self, agg: int) -> int:
        if not 0 <= agg < len(self.program.store.plans):
            raise _MisfitError(f"no aggregation {agg}")
        return agg

    def printa(self, action: acts.Printa) -> Item:
        table = self.program.store.printed([self.known(agg) for agg in action.aggs])
        return table if action.format is None else render_rows(action.format, table, self.program.context)

    def setopt(self, name: str, value: str) -> Item | None:
        problem = self.program.setopt(name, value)
        if not problem:
            return model.OptionSet(name, value)
        self.problems.append(f'couldn\'t set option "{name}" to "{value}": {problem}')
        return None


def record_events(program: ReadProgram, record: RawRecord, *, cpu: int, timestamp: int) -> list[Event] | Corrupt:
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
    quick = program.quick_reader(record.clause)
    if quick is not None and len(record.payload) == clause.plan.size:
        return [ProbeFired(cpu, probe, record.clause, timestamp, quick(record.payload, probe))]
    decoded = decode_record(clause.plan, record.payload, probe=probe, program=program)
    if isinstance(decoded, Corrupt):
        return decoded
    events: list[Event] = [Message(problem) for problem in decoded.problems]
    if clause.plan.shown:
        events.append(ProbeFired(cpu=cpu, probe=probe, clause=record.clause, timestamp=timestamp, items=decoded.items))
    if decoded.exit_status is not None:
        events.append(ExitRequested(decoded.exit_status))
    return events
