"""Clauses evaluated on the host: those of BEGIN, END and tick-N, and with the stop engine all of them.

They see the same global variables as clauses in the guest, and their records
go through the same consumer. What differs is where arguments and built-ins
come from: :class:`HostWorld` is this process, the stop engine's is a stopped vCPU.
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
from probekit.interp.run import Value, run_clause
from probekit.interp.state import ProgramState
from probekit.ir.names import BUILTINS
from probekit.ir.ops import Clause, Program
from probekit.providers.api import Probe

if TYPE_CHECKING:
    from probekit.enabling.api import Globals

_MASK = (1 << 64) - 1

__all__ = ("Firing", "HostGlobals", "HostWorld", "World", "fire")


class World(Protocol):
    """Where a firing's arguments and its task's built-ins come from."""

    def arg(self, index: int) -> int: ...

    def fact(self, name: str) -> Value:
        """``cpu``, ``execname``, ``pid``, ``tid``, ``timestamp`` and the other built-ins of a task."""
        ...

    def progenyof(self, pid: int) -> bool:
        """Whether the task descends from process ``pid``."""
        ...

    def stack(self, frames: int) -> bytes:
        """At most so many return addresses of the kernel, 8 bytes each."""
        ...


class HostGlobals:
    """Global variables that live in this process: see :class:`probekit.enabling.api.Globals`."""

    def __init__(self) -> None:
        self.values: dict[int, int] = {}

    def load(self, var: int) -> int:
        """The value; 0 before the first store."""
        return self.values.get(var, 0)

    def store(self, var: int, value: int) -> None:
        """Set it."""
        self.values[var] = value


class HostWorld:
    """This process, for probes that belong to no guest task. ``args``: those of ERROR and of timed probes.

    ``percpu_offset``: of the guest's CPU that such a probe is said to fire on.
    """

    def __init__(self, args: Sequence[int] = (), percpu_offset: Callable[[], int] | None = None) -> None:
        self._args = args
        self._percpu_offset = percpu_offset

    def arg(self, index: int) -> int:
        """argN, 0 where there is none."""
        return self._args[index] if index < len(self._args) else 0

    def fact(self, name: str) -> Value:
        """This process's own facts; what only a guest's task has is 0 or empty."""
        ask = self._percpu_offset if name == "percpu_offset" else _FACTS.get(name)
        if ask is not None:
            return ask()
        info = BUILTINS.get(name)
        return b"" if info is not None and info.kind == "string" else 0

    def progenyof(self, pid: int) -> bool:
        """This process, or one that started it."""
        import psutil  # slow to import, and hardly ever needed

        ours = psutil.Process()
        return pid == ours.pid or any(parent.pid == pid for parent in ours.parents())

    def stack(self, frames: int) -> bytes:
        """This process is no kernel."""
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
    """One firing of one probe, for all its clauses: a :class:`probekit.interp.run.Context`.

    ``state``: what the program keeps from firing to firing; a new one when it keeps nothing.
    """

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
        self._probe = probe
        self._speculations = speculations
        self._program = program
        self._world = world
        self._globals = globals_
        self._aggregations = aggregations
        self.state = state if state is not None else ProgramState(program)
        self._locals: dict[int, Value] = {}
        self.clause = 0

    def arg(self, index: int) -> int:
        """The probe's argument."""
        return self._world.arg(index)

    def builtin(self, name: str) -> Value:
        """A built-in of the probe, or of the world."""
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
        """A global from wherever it lives, or this firing's own variable."""
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
            raise InternalError("only integers are kept with the globals")

    def aggregate(self, agg: int, key: AggKey, value: int | None, weight: int = 1) -> None:
        """Feed the host's own table."""
        self._aggregations.feed(agg, key, value, weight)

    def progenyof(self, pid: int) -> bool:
        """See :class:`World`."""
        return self._world.progenyof(pid)

    def stack(self, frames: int) -> bytes:
        """See :class:`World`."""
        return self._world.stack(frames)

    def speculation(self) -> int:
        """``speculation()``: 0 when there is none to be had."""
        return self._speculations.acquire() if self._speculations is not None else 0


def fire(clauses: Sequence[Clause], program: Program, firing: Firing, site: int, timestamp: int) -> list[RawRecord]:
    """Run the clauses of one firing in order; their records as code in a guest would have left them."""
    records: list[RawRecord] = []
    for clause in clauses:
        firing.clause = clause.index
        outcome = run_clause(clause, program, firing, firing.state)
        if outcome.fault is not None:
            fault = outcome.fault
            payload = FAULT_WORDS.pack((fault.value or 0) & _MASK, fault.action, 4 * fault.op)
            records.append(RawRecord(clause.index, timestamp, site, int(fault.kind), payload))
        elif outcome.record is not None:
            records.append(RawRecord(clause.index, timestamp, site, 0, outcome.record))
    firing.state.end_firing()
    return records
