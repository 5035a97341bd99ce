"""One program, with or without a guest: match, enable, consume, fire the host's own probes, restore.

    BEGIN -> sites go live -> records, ticks -> sites restored -> END -> last records -> aggregations

:meth:`Trace.events` is the whole of it as a stream; the command line and the
Python API both read from there. However it ends, the guest is restored.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from probekit.consumer import events as model
from probekit.consumer.events import Event
from probekit.enabling.ecb import Matching, match_program
from probekit.errors import ProbekitError, TargetLost
from probekit.ir.ops import Program
from probekit.providers.registry import Registry, make_registry
from probekit.session.checks import check_matches, check_records
from probekit.session.hostside import HostSide
from probekit.session.options import Options
from probekit.session.reading import Reading
from probekit.session.run_state import RunState
from probekit.session.signals import Interrupts

if TYPE_CHECKING:
    from probekit.enabling.api import Drained
    from probekit.enabling.sites import RefusedProbe
    from probekit.session.attach import Attachment
    from probekit.session.guestside import GuestSide

__all__ = ("EngineName", "Trace")

EngineName = Literal["guest", "stop"]

_LONGEST_WAIT = 0.2  # seconds: how late a signal is noticed


class Trace:
    """A program to run. ``attachment``: None for programs that need no guest.

    ``started``: called once BEGIN has fired and sites are live; ``ended``: tracing ends when it says so (``-c``).
    ``state``: what the parts of the run share, such as its exit status.
    ``measure``: clauses in the guest take their own time, and :class:`Costs` are among the last events.
    ``matching``: its ECBs; ``stats``: what things took, see
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
        measure: bool = False,
    ) -> None:
        self._started = started
        self._ended = ended
        self._what = what
        self._interrupts = interrupts or (attachment.interrupts if attachment is not None else Interrupts())
        registry: Registry = attachment.registry if attachment is not None else make_registry(None)
        self.matching: Matching = match_program(program, registry)
        check_matches(self.matching, options)
        check_records(program, options)
        self._guest: GuestSide | None = None
        if attachment is not None:
            if self.matching.of_kind("watch"):
                engine = "stop"  # memory is watched by the hypervisor: each access stops the guest anyway
            from probekit.session.guestside import GuestSide
            from probekit.session.unsupported import refuse_for_guest

            refuse_for_guest(program, self.matching, engine)

            self._guest = GuestSide(
                attachment,
                program,
                options,
                engine=engine,
                cancelled=lambda: self._interrupts.pending != 0,
                measure=measure,
            )
        self.stats: dict[str, float | int] = {}
        self.state = RunState()
        guest = self._guest
        self._host = HostSide(
            program,
            self.matching,
            options,
            self.state,
            attachment=attachment,
            in_guest=lambda: guest.globals_ if guest is not None else None,
        )
        self._reading = Reading(program, options, self._host, guest, self.state)
        self._next_switch_ns = 0

    def __enter__(self) -> Trace:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def status(self) -> int:
        """The exit status: what ``exit()`` was given, or 0."""
        return self.state.status

    @property
    def refused(self) -> tuple[RefusedProbe, ...]:
        """Probes, or exits of probes, that cannot be enabled; known once enabled."""
        return self._guest.refused if self._guest is not None else ()

    @property
    def code(self) -> tuple[int, bytes] | None:
        """Address and bytes of the machine code in the guest while tracing."""
        return self._guest.code if self._guest is not None else None

    def events(self, seconds: float | None = None) -> Iterator[Event]:
        """Run the program until ``exit()``, a signal, or ``seconds`` have passed; then restore and end.

        A consumer that stops reading early has the guest restored as well.
        """
        with self._interrupts:
            try:
                yield from self._start()
                yield from self._consume(seconds)
            except BaseException as error:
                self._disable_after(error)
                raise
            yield from self._end()

    def close(self) -> None:
        """Restore the guest if :meth:`events` was abandoned. Safe to call twice."""
        with self._interrupts:
            self._disable()

    def aggregations(self) -> list[model.Aggregation]:
        """All aggregations as they are now (or were at the end), merged over CPUs and sorted."""
        return self._reading.aggregations()

    def unprinted(self) -> list[model.Aggregation]:
        """Those that no ``printa()`` has shown, which dtrace prints at the end."""
        return self._reading.unprinted()

    # -- start -------------------------------------------------------------------------------------------------------

    def _start(self) -> Iterator[Event]:
        begin = time.monotonic()
        sites: dict[int, model.ProbeIdentity] = self._guest.find(self.matching) if self._guest is not None else {}
        named = self._host.name_sites(sites)
        probes = len(self.matching.ecbs) - len({r.probe.id for r in self.refused if not r.partial})
        lost = len(self.matching.ecbs) - probes
        yield model.Attached(what=self._what, probes=probes, refused=lost)
        self._reading.begin(named)
        self._host.fire("begin")
        if not self.state.exit_called:
            if self._reading.options.bufpolicy == "switch":
                yield from self._switch()
            if self._guest is not None:
                self._guest.enable(self._host.globals_.values, self._host.probes.state, self._host.speculations)
        self.stats |= {"probes": probes, "enable_s": time.monotonic() - begin}
        if self._guest is not None:
            self.stats |= self._guest.stats | {"first_data_s": _age_of_process()}
        if self._started is not None:
            self._started()
        self._host.start_timers()

    # -- while it runs -----------------------------------------------------------------------------------------------

    def _consume(self, seconds: float | None) -> Iterator[Event]:
        end = None if seconds is None else time.monotonic() + seconds
        guest = self._guest
        while not self._over(end):
            self._host.fire_due()
            if self.state.exit_called:
                return
            if self._reading.options.bufpolicy == "switch" and time.monotonic_ns() >= self._next_switch_ns:
                yield from self._switch()
            if guest is not None:
                guest.attachment.check_alive()
            timeout = self._patience(end)
            self.state.idle()
            if guest is not None and guest.live:
                yield from self._reading.of_guest(guest.poll(timeout))
            elif self._host.timed or end is not None or guest is not None or self._ended is not None:
                time.sleep(timeout)
            else:
                return  # with no guest and no timer nothing more can happen

    def _switch(self) -> Iterator[Event]:
        """Read the host's own probes, as often as ``switchrate`` says."""
        self._next_switch_ns = time.monotonic_ns() + (self._reading.options.switchrate_ns or 0)
        yield from self._reading.of_host()

    def _over(self, end: float | None) -> bool:
        if (
            self.state.over
            or self._interrupts.pending
            or (end is not None and time.monotonic() >= end)
            or (self._guest is not None and self._guest.too_costly())
        ):
            return True
        return self._ended is not None and self._ended()

    def _patience(self, end: float | None) -> float:
        """Seconds until something is due."""
        limits = [_LONGEST_WAIT]
        if self._reading.options.switchrate_ns:
            limits.append(self._reading.options.switchrate_ns / 1e9)
        due = self._host.due_in()
        if due is not None:
            limits.append(due)
        if end is not None:
            limits.append(end - time.monotonic())
        return max(min(limits), 0.0)

    # -- the end -----------------------------------------------------------------------------------------------------

    def _end(self) -> Iterator[Event]:
        """Restore; END; the last records; what could not be restored, what it all cost and took."""
        drained, problems = self._disable()
        waiting = self._host.probes.take()
        self._host.fire("end")  # before anything is read, as all probes; what it has to say comes last
        yield from self._reading.of_fired(waiting)
        if drained is not None:
            yield from self._reading.of_guest(drained)
        yield from self._reading.of_committed()
        yield from self._reading.of_host(last=True)
        yield from (model.Message(problem) for problem in problems)
        if self._guest is not None and (costs := self._guest.costs) is not None:
            if costs.limit is not None:
                self.state.fail()
            yield costs
        yield model.Stats(dict(self.stats))

    def _disable(self) -> tuple[Drained | None, list[str]]:
        """Restore the guest; what was still in its buffers (nothing after ``exit()``), and what went wrong."""
        if self._guest is None:
            return None, []
        drained, problems = self._guest.disable(self._host.globals_.store)
        self.stats |= self._guest.stats
        return (None if self.state.exit_called and not self.state.exited_in_guest else drained), problems

    def _disable_after(self, error: BaseException) -> None:
        """Restore the guest because of an error, which is the one to be told of; what else goes wrong is a note on it.

        A consumer that only stopped reading has made no error, so it is told of one here.
        """
        if isinstance(error, TargetLost) and self._guest is not None:
            self._guest.give_up(error)
        try:
            _, problems = self._disable()
        except ProbekitError as second:
            if isinstance(error, GeneratorExit):
                raise
            problems = [f"restoring the guest failed too: {second.message}"]
        for problem in problems:
            error.add_note(problem)


def _age_of_process() -> float:
    """Seconds since this process was started, by ticks since boot: the time of boot is only known to a second."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])  # proc(5): starttime
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
