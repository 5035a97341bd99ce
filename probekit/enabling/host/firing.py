"""Run the clauses of one firing on the host: BEGIN, END and tick-N, and with the stop engine all probes.

They use the same global variables as clauses in the guest, and their records go
through the same consumer. Arguments and built-ins come from a :class:`World`: from
this process (:class:`HostWorld`), or from a stopped vCPU (:mod:`.vcpu`).
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from probekit.buffers.aggs import AggKey
from probekit.buffers.layout import FAULT_WORDS, RawRecord
from probekit.enabling.speculation import Speculations
from probekit.errors import InternalError
from probekit.interp.aggs import Aggregations
from probekit.interp.run import EvalFault, Value, run_clause
from probekit.interp.state import ProgramState
from probekit.ir.names import BUILTINS
from probekit.ir.ops import Clause, Program
from probekit.providers.api import Probe

if TYPE_CHECKING:
    from probekit.enabling.api import Globals

_MASK = (1 << 64) - 1

__all__ = ("Firing", "HostGlobals", "HostWorld", "World", "fault_record", "fire")


class World(Protocol):
    """Supplies a firing's arguments, and the built-in variables about its task."""

    def arg(self, index: int) -> int:
        """Return argN of the probe."""
        ...

    def fact(self, name: str) -> Value:
        """Return ``cpu``, ``execname``, ``pid``, ``tid``, ``timestamp`` or another built-in of the task."""
        ...

    def progenyof(self, pid: int) -> bool:
        """Return whether the task descends from process ``pid``."""
        ...

    def stack(self, frames: int) -> bytes:
        """Return at most ``frames`` return addresses of the kernel, 8 bytes each."""
        ...


class HostGlobals:
    """Keeps global variables in this process: a :class:`probekit.enabling.api.Globals`."""

    def __init__(self) -> None:
        self.values: dict[int, int] = {}

    def load(self, var: int) -> int:
        """Return a variable's value, 0 before the first store."""
        return self.values.get(var, 0)

    def store(self, var: int, value: int) -> None:
        """Set a variable."""
        self.values[var] = value


class HostWorld:
    """Uses this process as a :class:`World`, for probes that belong to no guest task."""

    def __init__(self, args: Sequence[int] = (), percpu_offset: Callable[[], int] | None = None) -> None:
        """Use ``args`` as the arguments; only ERROR and timed probes have any.

        ``percpu_offset``: returns the per-CPU base of the guest's CPU that such a probe is reported on.
        """
        self._args = args
        self._percpu_offset = percpu_offset

    def arg(self, index: int) -> int:
        """Return argN, 0 where there is none."""
        return self._args[index] if index < len(self._args) else 0

    def fact(self, name: str) -> Value:
        """Return a built-in variable of this process; 0 or an empty string for one that only a guest's task has."""
        find = self._percpu_offset if name == "percpu_offset" else _FACTS.get(name)
        if find is not None:
            return find()
        info = BUILTINS.get(name)
        return b"" if info is not None and info.kind == "string" else 0

    def progenyof(self, pid: int) -> bool:
        """Return whether ``pid`` is this process, or one that started it."""
        import psutil  # slow to import, and seldom needed

        ours = psutil.Process()
        return pid == ours.pid or any(parent.pid == pid for parent in ours.parents())

    def stack(self, frames: int) -> bytes:
        """Return an empty stack, because this process is not in a kernel function."""
        return b""


_FACTS: dict[str, Callable[[], Value]] = {
    "cwd": lambda: os.fsencode(Path.cwd()),
    "execargs": lambda: " ".join(sys.argv).encode("utf-8", "surrogateescape"),
    "execname": lambda: b"probekit",
    "gid": os.getgid,
    "pid": os.getpid,
    "ppid": os.getppid,
    "root": lambda: b"/",
    "tid": threading.get_native_id,
    "timestamp": time.monotonic_ns,
    "uid": os.getuid,
    "vtimestamp": time.thread_time_ns,
    "walltimestamp": time.time_ns,
    "zonename": lambda: b"global",
}


class Firing:
    """Represents one firing of one probe, for all its clauses: a :class:`probekit.interp.run.EvalContext`."""

    def __init__(
        self,
        probe: Probe,
        program: Program,
        world: World,
        globals_: Globals,
        aggregations: Aggregations,
        speculations: Speculations | None = None,
        state: ProgramState | None = None,
    ) -> None:
        """Prepare a firing of ``probe`` in ``world``. ``state``: None to begin with an empty state."""
        self._probe = probe
        self._speculations = speculations
        self._program = program
        self._world = world
        self._globals = globals_
        self._aggregations = aggregations
        self.state = state if state is not None else ProgramState(program)
        """The variables and memory that the program keeps from firing to firing."""
        self._locals: dict[int, Value] = {}
        self.clause = 0
        """The number of the clause that runs."""

    def arg(self, index: int) -> int:
        """Return argN of the probe."""
        return self._world.arg(index)

    def builtin(self, name: str) -> Value:
        """Return a built-in variable, about the probe or from the world."""
        probe = self._probe.name
        own: dict[str, Value] = {
            "epid": self.clause + 1,
            "id": self._probe.id,
            "probefunc": probe.function.encode(),
            "probemod": probe.module.encode(),
            "probename": probe.name.encode(),
            "probeprov": probe.provider.encode(),
        }
        return own[name] if name in own else self._world.fact(name)

    def load(self, var: int) -> Value:
        """Return a global variable, or a clause-local variable of this firing."""
        if self._program.variables[var].scope == "local":
            return self._locals.get(var, 0)
        return self._globals.load(var)

    def store(self, var: int, value: Value) -> None:
        """Assign a variable."""
        if self._program.variables[var].scope == "local":
            self._locals[var] = value
        elif isinstance(value, int):
            self._globals.store(var, value)
        else:
            raise InternalError(f"a string is stored in variable {var} of integer globals")

    def aggregate(self, agg: int, key: AggKey, value: int | None, weight: int = 1) -> None:
        """Add a value to the host's own table."""
        self._aggregations.update(agg, key, value, weight)

    def progenyof(self, pid: int) -> bool:
        """Return whether the task descends from process ``pid``."""
        return self._world.progenyof(pid)

    def stack(self, frames: int) -> bytes:
        """Return at most ``frames`` return addresses of the kernel, 8 bytes each."""
        return self._world.stack(frames)

    def speculation(self) -> int:
        """Serve ``speculation()``. Returns 0 when none is free."""
        return self._speculations.acquire() if self._speculations is not None else 0


def fault_record(clause: Clause, fault: EvalFault, site: int, timestamp: int) -> RawRecord:
    """Return the record of a clause that was aborted, in the form that code in a guest writes."""
    payload = FAULT_WORDS.pack((fault.value or 0) & _MASK, fault.action, 4 * fault.op)
    return RawRecord(clause.index, timestamp, site, int(fault.kind), payload)


def fire(clauses: Sequence[Clause], program: Program, firing: Firing, site: int, timestamp: int) -> list[RawRecord]:
    """Run the clauses of one firing in order. Returns their records in the form that code in a guest writes."""
    records: list[RawRecord] = []
    for clause in clauses:
        firing.clause = clause.index
        outcome = run_clause(clause, program, firing, firing.state)
        if outcome.fault is not None:
            records.append(fault_record(clause, outcome.fault, site, timestamp))
        elif outcome.record is not None:
            records.append(RawRecord(clause.index, timestamp, site, 0, outcome.record))
    firing.state.end_firing()
    return records
