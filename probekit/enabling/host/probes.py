"""Fire the probes of the host: BEGIN, END, ERROR, tick-N and profile-N.

This module has the actions that DTrace carries out when a probe fires: ``exit()`` ends
tracing, speculative records wait, a fault fires ERROR, ``chill()`` and ``raise()`` act.
:mod:`probekit.consumer.record_events` has the actions for when a record is read.
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
from probekit.enabling.host.firing import Firing, HostWorld, World, fault_record
from probekit.enabling.speculation import Speculations
from probekit.interp.aggs import Aggregations
from probekit.interp.run import EvalFault, run_clause
from probekit.interp.state import ProgramState, StateLimits
from probekit.ir.ops import Clause, Program
from probekit.records import record

if TYPE_CHECKING:
    from probekit.enabling.api import Globals
    from probekit.guest.safe_loads import SafeLoads

__all__ = ("CPU", "ExitFlag", "GuestView", "HostProbes", "record_integer")

CPU = 0
"""Number of the CPU that probes of the host are reported on."""

_LONGEST_CHILL_NS = 500_000_000


@record
class GuestView:
    """The parts of a guest that clauses of the host's probes can read."""

    safe_loads: SafeLoads
    """Reads its kernel's memory."""
    percpu_offset: Callable[[], int]
    """Returns the per-CPU base of :data:`CPU`."""


class ExitFlag(Protocol):
    """Knows whether ``exit()`` was called in this run. The session owns it."""

    @property
    def exit_called(self) -> bool:
        """Whether a clause has called ``exit()``."""
        ...

    def call_exit(self) -> None:
        """Note that a clause has called ``exit()``."""


class HostProbes:
    """Fires host probes and keeps their records until they are read."""

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
        limits: StateLimits | None = None,
        guest: GuestView | None = None,
    ) -> None:
        """Prepare a program's host probes.

        ``run``: notes a call of ``exit()``. ``globals_``: returns the global variables, in the guest or on the host.
        ``site_of``: the site number of each host probe, by ID. ``errors``: the ECBs of ERROR.
        ``bufsize``: how many bytes of records are kept between two readings. ``bufpolicy``: what to do with a record
        that finds no room: ``switch`` drops and counts it, ``fill`` ends tracing, ``ring`` drops the oldest instead.
        ``limits``: limits of the program's variables and memory. ``guest``: the guest that clauses can read, if any.
        """
        self._program = program
        self._aggregations = aggregations
        self._globals = globals_
        self._site_of = site_of
        self._errors = errors
        self._speculations = speculations
        self._bufsize = bufsize
        self._bufpolicy = bufpolicy
        self._used = 0
        self.state = ProgramState(program, limits or StateLimits())
        """The variables and memory that the program keeps from firing to firing."""
        self._guest = guest
        self.state.memory.read_guest = guest.safe_loads.read if guest is not None else None
        self._records: deque[tuple[int, RawRecord]] = deque()
        self._run = run
        self.drops = 0
        """Records that found no room; only grows."""
        self.double_errors = 0
        """Faults in clauses of ERROR itself; only grows."""

    @property
    def dynamic_drops(self) -> int:
        """How many assignments found no room for a dynamic variable; only grows."""
        return self.state.drops

    def take(self) -> list[tuple[int, RawRecord]]:
        """Return the records so far, oldest first, and remove them from the buffer."""
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

        ``timestamp``: of the records, in nanoseconds; now by default. ``world``: supplies arguments and the task; this
        process by default. ``cpu``: the CPU that the probe fires on.
        """
        now = time.monotonic_ns() if timestamp is None else timestamp
        if self._guest is not None:
            self._guest.safe_loads.invalidate()
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
        """Fire ERROR for the record of a clause that was aborted.

        arg1 is the EPID, then the action, the offset, the fault and its value. The record's payload is
        :data:`probekit.buffers.layout.FAULT_WORDS`, or shorter.
        """
        value, action, offset = FAULT_WORDS.unpack(record.payload[: FAULT_WORDS.size].ljust(FAULT_WORDS.size, b"\0"))
        for ecb in self._errors:
            args = (0, record.clause + 1, action, offset, record.fault, value)
            self.fire(ecb, args, timestamp=record.timestamp)

    def _fault(self, ecb: Ecb, clause: Clause, fault: EvalFault, now: int, cpu: int) -> None:
        if ecb.probe.kind == "error":
            self.double_errors += 1
            return
        record = fault_record(clause, fault, self._site_of[ecb.probe.id], now)
        self._records.append((cpu, record))
        self.error(record)

    def _record(self, plan: RecordPlan, record: RawRecord, cpu: int) -> None:
        for action in plan.actions:
            match action:
                case acts.Speculate(field=number):
                    self._speculations.speculate(record_integer(plan, record, number), cpu, record)
                    return
                case acts.Commit(field=number):
                    for its_cpu, committed in self._speculations.commit(record_integer(plan, record, number)):
                        self._keep(committed, its_cpu)
                case acts.Discard(field=number):
                    self._speculations.discard(record_integer(plan, record, number))
                case acts.Exit():
                    self._run.call_exit()
                case acts.Chill() | acts.Raise() | acts.Stop():
                    _act(action, plan, record)
        if plan.shown:
            self._keep(record, cpu)

    def _keep(self, record: RawRecord, cpu: int) -> None:
        """Put a record into the buffer. When there is no room, follow the buffer policy."""
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


def record_integer(plan: RecordPlan, record: RawRecord, number: int, *, signed: bool = False) -> int:
    """Return the integer in one of a record's fields. ``signed``: whatever its type says."""
    field = plan.fields[number]
    data = record.payload[field.offset : field.offset + field.size]
    return int.from_bytes(data, "little", signed=signed or field.kind == "int")


def _act(action: Action, plan: RecordPlan, record: RawRecord) -> None:
    """Do a destructive action to this process, which has fired the probe."""
    match action:
        case acts.Chill(field=number):
            time.sleep(max(min(record_integer(plan, record, number), _LONGEST_CHILL_NS), 0) / 1e9)
        case acts.Raise(field=number):
            wanted = record_integer(plan, record, number)
            if wanted in set(signal.valid_signals()):
                os.kill(os.getpid(), wanted)
        case acts.Stop():
            os.kill(os.getpid(), signal.SIGSTOP)
