"""Serves the probes that fire on the host: BEGIN, END, ERROR, tick-N and profile-N, with their variables."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from probekit.consumer import events as model
from probekit.consumer.events import DropKind
from probekit.enabling.ecb import Ecb, Matching
from probekit.enabling.host.firing import HostGlobals
from probekit.enabling.host.probes import CPU, GuestView, HostProbes
from probekit.enabling.speculation import Speculations
from probekit.interp.aggs import Aggregations
from probekit.interp.state import StateLimits
from probekit.ir.ops import Program
from probekit.providers.profile import is_sampling
from probekit.records import mutable_record
from probekit.session.options import AGGSIZE, Options
from probekit.session.run_state import RunState

if TYPE_CHECKING:
    from probekit.enabling.api import Globals
    from probekit.session.attach import Attachment

__all__ = ("HostTracing",)


@mutable_record
class _Timer:
    """A timed probe, and when it is due."""

    ecb: Ecb
    due_ns: int
    """When it fires next, in monotonic nanoseconds."""
    cpus: int = 1
    """How many CPUs it fires for."""
    missed: int = 0
    """Firings that were left out, on all these CPUs, because it was late by whole periods; only grows."""

    def skip(self, now: int) -> int:
        """Return how many whole periods have passed since it was due, and make the next one due."""
        late = (now - self.due_ns) // self.ecb.probe.period_ns
        self.due_ns += (late + 1) * self.ecb.probe.period_ns
        return late


class HostTracing:
    """Carries out the host's part of one run."""

    def __init__(
        self,
        program: Program,
        matching: Matching,
        options: Options,
        state: RunState,
        *,
        attachment: Attachment | None,
        in_guest: Callable[[], Globals | None],
    ) -> None:
        """Prepare, but fire nothing yet.

        ``attachment``: None for a program without a guest. ``in_guest``: returns the program's global variables while
        they live in the guest, else None.
        """
        self._matching = matching
        self._attachment = attachment
        self._in_guest = in_guest
        self._run = state
        self._site_of: dict[int, int] = {}
        self._timers: list[_Timer] = []
        self.sites: set[int] = set()
        """The site numbers of the host's own probes. Known after :meth:`name_sites`."""
        self.globals_ = HostGlobals()
        """The program's global variables while they are not in the guest."""
        self.aggregations = Aggregations(program.aggregations, _most_keys(program, options))
        self.speculations = Speculations(options.nspec, options.specsize)
        # The clauses of all host probes share the aggregations and the speculations.
        self.probes = HostProbes(
            program,
            aggregations=self.aggregations,
            run=state,
            globals_=self._live_globals,
            site_of=self._site_of,
            errors=matching.of_kind("error"),
            speculations=self.speculations,
            bufsize=options.bufsize,
            bufpolicy=options.bufpolicy,
            limits=StateLimits(options.dynvarsize, options.scratchsize),
            guest=_guest_view(attachment),
        )

    def _live_globals(self) -> Globals:
        live = self._in_guest()
        return live if live is not None else self.globals_

    def name_sites(self, sites: dict[int, model.ProbeIdentity]) -> dict[int, model.ProbeIdentity]:
        """Give each probe of the host a site number after those of the guest. Returns the probe of each number."""
        named = dict(sites)
        for ecb in self._matching.ecbs:
            if not ecb.probe.in_guest:
                self._site_of[ecb.probe.id] = len(named)
                self.sites.add(len(named))
                named[len(named)] = model.ProbeIdentity(ecb.probe.id, ecb.probe.name)
        return named

    def fire(self, kind: str) -> None:
        """Fire all probes of a kind: ``begin`` or ``end``."""
        for ecb in self._matching.of_kind(kind):
            self.probes.fire(ecb)

    def start_timers(self) -> None:
        """Start the periods of the timed probes now."""
        now = time.monotonic_ns()
        self._timers = [_Timer(ecb, now + ecb.probe.period_ns) for ecb in self._matching.of_kind("tick")]

    @property
    def timed(self) -> bool:
        """Whether there are timed probes."""
        return bool(self._timers)

    def due_in(self) -> float | None:
        """Return the seconds until the next timed probe is due, negative when it is overdue; None without one."""
        if not self._timers:
            return None
        return (min(t.due_ns for t in self._timers) - time.monotonic_ns()) / 1e9

    def fire_due(self) -> None:
        """Fire each timed probe that is due, once. Periods that passed without a firing are skipped, and counted.

        They would have come after this firing, so there are none when it calls ``exit()``.
        """
        now = time.monotonic_ns()
        for timer in sorted(self._timers, key=lambda t: t.due_ns):
            if timer.due_ns > now:
                return
            late = timer.skip(now)
            if self._attachment is not None and is_sampling(timer.ecb.probe):
                timer.cpus = self._sample(timer.ecb, self._attachment)
            else:
                self.probes.fire(timer.ecb)
            self._miss(timer, late)

    def _sample(self, ecb: Ecb, attachment: Attachment) -> int:
        """Fire a profile probe for each CPU of the guest. Returns how many there are."""
        from probekit.session.sampling import samples  # not imported in a run without a guest

        cpus = 0
        for cpu, world in samples(attachment):
            self.probes.fire(ecb, world=world, cpu=cpu)
            cpus += 1
        return cpus

    def stop_timers(self) -> None:
        """Count the whole periods that have passed until now, when tracing ends, since a timed probe was due."""
        now = time.monotonic_ns()
        for timer in self._timers:
            if timer.due_ns <= now:
                self._miss(timer, timer.skip(now))

    def _miss(self, timer: _Timer, periods: int) -> None:
        if not self._run.exit_called:
            timer.missed += periods * timer.cpus

    def missed(self) -> tuple[tuple[model.ProbeIdentity, int], ...]:
        """Return how many firings each timed probe has missed so far, on all CPUs that it fires for."""
        return tuple((model.ProbeIdentity(t.ecb.probe.id, t.ecb.probe.name), t.missed) for t in self._timers)

    def losses(self) -> tuple[tuple[DropKind, int | None, int], ...]:
        """Return the drops of the host's clauses so far: the kind, the CPU (None for all CPUs), and the number."""
        return (
            ("principal", CPU, self.probes.drops),
            ("aggregation", CPU, self.aggregations.drops),
            ("dynamic", None, self.probes.dynamic_drops),
            ("spec", None, self.speculations.drops),
            ("specunavail", None, self.speculations.unavailable),
            ("specbusy", None, self.speculations.busy),
            ("dblerror", None, self.probes.double_errors),
        )


def _guest_view(attachment: Attachment | None) -> GuestView | None:
    if attachment is None:
        return None
    return GuestView(attachment.safe_loads, lambda: attachment.facts.cpu_offsets[CPU])


def _most_keys(program: Program, options: Options) -> int | None:
    """Return how many keys fit into ``aggsize``; None when it was not set."""
    if options.aggsize == AGGSIZE or not program.aggregations:
        return None
    widest = max(8 * (2 + plan.key_words + plan.words) for plan in program.aggregations)
    return options.aggsize // widest
