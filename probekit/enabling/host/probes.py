"""The probes that the host fires itself, BEGIN, END, ERROR, tick-N and profile-N, with what a clause does at once.

What DTrace does where a probe fires happens here: ``exit()`` ends tracing,
speculative records wait, a fault fires ERROR, ``chill()`` and ``raise()`` act.
What it does when a record is read is :mod:`probekit.consumer.records`' affair.
"""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from probekit.buffers import actions as acts
from probekit.buffers.actions import Action, RecordPlan
from probekit.buffers.layout import FAULT_WORDS, RECORD_HEADER, RawRecord
from probekit.enabling.ecb import Ecb
from probekit.enabling.host.firing import Firing, HostWorld, World
from probekit.enabling.speculation import Speculations
from probekit.interp.aggs import Aggregations
from probekit.interp.run import Fault, run_clause
from probekit.interp.state import Limits, State
from probekit.ir.ops import Clause, Program
from probekit.records import record

if TYPE_CHECKING:
    from probekit.enabling.api import Globals
    from probekit.guest.peek import KernelPeek

__all__ = ("CPU", "ExitFlag", "GuestView", "HostProbes", "record_integer")

CPU = 0
"""The CPU that the host's own probes are said to fire on."""

_LONGEST_CHILL_NS = 500_000_000


@record
class GuestView:
    """What the host's probes see of a guest. ``percpu_offset``: of :data:`CPU`, asked when it is needed."""

    peek: KernelPeek
    percpu_offset: Callable[[], int]


class ExitFlag(Protocol):
    """Whether ``exit()`` was called in this run; its owner is the session."""

    @property
    def exit_called(self) -> bool: ...

    def call_exit(self) -> None:
        """Note that a clause has called ``exit()``."""


class HostProbes:
    """Fires host probes and keeps their records until they are read.

    ``site_of``: the site number of each host probe, by ID; ``globals_``: where globals live now;
    ``errors``: the ECBs of ERROR; ``bufsize``: how many bytes of records are kept between two readings, and
    ``bufpolicy`` what becomes of the rest: ``switch`` drops it and counts in ``drops``, ``fill`` ends tracing,
    ``ring`` forgets the oldest instead.
    ``limits``: of what the program keeps; ``dynamic_drops``: variables that found no room.
    ``state``: what the program keeps from firing to firing; ``guest``: whose kernel's memory the clauses may look at.
    ``run``: where ``exit()`` is noted; ``double_errors``: faults in ERROR itself.
    """

    def __init__(
        self,
        program: Program,
        *,
        run: ExitFlag,
        aggregations: Aggregations,
        globals_: Callable[[], Globals],
        site_of: Mapping[int, int],
        errors: Sequence[Ecb],
        speculations: Speculations,
        bufsize: int,
        bufpolicy: str = "switch",
        limits: Limits | None = None,
        guest: GuestView | None = None,
    ) -> None:
        self._program = program
        self._aggregations = aggregations
        self._globals = globals_
        self._site_of = site_of
        self._errors = errors
        self._speculations = speculations
        self._bufsize = bufsize
        self._bufpolicy = bufpolicy
        self._used = 0
        self.state = State(program, limits or Limits())
        self._guest = guest
        self.state.memory.outside = guest.peek.read if guest is not None else None
        self._records: deque[tuple[int, RawRecord]] = deque()
        self._run = run
        self.drops = 0
        self.double_errors = 0

    @property
    def dynamic_drops(self) -> int:
        """How many assignments found no room for a dynamic variable; only grows."""
        return self.state.drops

    def take(self) -> list[tuple[int, RawRecord]]:
        """The records so far, oldest first."""
        records = list(self._records)
        self._records.clear()
        self._used = 0
        return records

    def fire(
        self,
        ecb: Ecb,
        args: Sequence[int] = (),
        *,
        timestamp: int | None = None,
        world: World | None = None,
        cpu: int = CPU,
    ) -> None:
        """Run the clauses of one probe. After an ``exit()`` only those of END and ERROR run.

        ``world``: where ``args`` and the task are, when it is not this process; ``cpu``: on which it fires.
        """
        now = time.monotonic_ns() if timestamp is None else timestamp
        if self._guest is not None:
            self._guest.peek.invalidate()
        firing = Firing(
            ecb.probe,
            self._program,
            world or HostWorld(args, self._guest.percpu_offset if self._guest is not None else None),
            self._globals(),
            self._aggregations,
            self._speculations,
            self.state,
        )
        for number in ecb.clauses:
            if self._run.exit_called and ecb.probe.kind not in ("end", "error"):
                break
            clause = self._program.clauses[number]
            firing.clause = clause.index
            outcome = run_clause(clause, self._program, firing, self.state)
            if outcome.fault is not None:
                self._fault(ecb, clause, outcome.fault, now, cpu)
            elif outcome.record is not None and clause.record is not None:
                record = RawRecord(clause.index, now, self._site_of[ecb.probe.id], 0, outcome.record)
                self._record(clause.record, record, cpu)
        self.state.end_firing()

    def error(self, record: RawRecord) -> None:
        """Fire ERROR for a faulted record: arg1 is the EPID, then the action, the offset, the fault and its value.

        The payload is :data:`probekit.buffers.layout.FAULT_WORDS`, or less.
        """
        value, action, offset = FAULT_WORDS.unpack(record.payload[: FAULT_WORDS.size].ljust(FAULT_WORDS.size, b"\0"))
        for ecb in self._errors:
            args = (0, record.clause + 1, action, offset, record.fault, value)
            self.fire(ecb, args, timestamp=record.timestamp)

    def _fault(self, ecb: Ecb, clause: Clause, fault: Fault, now: int, cpu: int) -> None:
        if ecb.probe.kind == "error":
            self.double_errors += 1
            return
        payload = FAULT_WORDS.pack((fault.value or 0) & ((1 << 64) - 1), fault.action, 4 * fault.op)
        record = RawRecord(clause.index, now, self._site_of[ecb.probe.id], int(fault.kind), payload)
        self._records.append((cpu, record))
        self.error(record)

    def _record(self, plan: RecordPlan, record: RawRecord, cpu: int) -> None:
        for action in plan.actions:
            match action:
                case acts.Speculate(field=number):
                    self._speculations.hold(record_integer(plan, record, number), cpu, record)
                    return
                case acts.Commit(field=number):
                    for where, held in self._speculations.commit(record_integer(plan, record, number)):
                        self._keep(held, where)
                case acts.Discard(field=number):
                    self._speculations.discard(record_integer(plan, record, number))
                case acts.Exit():
                    self._run.call_exit()
                case acts.Chill() | acts.Raise() | acts.Stop():
                    _act(action, plan, record)
        if plan.shown:
            self._keep(record, cpu)

    def _keep(self, record: RawRecord, cpu: int) -> None:
        """Put a record into the buffer, or do what the policy says."""
        size = _size(record)
        if self._used + size > self._bufsize:
            match self._bufpolicy:
                case "ring":
                    while self._records and self._used + size > self._bufsize:
                        self._used -= _size(self._records.popleft()[1])
                case "fill":
                    self._run.call_exit()
                    return
                case _:
                    self.drops += 1
                    return
        self._used += size
        self._records.append((cpu, record))


def _size(record: RawRecord) -> int:
    return RECORD_HEADER.size + len(record.payload)


def record_integer(plan: RecordPlan, record: RawRecord, number: int) -> int:
    """The integer that a record holds as one of its fields."""
    field = plan.fields[number]
    data = record.payload[field.offset : field.offset + field.size]
    return int.from_bytes(data, "little", signed=field.kind == "int")


def _act(action: Action, plan: RecordPlan, record: RawRecord) -> None:
    """The process that fired the probe is this one."""
    match action:
        case acts.Chill(field=number):
            time.sleep(max(min(record_integer(plan, record, number), _LONGEST_CHILL_NS), 0) / 1e9)
        case acts.Raise(field=number):
            wanted = record_integer(plan, record, number)
            if wanted in set(signal.valid_signals()):
                os.kill(os.getpid(), wanted)
        case acts.Stop():
            os.kill(os.getpid(), signal.SIGSTOP)
