"""Runs a program, with or without a guest: match, enable, drain, fire the host's own probes, restore.

    BEGIN -> sites go live -> records, ticks -> sites restored -> END -> last records -> aggregations

:meth:`Run.events` carries out the run and yields its events. The command line and the Python API both read them. The
guest is restored however the run ends: by ``exit()``, by a signal (:mod:`.signals`) or by an error.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from probekit.consumer import events as model
from probekit.consumer.events import Event
from probekit.enabling.ecb import Matching, match_program
from probekit.errors import ProbekitError, TargetLost
from probekit.ir.ops import Program
from probekit.providers.registry import Registry, make_registry
from probekit.session.checks import check_matches, check_records, check_refused
from probekit.session.event_stream import EventStream
from probekit.session.host_tracing import HostTracing
from probekit.session.options import EngineName, Options
from probekit.session.run_state import RunState
from probekit.session.signals import Interrupts

if TYPE_CHECKING:
    from probekit.enabling.api import Drained
    from probekit.enabling.sites import RefusedProbe
    from probekit.session.attach import Attachment
    from probekit.session.guest_tracing import GuestTracing

__all__ = ("Run",)

_LONGEST_WAIT = 0.2  # seconds; a signal is noticed after at most this time


class Run:
    """Carries out one run of one program. A context manager; leaving it restores the guest."""

    def __init__(
        self,
        attachment: Attachment | None,
        program: Program,
        options: Options,
        *,
        engine: EngineName = "guest",
        name: str = "script",
        interrupts: Interrupts | None = None,
        started: Callable[[], None] | None = None,
        ended: Callable[[], bool] | None = None,
        measure: bool = False,
    ) -> None:
        """Match the program's probes. Nothing in the guest changes yet.

        ``attachment``: None for a program without a guest. ``name``: the program's name in messages. ``started``: is
        called once BEGIN has fired and sites are live. ``ended``: returns whether tracing must end (``-c``, ``-p``).
        ``measure``: clauses in the guest measure their own time, and
        :class:`~probekit.consumer.events.Costs` are among the last events.
        Raises :class:`probekit.errors.ProbekitError` for a program that cannot be run here.
        """
        self._started = started
        self._ended = ended
        self._name = name
        self._program = program
        self._interrupts = interrupts or (attachment.interrupts if attachment is not None else Interrupts())
        self._registry: Registry = attachment.registry if attachment is not None else make_registry(None)
        self.matching: Matching = match_program(program, self._registry)
        """The program's probes, each with the clauses enabled at it."""
        check_matches(self.matching, options)
        check_records(program, options)
        self._guest = self._of_guest(attachment, program, options, engine, measure=measure)
        self.stats: dict[str, float | int] = {}
        """How long each step took, and other figures, by name: see :class:`probekit.consumer.events.Stats`."""
        self.state = RunState()
        """The state that the parts of the run share."""
        guest = self._guest
        self._host = HostTracing(
            program,
            self.matching,
            options,
            self.state,
            attachment=attachment,
            in_guest=lambda: guest.globals_ if guest is not None else None,
        )
        self._stream = EventStream(program, options, self._host, guest, self.state)
        self._next_switch_ns = 0

    def _of_guest(
        self, attachment: Attachment | None, program: Program, options: Options, engine: EngineName, *, measure: bool
    ) -> GuestTracing | None:
        """Return the guest's part of the run; None without a guest.

        Raises :class:`UnsupportedError` when the program uses something that its engine does not have.
        """
        if attachment is None:
            return None
        if self.matching.of_kind("watch"):
            engine = "stop"  # the hypervisor watches the memory, and each access stops the guest
        from probekit.session.engine_support import refuse_for_guest
        from probekit.session.guest_tracing import GuestTracing

        refuse_for_guest(program, self.matching, engine)
        return GuestTracing(
            attachment,
            program,
            options,
            engine=engine,
            cancelled=lambda: self._interrupts.pending != 0,
            measure=measure,
        )

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def status(self) -> int:
        """The exit status: the argument of ``exit()``, or 0."""
        return self.state.status

    @property
    def refused(self) -> tuple[RefusedProbe, ...]:
        """Probes, or exits of probes, that cannot be enabled. Known once tracing has started."""
        return self._guest.refused if self._guest is not None else ()

    @property
    def code(self) -> tuple[int, bytes] | None:
        """Address and bytes of the machine code in the guest; None when no clause runs there now."""
        return self._guest.code if self._guest is not None else None

    def events(self, seconds: float | None = None) -> Iterator[Event]:
        """Run the program until ``exit()``, a signal, or until ``seconds`` have passed. Then restore the guest and end.

        When the first event comes, all probes are live. The guest is also restored when the reader stops early, and
        when an error ends the run. Raises :class:`probekit.session.checks.NoMatchError` for a probe that cannot be
        enabled, before the guest is changed, and other :class:`probekit.errors.ProbekitError`.
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
        """Restore the guest if the reader of :meth:`events` stopped early. Safe to call twice."""
        with self._interrupts:
            self._disable()

    def send_heartbeat(self) -> None:
        """Send the guest's watchdog a heartbeat, if one is due: for a reader that takes long between two events."""
        if self._guest is not None:
            self._guest.send_heartbeat()

    def aggregations(self) -> list[model.Aggregation]:
        """Return all aggregations as they are now, or as they were at the end, merged over CPUs and sorted."""
        return self._stream.aggregations()

    def unprinted(self) -> list[model.Aggregation]:
        """Return the aggregations that no ``printa()`` has shown, which dtrace prints at the end."""
        return self._stream.unprinted()

    # -- start -------------------------------------------------------------------------------------------------------

    def _start(self) -> Iterator[Event]:
        """Fire BEGIN and make the sites live. Every event comes after that, so that it tells that they are live.

        Where they cannot be enabled, BEGIN's records are shown all the same, before the error is raised.
        """
        begin = time.monotonic()
        guest, options = self._guest, self._stream.options
        sites: dict[int, model.ProbeIdentity] = guest.find(self.matching) if guest is not None else {}
        allowed = check_refused(self._program, self._registry, self.refused, options)
        refused = len({r.probe.id for r in self.refused if not r.partial})
        probes = len(self.matching.ecbs) - refused
        first = _attached(self._name, probes, refused, allowed)
        self._stream.begin(self._host.name_sites(sites))
        self._host.fire("begin")
        try:
            if guest is not None and not self.state.exit_called:
                guest.enable(self._host.globals_.values, self._host.probes.state, self._host.speculations)
        except Exception:
            yield from first
            yield from self._stream.of_host(last=True)
            raise
        self.stats |= {"probes": probes, "enable_s": time.monotonic() - begin}
        if guest is not None:
            self.stats |= guest.stats | {"first_data_s": _age_of_process()}
        yield from first
        if options.bufpolicy == "switch" and not self.state.exit_called:
            yield from self._switch()
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
            if self._stream.options.bufpolicy == "switch" and time.monotonic_ns() >= self._next_switch_ns:
                yield from self._switch()
            if guest is not None:
                guest.attachment.check_alive()
            timeout = _seconds_to_wait(self._stream.options, self._host.due_in(), end)
            self.state.idle()
            if guest is not None and guest.live:
                yield from self._stream.of_guest(guest.poll(timeout))
            elif self._host.timed or end is not None or guest is not None or self._ended is not None:
                time.sleep(timeout)
            else:
                return  # with no guest and no timer nothing more can happen

    def _switch(self) -> Iterator[Event]:
        """Read the records of the host's own probes, and set the time of the next reading."""
        self._next_switch_ns = time.monotonic_ns() + (self._stream.options.switchrate_ns or 0)
        yield from self._stream.of_host()

    def _over(self, end: float | None) -> bool:
        """Return whether tracing must end now. ``end``: when its time is over, on the monotonic clock; None for never.

        Tracing ends by ``exit()``, a signal, its time, the limit ``maxoverhead``, or the end of the process of ``-c``
        or ``-p``.
        """
        if (
            self.state.over
            or self._interrupts.pending
            or (end is not None and time.monotonic() >= end)
            or (self._guest is not None and self._guest.too_costly())
        ):
            return True
        return self._ended is not None and self._ended()

    # -- the end -----------------------------------------------------------------------------------------------------

    def _end(self) -> Iterator[Event]:
        """Restore the guest, fire END, read the last records. Then report failures, costs and statistics."""
        self._host.stop_timers()
        drained, problems = self._disable()
        waiting = self._host.probes.take()
        self._host.fire("end")  # probes fire before records are read; END's own record is read last
        yield from self._stream.of_fired(waiting)
        if drained is not None:
            yield from self._stream.of_guest(drained)
        yield from self._stream.of_committed()
        yield from self._stream.of_host(last=True)
        yield from (model.Message(problem) for problem in problems)
        if self._guest is not None and (costs := self._guest.costs) is not None:
            if costs.limit is not None:
                self.state.fail()
            yield costs
        yield model.Stats(dict(self.stats))

    def _disable(self) -> tuple[Drained | None, list[str]]:
        """Restore the guest. Returns its last records (None after ``exit()``), and a message for each failure."""
        if self._guest is None:
            return None, []
        drained, problems = self._guest.disable(self._host.globals_.store)
        self.stats |= self._guest.stats
        return (None if self.state.exit_called and not self.state.exited_in_guest else drained), problems

    def _disable_after(self, error: BaseException) -> None:
        """Restore the guest after an error. Each further failure becomes a note on that error.

        When ``error`` only means that the reader stopped early (GeneratorExit), an error of restoring is raised.
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


def _seconds_to_wait(options: Options, due: float | None, end: float | None) -> float:
    """Return how many seconds a run may wait: until the next reading, timed probe (``due``: in seconds) or end."""
    limits = [_LONGEST_WAIT]
    if options.switchrate_ns:
        limits.append(options.switchrate_ns / 1e9)
    if due is not None:
        limits.append(due)
    if end is not None:
        limits.append(end - time.monotonic())
    return max(min(limits), 0.0)


def _attached(name: str, probes: int, refused: int, allowed: str) -> tuple[Event, ...]:
    """Return the first events. ``allowed``: the message about descriptions of refused probes, which ``-Z`` allows."""
    attached = model.Attached(what=name, probes=probes, refused=refused)
    return (attached, model.Message(allowed)) if allowed else (attached,)


def _age_of_process() -> float:
    """Return the seconds since this process was started.

    Both times count from boot, because the time of boot itself is known only to a second.
    """
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])  # proc(5): starttime
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
