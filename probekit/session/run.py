"""One program on one guest: match, enable, consume, fire the host's own probes, restore.

    BEGIN -> sites go live -> records, ticks -> sites restored -> last records -> END -> aggregations

:meth:`Trace.events` is the whole of it as a stream; the command line and the
Python API both read from there. However it ends, the guest is restored.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal

import psutil

from probekit.buffers.actions import RecordPlan
from probekit.buffers.layout import RawRecord
from probekit.consumer import events as model
from probekit.consumer.aggregate import finish, merge
from probekit.consumer.drops import DropMeter
from probekit.consumer.events import Event
from probekit.consumer.records import Clause as ReadClause
from probekit.consumer.records import Corrupt, record_events
from probekit.consumer.records import Program as ReadProgram
from probekit.enabling.api import Drained, Engine, EngineOptions, Globals, Rows
from probekit.enabling.ecb import Ecb, Matching, match_program
from probekit.enabling.guest import GuestEngine
from probekit.enabling.host import Firing, HostGlobals, HostWorld, fire
from probekit.enabling.sites import RefusedProbe, SiteSet, find_sites
from probekit.enabling.stop import StopEngine
from probekit.errors import ProbekitError, TargetLost
from probekit.interp.aggs import Aggregations
from probekit.ir.ops import Program
from probekit.providers.dtrace import ERROR
from probekit.providers.registry import Registry, make_registry
from probekit.session.attach import Attachment
from probekit.session.options import Options
from probekit.session.signals import Interrupts
from probekit.session.state import JournalLog, new_journal

__all__ = ("EngineName", "NoMatchError", "Trace")

EngineName = Literal["guest", "stop"]

_EMPTY_PLAN = RecordPlan((), (), 0)
_LONGEST_WAIT = 0.2  # seconds: how late a signal is noticed


class NoMatchError(ProbekitError):
    """A description that matches no probe. ``clause``: its number; ``description``: as the program has it."""

    def __init__(self, message: str, *, clause: int, description: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.clause = clause
        self.description = description


@dataclass(slots=True)
class _Timer:
    """One tick probe: when it is due next, in monotonic nanoseconds."""

    ecb: Ecb
    due_ns: int


class Trace:
    """A program to run. ``attachment``: None for programs that need no guest.

    ``matching``: its ECBs; ``refused``: probes, or exits of probes, that cannot be enabled, known once enabled;
    ``status``: what ``exit()`` was given, or 0; ``stats``: what things took, see :class:`Stats`.
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
    ) -> None:
        self._attachment = attachment
        self._program = program
        self._options = options
        self._engine_name = engine
        self._what = what
        self._interrupts = interrupts or (attachment.interrupts if attachment is not None else Interrupts())
        registry: Registry = attachment.registry if attachment is not None else make_registry(())
        self.matching: Matching = match_program(program, registry)
        if self.matching.unmatched and not options.zdefs:
            raise _no_match(self.matching)
        self.refused: tuple[RefusedProbe, ...] = ()
        self.status = 0
        self.stats: dict[str, float | int] = {}
        self._host_aggs = Aggregations(program.aggregations)
        self._host_globals = HostGlobals()
        self._engine: Engine | None = None
        self._log: JournalLog | None = None
        self._reader = ReadProgram(_read_clauses(program), {})
        self._sites: dict[int, model.Probe] = {}
        self._site_of: dict[int, int] = {}
        self._drops = DropMeter()
        self._timers: list[_Timer] = []
        self._exited = False
        self._kept_rows: dict[int, Rows] = {}

    def __enter__(self) -> Trace:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- the whole run ----------------------------------------------------------------------------------------------

    def events(self, seconds: float | None = None) -> Iterator[Event]:
        """Run the program until ``exit()``, a signal, or ``seconds`` have passed; then restore and end.

        Aggregations are the last events. A consumer that stops reading early has the guest restored as well.
        """
        with self._interrupts:
            try:
                yield from self._start()
                yield from self._consume(seconds)
            except TargetLost as error:
                self._give_up(error)
                raise
            finally:
                ended = self._disable()
            yield from ended
            yield from self._fire_all("end")
            yield model.Stats(dict(self.stats))

    def close(self) -> None:
        """Restore the guest if :meth:`events` was abandoned. Safe to call twice."""
        with self._interrupts:
            self._disable()

    def aggregations(self) -> list[model.Aggregation]:
        """All aggregations as they are now (or were at the end), merged over CPUs and sorted."""
        rows = self._engine.aggregations() if self._engine is not None else self._kept_rows
        result: list[model.Aggregation] = []
        for plan in self._program.aggregations:
            merged = merge(plan.func, [rows.get(plan.index, []), self._host_aggs.table(plan.index)])
            result.append(finish(plan, merged))
        return result

    # -- start ------------------------------------------------------------------------------------------------------

    def _start(self) -> Iterator[Event]:
        begin = time.monotonic()
        sites = self._find_sites()
        self.refused = sites.refused
        self._name_sites(sites)
        probes = len(self.matching.ecbs) - len({r.probe.id for r in sites.refused if not r.partial})
        lost = len(self.matching.ecbs) - probes
        yield model.Attached(what=self._what, probes=probes, refused=lost)
        yield from self._fire_all("begin")
        if not self._exited and sites.sites:
            self._enable(sites)
        self.stats |= {
            "probes": probes,
            "sites": len(sites.sites),
            "enable_s": time.monotonic() - begin,
            "first_data_s": time.time() - psutil.Process().create_time(),
        }
        now = time.monotonic_ns()
        self._timers = [_Timer(ecb, now + ecb.probe.period_ns) for ecb in self.matching.of_kind("tick")]

    def _find_sites(self) -> SiteSet:
        ecbs = self.matching.of_kind("entry", "return")
        attachment = self._attachment
        if not ecbs or attachment is None:
            return SiteSet((), ())
        attachment.progress(f"finding the sites of {len(ecbs)} probes")
        return find_sites(ecbs, attachment.read_code, attachment.text_facts)

    def _name_sites(self, sites: SiteSet) -> None:
        """Number every site, and behind the guest's every host probe, for the consumer."""
        self._sites = {s.index: model.Probe(s.probe.id, s.probe.name) for s in sites.sites}
        for ecb in self.matching.ecbs:
            if ecb.probe.function is None:
                self._site_of[ecb.probe.id] = len(self._sites)
                self._sites[len(self._sites)] = model.Probe(ecb.probe.id, ecb.probe.name)
        self._reader = ReadProgram(self._reader.clauses, self._sites)

    def _enable(self, sites: SiteSet) -> None:
        attachment = self._attachment
        if attachment is None:
            raise AssertionError("there are no sites without a guest")
        attachment.progress(f"enabling {len(sites.sites)} sites")
        clock = attachment.clock
        clock.longest = 0.0
        self._log = new_journal(attachment.spec, attachment.kernel, attachment.guest_cookie)
        try:
            engine = self._make_engine(attachment, sites, self._log)
            engine.enable(self._host_globals.values)
        except TargetLost as error:
            self._give_up(error)
            raise
        except BaseException:
            self._log.close()
            self._log = None
            raise
        self._engine = engine
        self.stats |= {"enable_pause_s": clock.longest, "guest_bytes": engine.guest_bytes}

    def _make_engine(self, attachment: Attachment, sites: SiteSet, log: JournalLog) -> Engine:
        options = EngineOptions(
            aggsize=self._options.aggsize,
            bufsize=self._options.bufsize,
            safepoint_s=self._options.safepoint_ns / 1e9,
        )
        make = StopEngine if self._engine_name == "stop" else GuestEngine
        return make(
            target=attachment.target,
            text=attachment.text,
            facts=attachment.facts,
            program=self._program,
            sites=sites.sites,
            options=options,
            log=log,
            clock=attachment.clock,
            make_memory=attachment.data_memory,
            cancelled=lambda: self._interrupts.pending != 0,
        )

    # -- while it runs ----------------------------------------------------------------------------------------------

    def _consume(self, seconds: float | None) -> Iterator[Event]:
        end = None if seconds is None else time.monotonic() + seconds
        while not self._over(end):
            yield from self._fire_due()
            if self._attachment is not None:
                self._attachment.check_alive()
            timeout = self._patience(end)
            if self._engine is not None:
                yield from self._read(self._engine.poll(0 if self._exited else timeout))
            elif self._timers or end is not None or self._attachment is not None:
                time.sleep(0 if self._exited else timeout)
            else:
                return  # with no guest and no timer nothing more can happen

    def _over(self, end: float | None) -> bool:
        return self._exited or self._interrupts.pending != 0 or (end is not None and time.monotonic() >= end)

    def _patience(self, end: float | None) -> float:
        """Seconds until something is due."""
        limits = [_LONGEST_WAIT, self._options.switchrate_ns / 1e9]
        if self._timers:
            limits.append((min(t.due_ns for t in self._timers) - time.monotonic_ns()) / 1e9)
        if end is not None:
            limits.append(end - time.monotonic())
        return max(min(limits), 0.0)

    def _fire_due(self) -> Iterator[Event]:
        now = time.monotonic_ns()
        for timer in sorted(self._timers, key=lambda t: t.due_ns):
            if timer.due_ns > now or self._exited:
                continue
            missed = (now - timer.due_ns) // timer.ecb.probe.period_ns
            timer.due_ns += (missed + 1) * timer.ecb.probe.period_ns
            yield from self._fire(timer.ecb)

    def _fire_all(self, kind: str) -> Iterator[Event]:
        exited, self._exited = self._exited, False  # END runs after exit() as well
        for ecb in self.matching.of_kind(kind):
            yield from self._fire(ecb)
        self._exited = self._exited or exited

    def _fire(self, ecb: Ecb, args: Sequence[int] = ()) -> Iterator[Event]:
        firing = Firing(ecb.probe, self._program, HostWorld(args), self._globals, self._host_aggs)
        clauses = [self._program.clauses[number] for number in ecb.clauses]
        records = fire(clauses, self._program, firing, self._site_of[ecb.probe.id], time.monotonic_ns())
        yield from self._events_of([(0, record) for record in records], ticks_per_ns=1.0)

    @property
    def _globals(self) -> Globals:
        return self._engine.globals_ if self._engine is not None else self._host_globals

    def _read(self, drained: Drained) -> Iterator[Event]:
        ordered = sorted(drained.records, key=lambda item: item[1].timestamp)
        khz = self._attachment.facts.tsc_khz if self._attachment is not None else 0
        yield from self._events_of(ordered, ticks_per_ns=khz / 1e6 if khz else 1.0)
        for kind, totals in (
            ("principal", drained.principal_drops),
            ("recursion", drained.recursion_drops),
            ("aggregation", drained.aggregation_drops),
        ):
            for cpu, total in totals.items():
                drop = self._drops.update(kind, cpu=cpu, total=total)  # type: ignore[arg-type]
                if drop is not None:
                    yield drop
        if drained.corrupt:
            drop = self._drops.add("corrupt", cpu=None, count=drained.corrupt)
            if drop is not None:
                yield drop

    def _events_of(self, records: Sequence[tuple[int, RawRecord]], *, ticks_per_ns: float) -> Iterator[Event]:
        for cpu, record in records:
            if self._exited:
                return
            found = record_events(self._reader, record, cpu=cpu, timestamp=int(record.timestamp / ticks_per_ns))
            if isinstance(found, Corrupt):
                drop = self._drops.add("corrupt", cpu=cpu, count=1)
                if drop is not None:
                    yield drop
                continue
            for event in found:
                if isinstance(event, model.ExitRequested):
                    self.status = event.status
                    self._exited = True
                yield event
                if isinstance(event, model.Fault):
                    yield from self._fire_error(event, record)

    def _fire_error(self, fault: model.Fault, record: RawRecord) -> Iterator[Event]:
        """ERROR: arg1 the EPID, arg2 the action, arg3 the offset, arg4 the kind of fault, arg5 its value."""
        if fault.probe.id == ERROR.id:
            return  # a fault in ERROR itself fires nothing: it would never end
        for ecb in self.matching.of_kind("error"):
            yield from self._fire(ecb, (0, record.clause + 1, 0, 0, fault.kind, fault.value or 0))

    def _give_up(self, error: TargetLost) -> None:
        """The connection is gone, so nothing can be restored over it; the journal stays for another one."""
        if self._log is not None:
            if self._log.needed and self._attachment is not None:
                error.add_note(
                    "if the guest still runs, its probes are still in place: "
                    f"`probekit recover -r {self._attachment.spec}` removes them"
                )
            self._log.close()
        self._engine = self._log = None

    def _still_there(self, attachment: Attachment) -> bool:
        """Never restore into another kernel: after a reboot the same addresses hold something else."""
        with attachment.clock.paused():
            return attachment.same_boot()

    # -- the end ----------------------------------------------------------------------------------------------------

    def _disable(self) -> list[Event]:
        """Restore the guest; the events of what was still in its buffers. Never raises half way: see ``problems``."""
        engine, log, attachment = self._engine, self._log, self._attachment
        if engine is None or log is None or attachment is None:
            return []
        attachment.progress("restoring the guest")
        clock, begin = attachment.clock, time.monotonic()
        clock.longest, longest = 0.0, clock.longest
        try:
            if not self._still_there(attachment):
                log.forget()
                self._engine = self._log = None
                return [model.Message("the guest is not the one that was traced any more: nothing is left to restore")]
            problems = engine.disable()
        except TargetLost as error:
            self._give_up(error)
            raise
        log.close()
        self.stats |= {
            "disable_s": time.monotonic() - begin,
            "disable_pause_s": clock.longest,
            "longest_pause_s": max(longest, clock.longest, float(self.stats.get("enable_pause_s", 0))),
            "pauses": clock.count,
        }
        exited, self._exited = self._exited, False
        found: list[Event] = [] if exited else list(self._read(engine.poll(0)))
        self._exited = exited
        self._kept_rows = engine.aggregations()
        for variable in self._program.variables:
            if variable.scope == "global":
                self._host_globals.store(variable.index, engine.globals_.load(variable.index))
        self._engine = self._log = None
        return [*found, *(model.Message(f"not everything could be undone: {text}") for text in problems)]


def _read_clauses(program: Program) -> list[ReadClause]:
    return [
        ReadClause(plan=clause.record or _EMPTY_PLAN, name=f"clause {clause.index + 1}", where=f"line {clause.line}")
        for clause in program.clauses
    ]


def _no_match(matching: Matching) -> NoMatchError:
    clause, description = matching.unmatched[0]
    hint = "list what there is with -l, or allow it with -Z"
    return NoMatchError(
        f"probe description {description} does not match any probes",
        clause=clause,
        description=str(description),
        hint=hint,
    )
