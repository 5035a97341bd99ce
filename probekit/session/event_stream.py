"""Turns what a run records, on the host and in the guest, into events, and reads its aggregations.

Probes fire first and their records are read afterwards, as in DTrace: ``printa()`` shows everything that was
aggregated until its record is read.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from probekit.buffers import actions as acts
from probekit.buffers.actions import RecordPlan
from probekit.buffers.layout import RawRecord
from probekit.consumer import events as model
from probekit.consumer.aggregation_store import AggregationStore
from probekit.consumer.aggregations import SortOrder
from probekit.consumer.bulk import BulkSplitter, CpuRecords, TextSink
from probekit.consumer.drop_meter import DropMeter
from probekit.consumer.events import Drop, DropKind, Event
from probekit.consumer.flow import FlowTracker
from probekit.consumer.record_events import Corrupt, ReadClause, ReadProgram, record_events
from probekit.consumer.record_order import RecordOrder
from probekit.consumer.symbols import SymbolAt, Symbols
from probekit.consumer.text.printf import FormatContext
from probekit.enabling.host.probes import record_integer
from probekit.enabling.speculation import CpuRecord
from probekit.ir.ops import Program
from probekit.providers.dtrace import ERROR
from probekit.records import replaced
from probekit.session.host_tracing import HostTracing
from probekit.session.options import OptionError, Options, set_option
from probekit.session.run_state import RunState

if TYPE_CHECKING:
    from probekit.enabling.api import Drained
    from probekit.session.attach import Attachment
    from probekit.session.guest_tracing import GuestTracing

__all__ = ("EventStream",)

_EMPTY_PLAN = RecordPlan((), (), 0)
_HEARTBEAT_RECORDS = 2048  # records between two heartbeats for the guest's watchdog
_HELD_S = 1.0  # seconds for which a record may be held back
_HELD_READINGS = 2  # or so many intervals of the option switchrate, if that is longer
_DROPS_NS = 1_000_000_000  # between two reports of what the host's own probes have lost
_AGGREGATION_ACTIONS = (acts.Printa, acts.Clear, acts.Trunc, acts.Normalize, acts.Denormalize)


class EventStream:
    """Produces the events of one run. Reading records also changes the run's state, its aggregations and options."""

    def __init__(
        self,
        program: Program,
        options: Options,
        host: HostTracing,
        guest: GuestTracing | None,
        state: RunState,
    ) -> None:
        self.options = options
        """The options as they are now; ``setopt()`` changes them."""
        self._state = state
        self._program = program
        self._host = host
        self._guest = guest
        symbols = _symbols(guest.attachment if guest is not None else None)
        self._store = AggregationStore(program.aggregations, order=_order(options), symbols=symbols)
        context = FormatContext(symbols=symbols, zoom=options.aggzoom, indent=options.stackindent)
        self._reader = ReadProgram(_read_clauses(program), {}, context, self._store, self._setopt)
        self._drops = DropMeter()
        self._host_drops = DropMeter()
        self._flow = FlowTracker()
        self._order = RecordOrder()
        self._next_drops_ns = 0
        self._clauses_on_aggregations = _clauses_with(program, _AGGREGATION_ACTIONS)
        self._speculative = _clauses_with(program, (acts.Speculate, acts.Commit, acts.Discard))
        self._bulk: BulkSplitter | None = None

    def begin(self, sites: dict[int, model.ProbeIdentity]) -> None:
        """Note that tracing begins. ``sites``: the probe of each site number, of the guest and the host.

        Drops of the host's probes are reported for the first time one second later.
        """
        self._reader = replaced(self._reader, probes=sites)
        self._next_drops_ns = time.monotonic_ns() + _DROPS_NS

    # -- aggregations ------------------------------------------------------------------------------------------------

    def aggregations(self) -> list[model.Aggregation]:
        """Return all aggregations as they are now, merged over CPUs and sorted."""
        self._snapshot()
        return self._store.all()

    def unprinted(self) -> list[model.Aggregation]:
        """Return the aggregations that no ``printa()`` has shown."""
        self._snapshot()
        return self._store.unprinted()

    def _snapshot(self) -> None:
        """Bring the consumer's copy of the aggregations up to date."""
        totals = self._guest.aggregations() if self._guest is not None else {}
        on_host = self._host.aggregations
        drops = on_host.drops
        for plan in self._program.aggregations:
            self._store.add(plan.index, on_host.table(plan.index))
            if plan.index in totals:
                self._store.add_total(plan.index, totals[plan.index])
        on_host.clear()
        on_host.drops = drops

    # -- reading -----------------------------------------------------------------------------------------------------

    def of_host(self, *, last: bool = False) -> Iterator[Event]:
        """Yield the events of the host's own probes. Once a second, and with ``last``, also yield their drops."""
        now = time.monotonic_ns()
        yield from self.of_fired(self._host.probes.take())
        if not last and now < self._next_drops_ns:
            return
        self._next_drops_ns = now + _DROPS_NS
        for kind, cpu, total in self._host.losses():
            yield from _present(self._host_drops.update(kind, cpu=cpu, total=total))
        for probe, total in self._host.missed():
            yield from _present(self._host_drops.update("missed", cpu=None, total=total, probe=probe))

    def of_fired(self, records: CpuRecords) -> Iterator[Event]:
        """Yield the events of these records of the host's own probes."""
        yield from self._events_of(records, ticks_per_ns=1.0)

    def of_committed(self) -> Iterator[Event]:
        """Yield the events of the speculations that were committed last. Call it after the last record was read."""
        left = self._host.speculations.settle() + self._host.speculations.settle()  # the ones that wait as well
        yield from self._events_of(left, ticks_per_ns=self._ticks_per_ns, late=True)

    def of_guest(self, drained: Drained, *, last: bool = False) -> Iterator[Event]:
        """Yield the events of the records that were drained from the guest, by time, and its drops.

        A record that a later reading may precede is held back, for a limited time. ``last``: the clauses do nothing any
        more, so that what was recorded before an ``exit()`` on the host is shown as well.
        """
        longest = max(_HELD_S, _HELD_READINGS * (self.options.switchrate_ns or 0) / 1e9)
        ordered = self._order.add(drained.records, drained.complete_until, now=time.monotonic(), longest=longest)
        plain = self._not_speculative(ordered)
        if self._speculative:
            plain += self._host.speculations.settle()
        yield from self._events_of(plain, ticks_per_ns=self._ticks_per_ns, late=last)
        if drained.filled:
            self._state.fill_ring()
        yield from self._drops_of_guest(drained)

    def of_held(self) -> Iterator[Event]:
        """Yield the events of the guest's records that are held back. Call it when no more will be read."""
        held = self._not_speculative(self._order.rest())
        yield from self._events_of(held, ticks_per_ns=self._ticks_per_ns, late=True)

    def _not_speculative(self, records: CpuRecords) -> list[tuple[int, RawRecord]]:
        """Carry out the speculation actions of guest records, in order. Returns the records that are shown."""
        if not self._speculative:
            return list(records)
        return [shown for item in records for shown in self._speculate(*item)]

    def _drops_of_guest(self, drained: Drained) -> Iterator[Drop]:
        """Yield a drop for each counter that has grown."""
        by_cpu: tuple[tuple[DropKind, Mapping[int, int]], ...] = (
            ("principal", drained.principal_drops),
            ("recursion", drained.recursion_drops),
            ("aggregation", drained.aggregation_drops),
        )
        for kind, totals in by_cpu:
            for cpu, total in totals.items():
                yield from _present(self._drops.update(kind, cpu=cpu, total=total))
        of_all: tuple[tuple[DropKind, int], ...] = (
            ("silenced", drained.watchdog_timeouts),
            ("dynamic", drained.dynamic_drops),
            ("dyndirty", drained.busy_drops),
            ("specunavail", drained.unavailable),
            ("specbusy", drained.busy_speculations),
            ("unseen", drained.unseen),
            ("undecoded", drained.undecoded),
            ("steps", drained.lost_steps),
        )
        for kind, total in of_all:
            yield from _present(self._drops.update(kind, cpu=None, total=total))
        yield from _present(self._drops.add("corrupt", cpu=None, count=drained.corrupt))

    def _speculate(self, cpu: int, record: RawRecord) -> CpuRecords:
        """Carry out the speculation actions of a guest record.

        Returns the records to be shown now: those that it has committed, and itself unless it is speculative.
        """
        if record.fault or record.clause not in self._speculative:
            return [(cpu, record)]
        speculations = self._host.speculations
        committed: list[CpuRecord] = []
        plan = self._reader.clauses[record.clause].plan
        for action in plan.actions:
            match action:
                case acts.Speculate(field=number):
                    speculations.hold(record_integer(plan, record, number), cpu, record)
                    return []
                case acts.Commit(field=number) | acts.Discard(field=number):
                    # Only the guest knows what became of it: see probekit.codegen.runtime.speculation.
                    ended, keep = record_integer(plan, record, number, signed=True), isinstance(action, acts.Commit)
                    if ended < 0:
                        committed += speculations.ended_at_once(-ended, cpu, keep=keep)
                    elif ended > 0:
                        speculations.ended(ended, keep=keep)
        return [*committed, (cpu, record)]

    # -- records to events -------------------------------------------------------------------------------------------

    @property
    def _ticks_per_ns(self) -> float:
        """How many units of the guest's time stamps are a nanosecond."""
        return self._guest.ticks_per_ns if self._guest is not None else 1.0

    def _events_of(self, records: CpuRecords, *, ticks_per_ns: float, late: bool = False) -> Iterator[Event]:
        """Yield the events of records. ``late``: also show records from before ``exit()`` that are read after it."""
        if any(record.clause in self._clauses_on_aggregations for _, record in records):
            self._snapshot()
        sink = self._state.sink
        if sink is not None and sink.takes_text and not self.options.flowindent:
            yield from self._in_bulk(sink, records, ticks_per_ns=ticks_per_ns, late=late)
            return
        events = self._each_event(records, ticks_per_ns=ticks_per_ns, late=late)
        yield from self._flow.annotate(list(events)) if self.options.flowindent else events

    def _in_bulk(self, sink: TextSink, records: CpuRecords, *, ticks_per_ns: float, late: bool) -> Iterator[Event]:
        if self._bulk is None:
            self._bulk = BulkSplitter(self._reader)
        for printer, members in self._bulk.split(records):
            if printer is not None and sink.takes_text and not self._state.exit_called:
                sink.printed(printer(members, self._reader.probes))
                self._send_heartbeat()
            else:
                yield from self._each_event(members, ticks_per_ns=ticks_per_ns, late=late)

    def _send_heartbeat(self) -> None:
        """Send a heartbeat while a long batch of records is processed."""
        if self._guest is not None:
            self._guest.send_heartbeat()

    def _each_event(self, records: CpuRecords, *, ticks_per_ns: float, late: bool) -> Iterator[Event]:
        for number, (cpu, record) in enumerate(records):
            if not number % _HEARTBEAT_RECORDS:
                self._send_heartbeat()
            on_host = record.site in self._host.sites
            if not (on_host or self._state.shows(record.timestamp, late=late)):
                continue  # recorded by the guest's clauses after exit(); those of the host do not run then
            events = record_events(self._reader, record, cpu=cpu, timestamp=int(record.timestamp / ticks_per_ns))
            if isinstance(events, Corrupt):
                yield from _present(self._drops.add("corrupt", cpu=cpu, count=1))
                continue
            for event in events:
                yield event
                if isinstance(event, model.ExitRequested):
                    self._state.exited(event.status, at=None if on_host else record.timestamp)
                elif isinstance(event, model.Fault) and not on_host:
                    self._host.probes.error(record)
                    yield from self._errors_of_guest(event)

    def _errors_of_guest(self, fault: model.Fault) -> list[Event]:
        """Return the events of ERROR's clauses, which have just run for a fault in the guest."""
        if fault.probe.id == ERROR.id:
            return []
        return list(self.of_fired(self._host.probes.take()))

    def _setopt(self, name: str, value: str) -> str:
        """Set an option that may change while tracing. Returns the reason for a failure, or an empty string."""
        try:
            self.options = set_option(self.options, name, value, "runtime")
        except OptionError as error:
            return error.reason
        self._store.order = _order(self.options)
        return ""


def _present(drop: Drop | None) -> Iterator[Drop]:
    if drop is not None:
        yield drop


def _read_clauses(program: Program) -> list[ReadClause]:
    return [
        ReadClause(plan=clause.record or _EMPTY_PLAN, name=f"clause {clause.index + 1}", where=f"line {clause.line}")
        for clause in program.clauses
    ]


def _clauses_with(program: Program, kinds: tuple[type[acts.Action], ...]) -> frozenset[int]:
    """Return the numbers of the clauses that have such an action."""
    return frozenset(
        clause.index
        for clause in program.clauses
        if clause.record is not None and any(isinstance(action, kinds) for action in clause.record.actions)
    )


def _order(options: Options) -> SortOrder:
    return SortOrder(
        by_key=options.aggsortkey,
        key_position=options.aggsortkeypos,
        position=options.aggsortpos,
        reverse=options.aggsortrev,
    )


def _symbols(attachment: Attachment | None) -> Symbols:
    if attachment is None:
        return Symbols()
    table = attachment.kernel.symbols

    def lookup(addr: int) -> SymbolAt | None:
        # Offsets of per-CPU variables are symbols as well, but they are not addresses.
        found = table.lookup(addr) if addr >> 63 else None
        return None if found is None else SymbolAt(found[0].module or "vmlinux", found[0].name, found[1])

    return Symbols(lookup)
