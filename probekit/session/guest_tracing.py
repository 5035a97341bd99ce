"""Serves the probes in the guest: finds their sites, enables them with an engine, drains it, restores the guest.

This module is imported only when there is a guest, so that a program without one starts at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from probekit.consumer import events as model
from probekit.enabling.api import Drained, Engine, Globals, Rows
from probekit.enabling.ecb import Matching
from probekit.enabling.sites import RefusedProbe, journal_size
from probekit.enabling.speculation import Speculations
from probekit.errors import GuestError, GuestGone, GuestPaused, JournalError, TargetError, TargetLost, required
from probekit.guest.health import panic_error
from probekit.interp.state import ProgramState
from probekit.interruption import interruptible
from probekit.ir.ops import Program
from probekit.session.attach import Attachment
from probekit.session.engine_factory import ENGINES, EnginePlan, make_engine, staged_sites
from probekit.session.engine_support import wants_stacks
from probekit.session.guest_sites import GuestSites, find_guest_sites
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
        self._sites = GuestSites()
        self._needs_stacks = False
        self.lost: GuestGone | TargetLost | None = None
        """How the guest was lost while it was being restored."""
        self.stats: dict[str, float | int] = {}
        """How long each step took, and other figures, by name: see :class:`probekit.consumer.events.Stats`."""

    @property
    def live(self) -> bool:
        """Whether sites are enabled."""
        return self._engine is not None

    @property
    def refused(self) -> tuple[RefusedProbe, ...]:
        """Probes, or exits of probes, that cannot be enabled. Known after :meth:`find`."""
        return self._sites.found.refused

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
        self._sites = find_guest_sites(
            self.attachment, matching, kinstjump=self._options.kinstjump, steps_in_place=self._kind.steps_in_place
        )
        self.stats |= {"sites": self._sites.count, "attach_pause_s": self.attachment.attach_pause}
        if self._sites.count and self.attachment.is_paused():
            raise GuestPaused("enabling probes in it")
        return self._sites.probes

    def enable(self, initial: Mapping[int, int], state: ProgramState, speculations: Speculations) -> None:
        """Make the sites live, if there are any. All or nothing; raises :class:`probekit.errors.ProbekitError`.

        ``initial``, ``state``, ``speculations``: as BEGIN left them; see :meth:`probekit.enabling.api.Engine.enable`.
        """
        attachment = self.attachment
        if self._needs_stacks:
            attachment.progress("reading the kernel's unwind tables")
            with interruptible(self._cancelled):
                attachment.stacks.load()
        count, sites = self._sites.count, self._sites.found.sites
        if not count:
            return
        if attachment.life.panicked():
            raise panic_error()
        attachment.progress(f"enabling {count} sites")
        (clock := attachment.clock).longest = 0.0
        staged: frozenset[int] = frozenset()
        if self._options.stages and self._kind.patches_in_stages:
            staged = staged_sites(attachment, sites)
        size = journal_size(sites, staged)
        # Twice: registrations are journaled when they are made, and again when they are taken back.
        self._log = new_journal(attachment.spec, attachment.kernel, attachment.guest_cookie, 2 * size)
        try:
            plan = EnginePlan(
                name=self._engine_name,
                program=self._program,
                options=self._options,
                sites=sites,
                watches=self._sites.watches,
                staged=staged,
                measure=self._measure,
                edits_size=size,
                cancelled=self._cancelled,
            )
            engine = make_engine(attachment, plan, self._log)
            engine.enable(initial, state, speculations)
        except TargetLost as error:
            self.give_up(error)
            raise
        except BaseException as error:
            end = self._log.forget if isinstance(error, GuestGone) else self._log.close
            end()
            self._log = None
            raise
        self._engine = engine
        if self._measure:
            self._overhead = Overhead(self._options.maxoverhead, len(attachment.facts.online), lambda: clock.total)
        self.stats |= {"enable_pause_s": clock.longest, "guest_bytes": engine.guest_bytes}

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
        try:
            return required(self._engine, "the engine of enabled sites").poll(timeout)
        except GuestGone:
            raise
        except GuestError:
            with self.attachment.clock.paused():
                self.attachment.life.alive(True)  # what could not be read may only mean that the guest is gone
            raise

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

    def keep_copy(self) -> None:
        """Keep a copy of what was counted, because the guest was just seen to run. It may die at any time."""
        if self._engine is not None:
            self._engine.keep_copy()

    def salvage(
        self, error: GuestGone | TargetLost, keep: Callable[[int, int], None]
    ) -> tuple[Drained | None, list[str]]:
        """Take what can still be read of a guest that is gone, instead of :meth:`disable`, and forget the guest.

        Returns the last records (None where there are none), and messages. ``keep``: as in :meth:`disable`.
        """
        engine, log = self._engine, self._log
        if engine is None or log is None:
            return None, []
        left = engine.salvage(intact=not isinstance(error, GuestGone) or error.intact)
        if left.age is not None:
            self._last_aggregations = engine.aggregations()
            _keep_globals(self._program, engine, keep)
        if isinstance(error, GuestGone):
            log.forget()
            self._engine = self._log = None
        else:
            self.give_up(error)
        if left.age is None:
            return left.drained, ["what the guest had counted cannot be read any more"]
        return left.drained, [f"what the guest had counted is as of {left.age:.1f} s ago"] if left.age else []

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
        with attachment.interrupts.waiting(f"restoring {self._sites.count:,} sites"):
            failed = _say(attachment.progress, "restoring the guest")
            drained, problems = self._restore(engine, log, keep, silence=silence)
        return drained, [*problems, *failed]

    def _restore(
        self, engine: Engine, log: JournalLog, keep: Callable[[int, int], None], *, silence: bool
    ) -> tuple[Drained | None, list[str]]:
        attachment = self.attachment
        clock, begin = attachment.clock, time.monotonic()
        if self._overhead is not None:
            self._overhead.stop()
        clock.longest, longest = 0.0, clock.longest
        try:
            if attachment.life.gone is not None:
                raise attachment.life.gone
            with clock.paused():
                attachment.life.alive(True)
                in_place = engine.is_in_place()
            if not in_place:
                log.forget()
                self._engine = self._log = None
                why = "a snapshot of the guest from before this trace was loaded"
                return None, [f"{why}; there is nothing to restore"]
            problems = _silenced(engine) if silence else []
            problems += engine.disable()
        except (GuestGone, TargetLost) as error:
            drained, problems = self.salvage(error, keep)
            self.lost = error
            return drained, problems
        failed = _closed(log)
        longest = max(longest, clock.longest, attachment.attach_pause, float(self.stats.get("enable_pause_s", 0)))
        self.stats |= {"disable_s": time.monotonic() - begin, "disable_pause_s": clock.longest}
        self.stats |= {"longest_pause_s": longest, "pauses": clock.count}
        self.stats |= engine.stats
        drained = engine.poll(0)
        self._last_aggregations = engine.aggregations()
        spent = engine.costs()
        if self._overhead is not None and spent is not None:
            self.costs = self._overhead.summary(spent)
        _keep_globals(self._program, engine, keep)
        self._engine = self._log = None
        return drained, [f"not everything could be undone: {text}" for text in problems] + failed


def _say(progress: Callable[[str], None], text: str) -> list[str]:
    """Call the progress function. If that fails, return a message: nothing may keep us from restoring the guest."""
    try:
        progress(text)
    except Exception as error:  # noqa: BLE001 - it is the caller's, and may raise anything
        return [f"the progress function failed: {type(error).__name__}: {error}"]
    return []


def _keep_globals(program: Program, engine: Engine, keep: Callable[[int, int], None]) -> None:
    """Call ``keep`` for each global integer."""
    for variable in program.variables:
        if variable.scope == "global" and variable.kind == "int" and variable.plain:
            keep(variable.index, engine.globals_.load(variable.index))


def _closed(log: JournalLog) -> list[str]:
    """Close the journal of a guest that was restored. Returns a message if that fails."""
    try:
        log.close()
    except JournalError as error:
        return [error.message]
    except OSError as error:
        return [f"the undo journal cannot be closed: {error}"]
    return []


def _silenced(engine: Engine) -> list[str]:
    """Silence the clauses. Returns a message when that fails: the guest is restored all the same."""
    try:
        engine.silence()
    except (GuestError, TargetError) as error:
        if isinstance(error, TargetLost | GuestGone):
            raise
        return [f"clauses ran until their sites were restored: {error.message}"]
    return []
