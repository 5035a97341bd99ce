"""What both sides of a run leave behind, made into events: records in order, what was lost, aggregations.

Probes fire first and their records are read afterwards, as in DTrace: what a
``printa()`` shows is everything aggregated until its record is read.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from probekit.buffers import actions as acts
from probekit.buffers.actions import RecordPlan
from probekit.buffers.layout import RawRecord
from probekit.consumer import events as model
from probekit.consumer.aggregate import SortOrder
from probekit.consumer.bulk import Bulk, Sink
from probekit.consumer.drops import DropKind, DropMeter
from probekit.consumer.events import Event
from probekit.consumer.flow import FlowTracker
from probekit.consumer.printf import FormatContext
from probekit.consumer.records import Corrupt, record_events
from probekit.consumer.records import ReadClause as ReadClause
from probekit.consumer.records import ReadProgram as ReadProgram
from probekit.consumer.store import AggregationStore
from probekit.consumer.symbols import Found, Symbols
from probekit.enabling.host.probes import record_integer
from probekit.ir.ops import Program
from probekit.providers.dtrace import ERROR
from probekit.records import replaced
from probekit.session.hostside import HostSide
from probekit.session.options import OptionError, Options, set_option
from probekit.session.run_state import RunState

if TYPE_CHECKING:
    from probekit.enabling.api import Drained
    from probekit.session.attach import Attachment
    from probekit.session.guestside import GuestSide

__all__ = ("Reading",)

_EMPTY_PLAN = RecordPlan((), (), 0)
_STILL_HERE = 2048  # records between two signs of life
_DROPS_NS = 1_000_000_000  # how often the drops of the host's own probes are told
_ON_AGGREGATIONS = (acts.Printa, acts.Clear, acts.Trunc, acts.Normalize, acts.Denormalize)

Records = Sequence[tuple[int, RawRecord]]
"""``(cpu, record)``."""


class Reading:
    """``options``: as they are now: ``setopt()`` changes them. ``state``: of the run, which records change."""

    def __init__(
        self,
        program: Program,
        options: Options,
        host: HostSide,
        guest: GuestSide | None,
        state: RunState,
    ) -> None:
        self.options = options
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
        self._next_drops_ns = 0
        self._on_aggregations = _clauses_with(program, _ON_AGGREGATIONS)
        self._speculative = _clauses_with(program, (acts.Speculate, acts.Commit, acts.Discard))
        self._bulk: Bulk | None = None

    def begin(self, sites: dict[int, model.ProbeIdentity]) -> None:
        """``sites``: the probe of each site number, of both sides. The first drops are told in a second."""
        self._reader = replaced(self._reader, probes=sites)
        self._next_drops_ns = time.monotonic_ns() + _DROPS_NS

    # -- aggregations ------------------------------------------------------------------------------------------------

    def aggregations(self) -> list[model.Aggregation]:
        """All of them as they are now, merged over CPUs and sorted."""
        self._snapshot()
        return self._store.all()

    def unprinted(self) -> list[model.Aggregation]:
        """Those that no ``printa()`` has shown."""
        self._snapshot()
        return self._store.left()

    def _snapshot(self) -> None:
        """Bring the consumer's aggregations up to date."""
        totals = self._guest.aggregations() if self._guest is not None else {}
        here = self._host.aggregations
        drops = here.drops
        for plan in self._program.aggregations:
            self._store.add(plan.index, here.table(plan.index))
            if plan.index in totals:
                self._store.add_total(plan.index, totals[plan.index])
        here.clear()
        here.drops = drops

    # -- what there is to read ---------------------------------------------------------------------------------------

    def of_host(self, *, last: bool = False) -> Iterator[Event]:
        """The events of the host's own probes, with what was lost: at the ``last``, or once in a second."""
        now = time.monotonic_ns()
        yield from self.of_fired(self._host.probes.take())
        if not last and now < self._next_drops_ns:
            return
        self._next_drops_ns = now + _DROPS_NS
        for kind, cpu, total in self._host.lost():
            drop = self._host_drops.update(kind, cpu=cpu, total=total)
            if drop is not None:
                yield drop

    def of_fired(self, records: Records) -> Iterator[Event]:
        """The events of these records of the host's own probes."""
        yield from self._events_of(records, ticks_per_ns=1.0)

    def of_committed(self) -> Iterator[Event]:
        """What was committed last: nothing more can come before it."""
        left = self._host.speculations.settle() + self._host.speculations.settle()
        yield from self._events_of(left, ticks_per_ns=self._ticks_per_ns, late=True)

    def of_guest(self, drained: Drained) -> Iterator[Event]:
        """The events of one visit to the guest, with what was lost there."""
        ordered = sorted(drained.records, key=lambda item: item[1].timestamp)
        plain = [item for item in ordered if item[1].clause not in self._speculative or not self._speculated(*item)]
        plain += self._host.speculations.settle()
        yield from self._events_of(plain, ticks_per_ns=self._ticks_per_ns)
        if drained.filled:
            self._state.fill_ring()
        counters: tuple[tuple[DropKind, dict[int, int]], ...] = (
            ("principal", dict(drained.principal_drops)),
            ("recursion", dict(drained.recursion_drops)),
            ("aggregation", dict(drained.aggregation_drops)),
        )
        for kind, totals in counters:
            for cpu, total in totals.items():
                yield from self._dropped(kind, cpu, total)
        together: tuple[tuple[DropKind, int], ...] = (
            ("silenced", drained.watchdog_timeouts),
            ("dynamic", drained.dynamic_drops),
            ("dyndirty", drained.busy_drops),
            ("specunavail", drained.unavailable),
            ("specbusy", drained.busy_speculations),
            ("unseen", drained.unseen),
            ("undecoded", drained.undecoded),
            ("steps", drained.lost_steps),
        )
        for kind, total in together:
            yield from self._dropped(kind, None, total)
        if drained.corrupt:
            drop = self._drops.add("corrupt", cpu=None, count=drained.corrupt)
            if drop is not None:
                yield drop

    def _dropped(self, kind: DropKind, cpu: int | None, total: int) -> Iterator[Event]:
        drop = self._drops.update(kind, cpu=cpu, total=total)
        if drop is not None:
            yield drop

    def _speculated(self, cpu: int, record: RawRecord) -> bool:
        """See to what a record of the guest says of speculations. True when it is one that waits."""
        if record.fault:
            return False
        plan = self._reader.clauses[record.clause].plan
        for action in plan.actions:
            match action:
                case acts.Speculate(field=number):
                    self._host.speculations.hold(record_integer(plan, record, number), cpu, record)
                    return True
                case acts.Commit(field=number) | acts.Discard(field=number):
                    # 0: it was not active, which the guest alone knows for certain.
                    if ended := record_integer(plan, record, number):
                        self._host.speculations.ended(ended, keep=isinstance(action, acts.Commit))
        return False

    # -- records to events -------------------------------------------------------------------------------------------

    @property
    def _ticks_per_ns(self) -> float:
        """Of the time stamps of the guest's records."""
        return self._guest.ticks_per_ns if self._guest is not None else 1.0

    def _events_of(self, records: Records, *, ticks_per_ns: float, late: bool = False) -> Iterator[Event]:
        """``late``: they are shown although ``exit()`` has been called: what was committed before it."""
        if any(record.clause in self._on_aggregations for _, record in records):
            self._snapshot()
        sink = self._state.sink
        if sink is not None and sink.takes_text and not self.options.flowindent:
            yield from self._in_bulk(sink, records, ticks_per_ns=ticks_per_ns, late=late)
            return
        events = self._each_event(records, ticks_per_ns=ticks_per_ns, late=late)
        yield from self._flow.annotate(list(events)) if self.options.flowindent else events

    def _in_bulk(self, sink: Sink, records: Records, *, ticks_per_ns: float, late: bool) -> Iterator[Event]:
        if self._bulk is None:
            self._bulk = Bulk(self._reader)
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

    def _each_event(self, records: Records, *, ticks_per_ns: float, late: bool) -> Iterator[Event]:
        for number, (cpu, record) in enumerate(records):
            if not number % _STILL_HERE:
                self._send_heartbeat()
            here = record.site in self._host.sites
            if not (here or late or self._state.shows(record.timestamp)):
                continue  # what the guest's clauses did behind exit(); the host's do not run then
            events = record_events(self._reader, record, cpu=cpu, timestamp=int(record.timestamp / ticks_per_ns))
            if isinstance(events, Corrupt):
                drop = self._drops.add("corrupt", cpu=cpu, count=1)
                if drop is not None:
                    yield drop
                continue
            for event in events:
                yield event
                if isinstance(event, model.ExitRequested):
                    self._state.exited(event.status, at=None if here else record.timestamp)
                elif isinstance(event, model.Fault) and not here:
                    self._host.probes.error(record)
                    yield from self._errors_of_guest(event)

    def _errors_of_guest(self, fault: model.Fault) -> list[Event]:
        """What ERROR's clauses, run just now, have to say."""
        if fault.probe.id == ERROR.id:
            return []
        return list(self.of_fired(self._host.probes.take()))

    def _setopt(self, name: str, value: str) -> str:
        """``setopt()``: an option that may change while tracing. What is wrong, or nothing."""
        try:
            self.options = set_option(self.options, name, value, "runtime")
        except OptionError as error:
            return error.reason
        self._store.order = _order(self.options)
        return ""


def _read_clauses(program: Program) -> list[ReadClause]:
    return [
        ReadClause(plan=clause.record or _EMPTY_PLAN, name=f"clause {clause.index + 1}", where=f"line {clause.line}")
        for clause in program.clauses
    ]


def _clauses_with(program: Program, kinds: tuple[type[acts.Action], ...]) -> frozenset[int]:
    """The numbers of the clauses that have such an action."""
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

    def lookup(addr: int) -> Found | None:
        # Offsets of per-CPU variables are symbols as well, and no addresses.
        found = table.lookup(addr) if addr >> 63 else None
        return None if found is None else Found(found[0].module or "vmlinux", found[0].name, found[1])

    return Symbols(lookup)
