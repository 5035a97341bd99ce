"""Serves the probes in the guest: finds their sites, enables them with an engine, drains it, restores the guest.

This module is imported only when there is a guest, so that a program without one starts at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property

from probekit.consumer import events as model
from probekit.enabling.api import Drained, Engine, Globals, Rows
from probekit.enabling.ecb import Matching
from probekit.enabling.sites import RefusedProbe, SiteSet, find_sites, journal_size
from probekit.enabling.speculation import Speculations
from probekit.enabling.stop_engine.watch import WatchSite
from probekit.errors import GuestError, TargetError, TargetLost, required
from probekit.guest.health import panic_error
from probekit.interp.state import ProgramState
from probekit.ir.ops import Program
from probekit.patch.sites import TextFacts
from probekit.session.attach import Attachment
from probekit.session.engine_factory import ENGINES, EnginePlan, make_engine, staged_sites
from probekit.session.engine_support import wants_stacks
from probekit.session.journal_log import JournalLog, new_journal
from probekit.session.options import EngineName, Options
from probekit.session.overhead import Overhead, refuse_measuring

__all__ = ("GuestTracing",)


class GuestTracing:
    """Carries out the guest's part of one run. The guest runs before and after each call."""

    def __init__(
        self,
        attachment: Attachment,
        program: Program,
        options: Options,
        *,
        engine: EngineName,
        cancelled: Callable[[], bool],
        measure: bool = False,
    ) -> None:
        """Prepare, but change nothing in the guest yet.

        ``cancelled``: returns whether to give up waiting for the guest. ``measure``: clauses measure their own time.
        Raises :class:`probekit.errors.UnsupportedError` when ``maxoverhead`` is set and clauses cannot be measured.
        """
        kind = ENGINES[engine]
        if options.maxoverhead:
            refuse_measuring(attachment.facts.tsc_khz, possible=kind.measures)
        wanted = kind.measures and (measure or options.maxoverhead > 0)
        self._measure = wanted and attachment.facts.tsc_khz > 0
        self._overhead: Overhead | None = None
        self.costs: model.Costs | None = None
        """What the clauses have cost. Known once the guest is restored; None where it is not measured."""
        self.attachment = attachment
        self._program = program
        self._options = options
        self._engine_name: EngineName = engine
        self._kind = kind
        self._cancelled = cancelled
        self._engine: Engine | None = None
        self._log: JournalLog | None = None
        self._last_aggregations: dict[int, Rows] = {}
        self._sites = SiteSet((), ())
        self._watches: tuple[WatchSite, ...] = ()
        self._needs_stacks = False
        self.stats: dict[str, float | int] = {}
        """How long each step took, and other figures, by name: see :class:`probekit.consumer.events.Stats`."""

    @property
    def live(self) -> bool:
        """Whether sites are enabled."""
        return self._engine is not None

    @property
    def refused(self) -> tuple[RefusedProbe, ...]:
        """Probes, or exits of probes, that cannot be enabled. Known after :meth:`find`."""
        return self._sites.refused

    @property
    def globals_(self) -> Globals | None:
        """The program's global variables while they live in the guest, else None."""
        return self._engine.globals_ if self._engine is not None else None

    @property
    def ticks_per_ns(self) -> float:
        """How many units of the guest's time stamps are a nanosecond."""
        khz = self.attachment.facts.tsc_khz
        return khz / 1e6 if khz else 1.0

    def find(self, matching: Matching) -> dict[int, model.ProbeIdentity]:
        """Find the sites of all guest probes. Returns the probe of each site number."""
        self._needs_stacks = wants_stacks(self._program, matching, self._engine_name)
        ecbs = [ecb for ecb in matching.in_guest() if ecb.probe.watched is None]
        if ecbs:
            attachment = self.attachment
            attachment.progress(f"finding the sites of {len(ecbs)} probes")
            text = any(ecb.probe.function is not None for ecb in ecbs)
            facts = attachment.text_facts if text else TextFacts()
            if self._kind.steps_in_place:
                facts = replace(facts, trapping=True, fixups=True)
            if self._options.kinstjump or (text and facts.pads is None):
                facts = replace(facts, side_entries=attachment.side_entries)
            self._sites = find_sites(ecbs, attachment.read_code, facts, attachment.system_calls)
        sites = self._sites.sites
        watched = [(e.probe, e.probe.watched, e.clauses) for e in matching.ecbs if e.probe.watched is not None]
        self._watches = tuple(WatchSite(len(sites) + n, *watch) for n, watch in enumerate(watched))
        self.stats |= {"sites": len(sites) + len(self._watches), "attach_pause_s": self.attachment.attach_pause}
        probes = {s.number: s.probe for s in sites} | {w.number: w.probe for w in self._watches}
        return {number: model.ProbeIdentity(probe.id, probe.name) for number, probe in probes.items()}

    def enable(self, initial: Mapping[int, int], state: ProgramState, speculations: Speculations) -> None:
        """Make the sites live, if there are any. All or nothing; raises :class:`probekit.errors.ProbekitError`.

        ``initial``, ``state``, ``speculations``: as BEGIN left them; see :meth:`probekit.enabling.api.Engine.enable`.
        """
        attachment = self.attachment
        if self._needs_stacks:
            attachment.progress("reading the kernel's unwind tables")
            attachment.stacks.load()
        count = len(self._sites.sites) + len(self._watches)
        if not count:
            return
        if attachment.panicked():
            raise panic_error()
        attachment.progress(f"enabling {count} sites")
        clock = attachment.clock
        clock.longest = 0.0
        size = journal_size(self._sites.sites, self._staged)
        # Twice: registrations are journaled when they are made, and again when they are taken back.
        self._log = new_journal(attachment.spec, attachment.kernel, attachment.guest_cookie, 2 * size)
        try:
            plan = EnginePlan(
                name=self._engine_name,
                program=self._program,
                options=self._options,
                sites=self._sites.sites,
                watches=self._watches,
                staged=self._staged,
                measure=self._measure,
                edits_size=size,
                cancelled=self._cancelled,
            )
            engine = make_engine(attachment, plan, self._log)
            engine.enable(initial, state, speculations)
        except TargetLost as error:
            self.give_up(error)
            raise
        except BaseException:
            self._log.close()
            self._log = None
            raise
        self._engine = engine
        if self._measure:
            cpus = len(attachment.facts.online)
            self._overhead = Overhead(self._options.maxoverhead, cpus, lambda: clock.total)
        self.stats |= {"enable_pause_s": clock.longest, "guest_bytes": engine.guest_bytes}

    @cached_property
    def _staged(self) -> frozenset[int]:
        """The addresses of the sites that are patched in stages; none unless the option ``stages`` is set."""
        wanted = self._options.stages and self._kind.patches_in_stages
        return staged_sites(self.attachment, self._sites.sites) if wanted else frozenset()

    @property
    def code(self) -> tuple[int, bytes] | None:
        """Address and bytes of the machine code in the guest; None where clauses run on the host."""
        return self._engine.code if self._engine is not None else None

    def send_heartbeat(self) -> None:
        """Send the guest's watchdog a heartbeat, if one is due, between two polls that are far apart."""
        if self._engine is not None:
            self._engine.send_heartbeat()

    def poll(self, timeout: float) -> Drained:
        """Wait up to ``timeout`` seconds for records, and return them."""
        return required(self._engine, "the engine of enabled sites").poll(timeout)

    def too_costly(self) -> bool:
        """Return whether the program takes more of the guest's time than ``maxoverhead`` allows; silence it then."""
        engine, overhead = self._engine, self._overhead
        if engine is None or overhead is None or not overhead.exceeded(engine.costs):
            return False
        engine.silence()
        return True

    def aggregations(self) -> dict[int, Rows]:
        """Return everything that was aggregated so far, by aggregation number."""
        return self._engine.aggregations() if self._engine is not None else self._last_aggregations

    def give_up(self, error: TargetLost) -> None:
        """Stop tracing without restoring the guest, because the connection is lost.

        The journal stays on disk for ``probekit recover``; a note on ``error`` says so.
        """
        if self._log is not None:
            if self._log.needed:
                error.add_note(
                    "if the guest still runs, its probes are still in place: "
                    f"`probekit recover -r {self.attachment.spec}` removes them"
                )
            self._log.close()
        self._engine = self._log = None

    def disable(self, keep: Callable[[int, int], None], *, silence: bool = False) -> tuple[Drained | None, list[str]]:
        """Restore the guest. Returns what was still in its buffers, and a message for each failure.

        ``keep``: is called with the index and last value of each global integer. ``silence``: whether clauses must do
        nothing from now on, already before the sites are restored. Safe to call twice.
        """
        engine, log, attachment = self._engine, self._log, self.attachment
        if engine is None or log is None:
            return None, []
        attachment.progress("restoring the guest")
        clock, begin = attachment.clock, time.monotonic()
        if self._overhead is not None:
            self._overhead.stop()
        clock.longest, longest = 0.0, clock.longest
        try:
            if not self._still_there():
                log.forget()
                self._engine = self._log = None
                return None, ["the traced guest has rebooted or panicked; there is nothing to restore"]
            problems = _silenced(engine) if silence else []
            problems += engine.disable()
        except TargetLost as error:
            self.give_up(error)
            raise
        log.close()
        self.stats |= {
            "disable_s": time.monotonic() - begin,
            "disable_pause_s": clock.longest,
            "longest_pause_s": max(
                longest, clock.longest, attachment.attach_pause, float(self.stats.get("enable_pause_s", 0))
            ),
            "pauses": clock.count,
        }
        self.stats |= engine.stats
        drained = engine.poll(0)
        self._last_aggregations = engine.aggregations()
        spent = engine.costs()
        if self._overhead is not None and spent is not None:
            self.costs = self._overhead.summary(spent)
        for variable in self._program.variables:
            if variable.scope == "global" and variable.kind == "int" and variable.plain:
                keep(variable.index, engine.globals_.load(variable.index))
        self._engine = self._log = None
        return drained, [f"not everything could be undone: {text}" for text in problems]

    def _still_there(self) -> bool:
        """Return whether the kernel that was changed still runs.

        After a reboot the same addresses hold something else. After a panic no vCPU reaches a safe point any more.
        """
        with self.attachment.clock.paused():
            return self.attachment.same_boot() and not self.attachment.panicked()


def _silenced(engine: Engine) -> list[str]:
    """Silence the clauses. Returns a message when that fails: the guest is restored all the same."""
    try:
        engine.silence()
    except (GuestError, TargetError) as error:
        if isinstance(error, TargetLost):
            raise
        return [f"clauses ran until their sites were restored: {error.message}"]
    return []
