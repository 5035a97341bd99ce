"""Runs a program, with or without a guest: match, enable, drain, fire the host's own probes, restore.

    BEGIN -> sites go live -> records, ticks -> sites restored -> END -> last records -> aggregations

:meth:`Run.events` carries out the run and yields its events. The command line and the Python API both read them. The
guest is restored however the run ends: by ``exit()``, by a signal (:mod:`.signals`) or by an error.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from probekit.consumer import events as model
from probekit.consumer.events import Event
from probekit.enabling.ecb import Matching, match_program
from probekit.errors import Cancelled, GuestGone, ProbekitError, TargetLost
from probekit.ir.ops import Program
from probekit.providers.registry import Registry, make_registry
from probekit.session.checks import check_matches, check_records, check_refused
from probekit.session.event_stream import EventStream
from probekit.session.exclusive import ExclusiveSteps, TraceTurns
from probekit.session.host_tracing import HostTracing
from probekit.session.options import EngineName, Options
from probekit.session.restoring import Restoring
from probekit.session.run_limits import RunLimits
from probekit.session.run_state import RunState
from probekit.session.signals import Interrupts

if TYPE_CHECKING:
    from probekit.enabling.sites import RefusedProbe
    from probekit.session.attach import Attachment
    from probekit.session.guest_tracing import GuestTracing

__all__ = ("Run",)

_PAUSED = "the guest is paused; tracing goes on when it runs again"


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
        self._turns = TraceTurns(attachment.use if attachment is not None else None, self)
        self._reader: weakref.ref[ExclusiveSteps[Event]] | None = None
        self._started = started
        self._name = name
        self._program = program
        self._interrupts = interrupts or (attachment.interrupts if attachment is not None else Interrupts())
        self.state = RunState()
        """The state that the parts of the run share."""
        self._registry: Registry = attachment.registry if attachment is not None else make_registry(None)
        self.matching: Matching = match_program(program, self._registry)
        """The program's probes, each with the clauses enabled at it."""
        check_matches(self.matching, options)
        check_records(program, options)
        self._guest: GuestTracing | None = None
        if attachment is not None:
            self._guest = _guest_tracing(
                attachment, program, self.matching, options, engine, cancelled=self._cancelled, measure=measure
            )
        self.stats: dict[str, float | int] = {}
        """How long each step took, and other figures, by name: see :class:`probekit.consumer.events.Stats`."""
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
        turns = self._turns
        self._restoring = Restoring(
            guest, self.state, self.stats, keep=self._host.globals_.store, turn=turns.turn, over=turns.end
        )
        self._limits = RunLimits(self.state, self._interrupts, options, self._host, guest, ended)
        self._next_switch_ns = 0
        self.ended = False
        """Whether all events were read, so that :meth:`unprinted` has what is left to show."""
        self._paused = False

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _cancelled(self) -> bool:
        """Return whether to give up waiting for the guest: a signal has arrived, or output is lost."""
        return self._interrupts.wanted() or self.state.output_lost

    @property
    def status(self) -> int:
        """The exit status: the argument of ``exit()``, or 0."""
        return self.state.status

    @property
    def must_restore(self) -> bool:
        """Whether the guest is to be restored at once: a signal has arrived, and its sites are live."""
        return self._interrupts.pending != 0 and self._guest is not None and self._guest.live

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
        enabled, before the guest is changed, :class:`probekit.errors.InUseError` when another trace of this guest is
        live, or another reader reads this one, and other :class:`probekit.errors.ProbekitError`.
        """
        steps = ExclusiveSteps(self._events(seconds), self._turns.check)
        self._reader = weakref.ref(steps)
        return steps

    def _events(self, seconds: float | None) -> Generator[Event]:
        if self._turns.closed:
            return
        self._turns.begin()
        with self._interrupts:
            lost: GuestGone | TargetLost | None = None
            try:
                yield from self._start()
                try:
                    yield from self._consume(seconds)
                except (GuestGone, TargetLost):
                    raise
                except ProbekitError:
                    yield from self._stream.of_held()
                    raise
            except (GuestGone, TargetLost) as error:
                if self._guest is None or not self._guest.live:
                    raise
                # What was collected is shown before it is raised.
                lost = self._guest.attachment.life.why_lost(error) if isinstance(error, TargetLost) else error
            except BaseException as error:
                self._restoring.restore_after(error)
                raise
            yield from self._end(lost)

    def close(self) -> None:
        """Restore the guest if the reader of :meth:`events` stopped early, and end that reader. Safe to call twice."""
        self._turns.closed = True
        with self._interrupts:
            self._restoring.restore()
        reader = self._reader() if self._reader is not None else None
        if reader is not None:
            reader.close()

    def send_heartbeat(self) -> None:
        """Send the guest's watchdog a heartbeat, if one is due: for a reader that takes long between two events."""
        with self._turns.turn() as is_open:
            if is_open and self._guest is not None:
                self._guest.send_heartbeat()

    def aggregations(self) -> list[model.Aggregation]:
        """Return all aggregations as they are now, or as they were at the end, merged over CPUs and sorted."""
        with self._turns.turn():
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
        with self._turns.exclusive(), self._interrupts.interruptible():
            sites: dict[int, model.ProbeIdentity] = guest.find(self.matching) if guest is not None else {}
        allowed = check_refused(self._program, self._registry, self.refused, options)
        refused = len({r.probe.id for r in self.refused if not r.partial})
        probes = len(self.matching.ecbs) - refused
        first = _attached(self._name, probes, refused, allowed)
        self._stream.begin(self._host.name_sites(sites))
        with self._turns.turn():
            self._host.fire("begin")
        try:
            if guest is not None and not self.state.exit_called:
                with self._turns.turn() as is_open:
                    if not is_open:
                        return
                    guest.enable(self._host.globals_.values, self._host.probes.state, self._host.speculations)
        except Cancelled as error:
            # BEGIN has fired, so END fires too, and what both have recorded is shown.
            self.state.exited(self._interrupts.exit_code)
            yield from first
            yield from self._stream.of_host()
            yield from (model.Message(text) for text in (error.message, *getattr(error, "__notes__", ())))
            return
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
        guest, limits = self._guest, self._limits
        limits.begin(seconds)
        while not self._turns.closed and not limits.over():
            with self._turns.turn():
                self._host.fire_due()
            if self.state.exit_called:
                return
            if self._stream.options.bufpolicy == "switch" and time.monotonic_ns() >= self._next_switch_ns:
                yield from self._switch()
            if guest is not None:
                with self._turns.turn() as is_open:
                    if is_open and guest.attachment.life.check():
                        guest.keep_copy()
                yield from self._note_pause(guest.attachment)
            timeout = limits.seconds_to_wait()
            self.state.idle()
            if guest is not None and guest.live:
                with self._turns.turn() as is_open:
                    drained = guest.poll(timeout) if is_open else None
                if drained is not None:
                    yield from self._stream.of_guest(drained)
            elif guest is not None or limits.any:
                time.sleep(timeout)
            else:
                return  # with no guest and no timer nothing more can happen

    def _note_pause(self, attachment: Attachment) -> Iterator[Event]:
        """Say once that somebody has paused the guest, and once that it runs again."""
        paused = attachment.target.paused
        if paused != self._paused:
            self._paused = paused
            yield model.Message(_PAUSED if paused else "the guest runs again")

    def _switch(self) -> Iterator[Event]:
        """Read the records of the host's own probes, and set the time of the next reading."""
        self._next_switch_ns = time.monotonic_ns() + (self._stream.options.switchrate_ns or 0)
        yield from self._stream.of_host()

    # -- the end -----------------------------------------------------------------------------------------------------

    def _end(self, lost: GuestGone | TargetLost | None) -> Iterator[Event]:
        """Restore the guest, fire END, read the last records. Then report failures, costs and statistics.

        ``lost``: how the guest was lost, if it was. Raises that at the very end, or how it was lost now.
        """
        self._host.stop_timers()
        drained, problems = self._restoring.restore() if lost is None else self._restoring.salvage(lost)
        lost = lost or (self._guest.lost if self._guest is not None else None)
        waiting = self._host.probes.take()
        self._host.fire("end")  # probes fire before records are read; END's own record is read last
        if drained is None:
            yield from self._stream.of_held()
        yield from self._stream.of_fired(waiting)
        if drained is not None:
            yield from self._stream.of_guest(drained, last=True)
        yield from self._stream.of_committed()
        yield from self._stream.of_host(last=True)
        yield from (model.Message(problem) for problem in problems)
        if self._guest is not None and (costs := self._guest.costs) is not None:
            if costs.limit is not None:
                self.state.fail()
            yield costs
        yield model.Stats(dict(self.stats))
        self.ended = True
        if lost is not None:
            raise lost


def _guest_tracing(
    attachment: Attachment,
    program: Program,
    matching: Matching,
    options: Options,
    engine: EngineName,
    *,
    cancelled: Callable[[], bool],
    measure: bool,
) -> GuestTracing:
    """Return the guest's part of a run.

    Raises :class:`UnsupportedError` when the program uses something that its engine does not have.
    """
    from probekit.session.engine_support import refuse_for_guest
    from probekit.session.guest_tracing import GuestTracing

    if matching.of_kind("watch"):
        engine = "stop"  # the hypervisor watches the memory, and each access stops the guest
    refuse_for_guest(program, matching, engine)
    return GuestTracing(attachment, program, options, engine=engine, cancelled=cancelled, measure=measure)


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
