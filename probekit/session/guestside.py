"""The guest's part of a run: its sites, the engine that makes them live, restoring them.

Imported only when there is a guest, so that a program without one starts at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from probekit.consumer import events as model
from probekit.enabling.api import Drained, Engine, EngineOptions, Globals, Rows
from probekit.enabling.ecb import Matching
from probekit.enabling.guest import GuestEngine
from probekit.enabling.sites import RefusedProbe, SiteSet, find_sites
from probekit.enabling.stop import StopEngine
from probekit.errors import TargetLost
from probekit.ir.ops import Program
from probekit.session.attach import Attachment
from probekit.session.options import Options
from probekit.session.state import JournalLog, new_journal

__all__ = ("GuestSide",)

_SMALLEST = 4096  # bytes of a buffer that an engine can work with
_LARGEST = 1 << 28


class GuestSide:
    """``refused``: probes, or exits of probes, that cannot be enabled, known after :meth:`find`.

    ``stats``: what things took. ``cancelled``: asked while waiting for the guest.
    """

    def __init__(
        self,
        attachment: Attachment,
        program: Program,
        options: Options,
        *,
        engine: str,
        cancelled: Callable[[], bool],
    ) -> None:
        self.attachment = attachment
        self._program = program
        self._options = options
        self._engine_name = engine
        self._cancelled = cancelled
        self._engine: Engine | None = None
        self._log: JournalLog | None = None
        self._kept: dict[int, Rows] = {}
        self._sites = SiteSet((), ())
        self.stats: dict[str, float | int] = {}

    @property
    def live(self) -> bool:
        """Sites are enabled."""
        return self._engine is not None

    @property
    def refused(self) -> tuple[RefusedProbe, ...]:
        """See the class."""
        return self._sites.refused

    @property
    def globals_(self) -> Globals | None:
        """The program's globals while they live in the guest."""
        return self._engine.globals_ if self._engine is not None else None

    @property
    def ticks_per_ns(self) -> float:
        """Of the time stamps of guest records."""
        khz = self.attachment.facts.tsc_khz
        return khz / 1e6 if khz else 1.0

    def find(self, matching: Matching) -> dict[int, model.Probe]:
        """Find the sites of all guest probes; the probe of each site number."""
        ecbs = matching.of_kind("entry", "return")
        if ecbs:
            attachment = self.attachment
            attachment.progress(f"finding the sites of {len(ecbs)} probes")
            self._sites = find_sites(ecbs, attachment.read_code, attachment.text_facts)
        self.stats |= {"sites": len(self._sites.sites), "attach_pause_s": self.attachment.attach_pause}
        return {s.index: model.Probe(s.probe.id, s.probe.name) for s in self._sites.sites}

    def enable(self, initial: Mapping[int, int]) -> None:
        """Make the sites live, if there are any; ``initial``: globals that BEGIN has set."""
        if not self._sites.sites:
            return
        attachment = self.attachment
        attachment.progress(f"enabling {len(self._sites.sites)} sites")
        clock = attachment.clock
        clock.longest = 0.0
        self._log = new_journal(attachment.spec, attachment.kernel, attachment.guest_cookie)
        try:
            engine = self._make_engine(self._log)
            engine.enable(initial)
        except TargetLost as error:
            self.give_up(error)
            raise
        except BaseException:
            self._log.close()
            self._log = None
            raise
        self._engine = engine
        self.stats |= {"enable_pause_s": clock.longest, "guest_bytes": engine.guest_bytes}

    def _make_engine(self, log: JournalLog) -> Engine:
        options = EngineOptions(
            aggsize=min(max(self._options.aggsize, _SMALLEST), _LARGEST),
            bufsize=min(max(self._options.bufsize, _SMALLEST), _LARGEST),
            safepoint_s=self._options.safepoint_ns / 1e9,
        )
        attachment = self.attachment
        make = StopEngine if self._engine_name == "stop" else GuestEngine
        return make(
            target=attachment.target,
            text=attachment.text,
            facts=attachment.facts,
            program=self._program,
            sites=self._sites.sites,
            options=options,
            log=log,
            clock=attachment.clock,
            make_memory=attachment.data_memory,
            cancelled=self._cancelled,
        )

    @property
    def code(self) -> tuple[int, bytes] | None:
        """Address and bytes of the machine code in the guest, when that is where clauses run."""
        return self._engine.code if isinstance(self._engine, GuestEngine) else None

    def poll(self, timeout: float) -> Drained:
        """Wait for something to read, and take it."""
        if self._engine is None:
            raise AssertionError("nothing is enabled")
        return self._engine.poll(timeout)

    def aggregations(self) -> dict[int, Rows]:
        """Everything so far, by aggregation number."""
        return self._engine.aggregations() if self._engine is not None else self._kept

    def give_up(self, error: TargetLost) -> None:
        """The connection is gone, so nothing can be restored over it; the journal stays for another one."""
        if self._log is not None:
            if self._log.needed:
                error.add_note(
                    "if the guest still runs, its probes are still in place: "
                    f"`probekit recover -r {self.attachment.spec}` removes them"
                )
            self._log.close()
        self._engine = self._log = None

    def disable(self, keep: Callable[[int, int], None]) -> tuple[Drained | None, list[str]]:
        """Restore the guest. What was still in its buffers, and what could not be undone, in words.

        ``keep``: told the last value of each global variable.
        """
        engine, log, attachment = self._engine, self._log, self.attachment
        if engine is None or log is None:
            return None, []
        attachment.progress("restoring the guest")
        clock, begin = attachment.clock, time.monotonic()
        clock.longest, longest = 0.0, clock.longest
        try:
            if not self._still_there():
                log.forget()
                self._engine = self._log = None
                return None, ["the guest is not the one that was traced any more: nothing is left to restore"]
            problems = engine.disable()
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
        drained = engine.poll(0)
        self._kept = engine.aggregations()
        for variable in self._program.variables:
            if variable.scope == "global":
                keep(variable.index, engine.globals_.load(variable.index))
        self._engine = self._log = None
        return drained, [f"not everything could be undone: {text}" for text in problems]

    def _still_there(self) -> bool:
        """Never restore into another kernel: after a reboot the same addresses hold something else."""
        with self.attachment.clock.paused():
            return self.attachment.same_boot()
