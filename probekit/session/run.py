"""One program, with or without a guest: match, enable, consume, fire the host's own probes, restore.

    BEGIN -> sites go live -> records, ticks -> sites restored -> END -> last records -> aggregations

Probes fire first and their records are read afterwards, as in DTrace: what a
``printa()`` shows is everything aggregated until its record is read.

:meth:`Trace.events` is the whole of it as a stream; the command line and the
Python API both read from there. However it ends, the guest is restored.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from probekit.buffers import actions as acts
from probekit.buffers.actions import RecordPlan
from probekit.buffers.layout import RECORD_HEADER, RawRecord
from probekit.consumer import events as model
from probekit.consumer.aggregate import SortOrder
from probekit.consumer.drops import DropKind, DropMeter
from probekit.consumer.events import Event
from probekit.consumer.flow import FlowTracker
from probekit.consumer.printf import Context
from probekit.consumer.records import Clause as ReadClause
from probekit.consumer.records import Corrupt, record_events
from probekit.consumer.records import Program as ReadProgram
from probekit.consumer.store import AggregationStore
from probekit.consumer.symbols import Found, Symbols
from probekit.enabling.ecb import Ecb, Matching, match_program
from probekit.enabling.host import HostGlobals
from probekit.enabling.hostprobes import CPU, HostProbes
from probekit.enabling.speculation import Speculations
from probekit.errors import ProbekitError, TargetLost
from probekit.interp.aggs import Aggregations
from probekit.interp.state import Limits
from probekit.ir.ops import Program
from probekit.providers.dtrace import ERROR
from probekit.providers.registry import Registry, make_registry
from probekit.session.options import AGGSIZE, OptionError, Options, set_option
from probekit.session.signals import Interrupts
from probekit.session.support import refuse_for_guest

if TYPE_CHECKING:
    from probekit.enabling.api import Drained, Globals
    from probekit.enabling.sites import RefusedProbe
    from probekit.session.attach import Attachment

__all__ = ("EngineName", "NoMatchError", "Trace")

EngineName = Literal["guest", "stop"]

_EMPTY_PLAN = RecordPlan((), (), 0)
_LONGEST_WAIT = 0.2  # seconds: how late a signal is noticed
_ON_AGGREGATIONS = (acts.Printa, acts.Clear, acts.Trunc, acts.Normalize, acts.Denormalize)


class NoMatchError(ProbekitError):
    """A description that matches no probe. ``clause``: its number; ``description``: as the program has it."""

    def __init__(self, message: str, *, clause: int, description: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.clause = clause
        self.description = description


@dataclass(slots=True)
class _Timer:
    """One timed probe: when it is due next, in monotonic nanoseconds."""

    ecb: Ecb
    due_ns: int


class Trace:
    """A program to run. ``attachment``: None for programs that need no guest.

    ``started``: called once BEGIN has fired and sites are live; ``ended``: tracing ends when it says so (``-c``).
    ``matching``: its ECBs; ``status``: what ``exit()`` was given, or 0; ``stats``: what things took, see
    :class:`Stats`.
    """

    def __init__(
        self,
        attachment: Attachment | None,
        program: Program,
        options: Options,
        *,
        engine: EngineName = "guest",
        what: str = "script",
        interrupts: Interrupts | None = None,
        started: Callable[[], None] | None = None,
        ended: Callable[[], bool] | None = None,
    ) -> None:
        self._started = started
        self._ended = ended
        self._program = program
        self._options = options
        self._what = what
        self._interrupts = interrupts or (attachment.interrupts if attachment is not None else Interrupts())
        registry: Registry = attachment.registry if attachment is not None else make_registry(())
        self.matching: Matching = match_program(program, registry)
        if self.matching.unmatched and not options.zdefs:
            raise _no_match(self.matching)
        _check_records(program, options)
        self._guest = None
        if attachment is not None:
            refuse_for_guest(program, self.matching, engine)
            from probekit.session.guestside import GuestSide

            self._guest = GuestSide(
                attachment,
                program,
                options,
                engine=engine,
                cancelled=lambda: self._interrupts.pending != 0,
            )
        self.status = 0
        self.stats: dict[str, float | int] = {}
        self._globals_here = HostGlobals()
        self._aggregations = Aggregations(program.aggregations, _most_keys(program, options))
        self._speculations = Speculations(options.nspec, options.specsize)
        self._site_of: dict[int, int] = {}
        self._host_sites: set[int] = set()
        self._host = HostProbes(
            program,
            aggregations=self._aggregations,
            globals_=self._globals,
            site_of=self._site_of,
            errors=self.matching.of_kind("error"),
            speculations=self._speculations,
            bufsize=options.bufsize,
            bufpolicy=options.bufpolicy,
            limits=Limits(options.dynvarsize, options.scratchsize),
        )
        symbols = _symbols(attachment)
        self._store = AggregationStore(program.aggregations, order=_order(options), symbols=symbols)
        context = Context(symbols=symbols, zoom=options.aggzoom, indent=options.stackindent)
        self._reader = ReadProgram(_read_clauses(program), {}, context, self._store, self._setopt)
        self._drops = DropMeter()
        self._host_drops = DropMeter()
        self._flow = FlowTracker()
        self._timers: list[_Timer] = []
        self._next_switch_ns = 0

    def __enter__(self) -> Trace:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def refused(self) -> tuple[RefusedProbe, ...]:
        """Probes, or exits of probes, that cannot be enabled; known once enabled."""
        return self._guest.refused if self._guest is not None else ()

    @property
    def code(self) -> tuple[int, bytes] | None:
        """Address and bytes of the machine code in the guest while tracing."""
        return self._guest.code if self._guest is not None else None

    # -- the whole run ----------------------------------------------------------------------------------------------

    def events(self, seconds: float | None = None) -> Iterator[Event]:
        """Run the program until ``exit()``, a signal, or ``seconds`` have passed; then restore and end.

        A consumer that stops reading early has the guest restored as well.
        """
        with self._interrupts:
            try:
                yield from self._start()
                yield from self._consume(seconds)
            except TargetLost as error:
                if self._guest is not None:
                    self._guest.give_up(error)
                raise
            finally:
                drained, problems = self._disable()
            for ecb in self.matching.of_kind("end"):
                self._host.fire(ecb)
            yield from self._drain()
            if drained is not None:
                yield from self._read(drained)
            yield from self._drain()
            yield from (model.Message(problem) for problem in problems)
            yield model.Stats(dict(self.stats))

    def close(self) -> None:
        """Restore the guest if :meth:`events` was abandoned. Safe to call twice."""
        with self._interrupts:
            self._disable()

    def aggregations(self) -> list[model.Aggregation]:
        """All aggregations as they are now (or were at the end), merged over CPUs and sorted."""
        self._snapshot()
        return self._store.all()

    def unprinted(self) -> list[model.Aggregation]:
        """Those that no ``printa()`` has shown, which dtrace prints at the end."""
        self._snapshot()
        return self._store.left()

    # -- start ------------------------------------------------------------------------------------------------------

    def _start(self) -> Iterator[Event]:
        begin = time.monotonic()
        sites: dict[int, model.Probe] = self._guest.find(self.matching) if self._guest is not None else {}
        self._name_sites(sites)
        probes = len(self.matching.ecbs) - len({r.probe.id for r in self.refused if not r.partial})
        lost = len(self.matching.ecbs) - probes
        yield model.Attached(what=self._what, probes=probes, refused=lost)
        for ecb in self.matching.of_kind("begin"):
            self._host.fire(ecb)
        if not self._host.exited:
            if self._options.bufpolicy == "switch":
                yield from self._drain()
            if self._guest is not None:
                self._guest.enable(self._globals_here.values)
        self.stats |= {"probes": probes, "enable_s": time.monotonic() - begin}
        if self._guest is not None:
            self.stats |= self._guest.stats | {"first_data_s": _age_of_process()}
        if self._started is not None:
            self._started()
        now = time.monotonic_ns()
        self._timers = [_Timer(ecb, now + ecb.probe.period_ns) for ecb in self.matching.of_kind("tick")]

    def _name_sites(self, sites: dict[int, model.Probe]) -> None:
        """Number every host probe behind the guest's sites, for the consumer."""
        named = dict(sites)
        for ecb in self.matching.ecbs:
            if ecb.probe.function is None:
                self._site_of[ecb.probe.id] = len(named)
                self._host_sites.add(len(named))
                named[len(named)] = model.Probe(ecb.probe.id, ecb.probe.name)
        self._reader = replace(self._reader, probes=named)

    # -- while it runs ----------------------------------------------------------------------------------------------

    def _consume(self, seconds: float | None) -> Iterator[Event]:
        end = None if seconds is None else time.monotonic() + seconds
        guest = self._guest
        while not self._over(end):
            self._fire_due()
            if self._host.exited:
                return
            if self._options.bufpolicy == "switch" and time.monotonic_ns() >= self._next_switch_ns:
                yield from self._drain()
            if guest is not None:
                guest.attachment.check_alive()
            timeout = self._patience(end)
            if guest is not None and guest.live:
                yield from self._read(guest.poll(timeout))
            elif self._timers or end is not None or guest is not None or self._ended is not None:
                time.sleep(timeout)
            else:
                return  # with no guest and no timer nothing more can happen

    def _over(self, end: float | None) -> bool:
        if self._host.exited or self._interrupts.pending or (end is not None and time.monotonic() >= end):
            return True
        return self._ended is not None and self._ended()

    def _patience(self, end: float | None) -> float:
        """Seconds until something is due."""
        limits = [_LONGEST_WAIT]
        if self._options.switchrate_ns:
            limits.append(self._options.switchrate_ns / 1e9)
        if self._timers:
            limits.append((min(t.due_ns for t in self._timers) - time.monotonic_ns()) / 1e9)
        if end is not None:
            limits.append(end - time.monotonic())
        return max(min(limits), 0.0)

    def _fire_due(self) -> None:
        now = time.monotonic_ns()
        for timer in sorted(self._timers, key=lambda t: t.due_ns):
            if timer.due_ns > now:
                return
            missed = (now - timer.due_ns) // timer.ecb.probe.period_ns
            timer.due_ns += (missed + 1) * timer.ecb.probe.period_ns
            self._host.fire(timer.ecb)

    def _globals(self) -> Globals:
        live = self._guest.globals_ if self._guest is not None else None
        return live if live is not None else self._globals_here

    # -- reading ----------------------------------------------------------------------------------------------------

    def _snapshot(self) -> None:
        """Bring the consumer's aggregations up to date."""
        totals = self._guest.aggregations() if self._guest is not None else {}
        drops = self._aggregations.drops
        for plan in self._program.aggregations:
            self._store.add(plan.index, self._aggregations.table(plan.index))
            if plan.index in totals:
                self._store.add_total(plan.index, totals[plan.index])
        self._aggregations.clear()
        self._aggregations.drops = drops

    def _drain(self) -> Iterator[Event]:
        """The events of the host's own probes."""
        self._next_switch_ns = time.monotonic_ns() + (self._options.switchrate_ns or 0)
        yield from self._events_of(self._host.take(), ticks_per_ns=1.0)
        totals: tuple[tuple[DropKind, int], ...] = (
            ("principal", self._host.drops),
            ("aggregation", self._aggregations.drops),
            ("dynamic", self._host.dynamic_drops),
            ("spec", self._speculations.drops),
            ("specunavail", self._speculations.unavailable),
            ("dblerror", self._host.double_errors),
        )
        for kind, total in totals:
            drop = self._host_drops.update(kind, cpu=CPU if kind in ("principal", "aggregation") else None, total=total)
            if drop is not None:
                yield drop

    def _read(self, drained: Drained) -> Iterator[Event]:
        ordered = sorted(drained.records, key=lambda item: item[1].timestamp)
        ticks = self._guest.ticks_per_ns if self._guest is not None else 1.0
        yield from self._events_of(ordered, ticks_per_ns=ticks)
        counters: tuple[tuple[DropKind, dict[int, int]], ...] = (
            ("principal", dict(drained.principal_drops)),
            ("recursion", dict(drained.recursion_drops)),
            ("aggregation", dict(drained.aggregation_drops)),
        )
        for kind, totals in counters:
            for cpu, total in totals.items():
                yield from self._dropped(kind, cpu, total)
        if drained.corrupt:
            drop = self._drops.add("corrupt", cpu=None, count=drained.corrupt)
            if drop is not None:
                yield drop

    def _dropped(self, kind: DropKind, cpu: int | None, total: int) -> Iterator[Event]:
        drop = self._drops.update(kind, cpu=cpu, total=total)
        if drop is not None:
            yield drop

    def _events_of(self, records: Sequence[tuple[int, RawRecord]], *, ticks_per_ns: float) -> Iterator[Event]:
        if any(self._on_aggregations(record) for _, record in records):
            self._snapshot()
        found: list[Event] = []
        for cpu, record in records:
            here = record.site in self._host_sites
            if self._host.exited and not here:
                continue  # what the guest's clauses did behind exit(); the host's do not run then
            events = record_events(self._reader, record, cpu=cpu, timestamp=int(record.timestamp / ticks_per_ns))
            if isinstance(events, Corrupt):
                drop = self._drops.add("corrupt", cpu=cpu, count=1)
                found += [drop] if drop is not None else []
                continue
            for event in events:
                found.append(event)
                if isinstance(event, model.ExitRequested):
                    self.status = event.status
                    self._host.exited = True
                elif isinstance(event, model.Fault) and not here:
                    self._host.error(record)
                    found += self._errors_of_guest(event)
        yield from self._flow.annotate(found) if self._options.flowindent else found

    def _errors_of_guest(self, fault: model.Fault) -> list[Event]:
        """What ERROR's clauses, run just now, have to say."""
        if fault.probe.id == ERROR.id:
            return []
        return list(self._events_of(self._host.take(), ticks_per_ns=1.0))

    def _on_aggregations(self, record: RawRecord) -> bool:
        if not 0 <= record.clause < len(self._reader.clauses):
            return False
        return any(isinstance(action, _ON_AGGREGATIONS) for action in self._reader.clauses[record.clause].plan.actions)

    def _setopt(self, name: str, value: str) -> str:
        """``setopt()``: an option that may change while tracing. What is wrong, or nothing."""
        try:
            self._options = set_option(self._options, name, value, "runtime")
        except OptionError as error:
            return error.reason
        self._store.order = _order(self._options)
        return ""

    # -- the end ----------------------------------------------------------------------------------------------------

    def _disable(self) -> tuple[Drained | None, list[str]]:
        """Restore the guest; what was still in its buffers (nothing after ``exit()``), and what went wrong."""
        if self._guest is None:
            return None, []
        drained, problems = self._guest.disable(self._globals_here.store)
        self.stats |= self._guest.stats
        return (None if self._host.exited else drained), problems


def _read_clauses(program: Program) -> list[ReadClause]:
    return [
        ReadClause(plan=clause.record or _EMPTY_PLAN, name=f"clause {clause.index + 1}", where=f"line {clause.line}")
        for clause in program.clauses
    ]


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
        found = table.lookup(addr)
        return None if found is None else Found(found[0].module or "vmlinux", found[0].name, found[1])

    return Symbols(lookup)


def _check_records(program: Program, options: Options) -> None:
    """A record that can never fit is an error from the start, as in DTrace."""
    sizes = [RECORD_HEADER.size + clause.record.size for clause in program.clauses if clause.record is not None]
    if max(sizes, default=0) > options.bufsize:
        message = "could not enable tracing: Enabling exceeds size of buffer"
        raise ProbekitError(message, hint=f"a record takes {max(sizes)} bytes: set bufsize")


def _most_keys(program: Program, options: Options) -> int | None:
    """How many keys fit into ``aggsize``, when it was set."""
    if options.aggsize == AGGSIZE or not program.aggregations:
        return None
    widest = max(8 * (2 + plan.key_words + plan.words) for plan in program.aggregations)
    return options.aggsize // widest


def _no_match(matching: Matching) -> NoMatchError:
    clause, description = matching.unmatched[0]
    hint = "list what there is with -l, or allow it with -Z"
    return NoMatchError(
        f"probe description {description} does not match any probes",
        clause=clause,
        description=str(description),
        hint=hint,
    )


def _age_of_process() -> float:
    """Seconds since this process was started, by ticks since boot: the time of boot is only known to a second."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])  # proc(5): starttime
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
