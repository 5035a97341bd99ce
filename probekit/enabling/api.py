"""The protocol that both engines implement, their options, and what they return when drained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from probekit.buffers.aggs import AggKey
from probekit.buffers.layout import Policy, RawRecord
from probekit.consumer.events import Cost
from probekit.enabling.speculation import Speculations
from probekit.guest.linux import Allocation
from probekit.guest.memory import DataMemory
from probekit.guest.residents import LIMIT
from probekit.guest.safepoint import CallLog
from probekit.interp.state import ProgramState
from probekit.patch.edits import Edit
from probekit.patch.journal_payloads import Registration

__all__ = (
    "ClauseCosts",
    "Drained",
    "Engine",
    "EngineLog",
    "EngineOptions",
    "Globals",
    "MemoryFactory",
    "Rows",
)

MemoryFactory = Callable[[Allocation], DataMemory]
"""Returns the way to an allocation of ours; called with the guest stopped."""


Rows = list[tuple[AggKey, Sequence[int]]]
"""Values of one aggregation. A key may occur twice; :func:`probekit.consumer.aggregations.merge` adds them up."""


class EngineLog(CallLog, Protocol):
    """Receives everything that is about to change in the guest, so that another process can undo it."""

    def edits(self, edits: Sequence[Edit]) -> None: ...

    def reverted(self) -> None: ...

    def allocated(self, memory: Allocation) -> None: ...

    def freed(self, memory: Allocation) -> None: ...

    def table_written(self, addr: int) -> None:
        """Note that the recovery table is written whole, and its header stands at ``addr``."""
        ...

    def table_wiped(self) -> None:
        """Note that the recovery table's header is about to be wiped."""
        ...

    def contents(self) -> bytes:
        """Return everything received so far, as the bytes that another process can undo it from."""
        ...

    @property
    def borrowed(self) -> bool:
        """Whether a guest task was borrowed for a call and not given back."""
        ...

    def registered(self, items: Sequence[Registration]) -> None: ...

    def unregistered(self, items: Sequence[Registration]) -> None: ...


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """The options of an enabling."""

    aggsize: int = 1 << 20
    """Bytes for each keyed aggregation on each CPU."""
    bufsize: int = 1 << 20
    """Bytes of each CPU's ring."""
    dynvarsize: int = 1 << 20
    """Bytes for the variables of threads and the elements of associative arrays."""
    scratchsize: int = 1 << 16
    """Bytes of scratch memory for one clause."""
    nspec: int = 1
    """How many speculations there are."""
    bufpolicy: Policy = "switch"
    switchrate_s: float | None = None
    """Seconds from one reading of the rings to the next; None to read them as they fill."""
    safepoint_s: float = 20.0
    """Seconds to wait for a place where guest functions may be called."""
    quiet_s: float = LIMIT
    """Seconds to wait until no task runs or sleeps inside our code. After that its memory is left behind."""
    measure: bool = False
    """Whether clauses measure their own time."""
    staged: frozenset[int] = frozenset()
    """Addresses of the sites that are patched in stages while the guest runs. The others are patched in one pause."""


@dataclass(frozen=True, slots=True)
class Drained:
    """What one reading found. All counters are totals since the enabling began, but for ``corrupt``."""

    records: tuple[tuple[int, RawRecord], ...]
    """``(cpu, record)``, in order for each CPU."""
    principal_drops: Mapping[int, int]
    """Records that found no room, by CPU."""
    recursion_drops: Mapping[int, int]
    """Firings that were skipped because the CPU was inside a clause already, by CPU."""
    aggregation_drops: Mapping[int, int]
    """Keys that found no room in an aggregation, by CPU."""
    corrupt: int = 0
    """Rings and tables that made no sense in this reading."""
    dynamic_drops: int = 0
    """Variables of threads, and elements, that found no room."""
    busy_drops: int = 0
    """Elements that another CPU held too long."""
    watchdog_timeouts: int = 0
    """How often the guest's watchdog had silenced the clauses, because it received no heartbeat."""
    unavailable: int = 0
    """How often no speculation was free."""
    busy_speculations: int = 0
    """How often no speculation was free, but some had ended and only waited for a reading of the rings."""
    filled: bool = False
    """Whether a ring whose policy is ``fill`` is full."""
    fill: float = 0.0
    """What part of the fullest ring was in use, from 0 to 1."""
    unseen: int = 0
    """Stop engine: changes of watched memory that no stop reported."""
    undecoded: int = 0
    """Stop engine: accesses to watched memory of which only the range is known."""
    lost_steps: int = 0
    """Stop engine: single steps whose trap was lost."""


@dataclass(frozen=True, slots=True)
class ClauseCosts:
    """What a program's clauses have cost the guest so far."""

    clauses: tuple[Cost, ...]
    """The cost of each clause that has fired."""
    entries: int
    """How often a thunk was called."""
    entries_ns: float
    """Nanoseconds for the way to thunks and back, besides the clauses themselves."""

    @property
    def total_ns(self) -> float:
        """Nanoseconds that the program has added so far."""
        return self.entries_ns + sum(cost.ns for cost in self.clauses)


class Globals(Protocol):
    """A program's global variables, wherever they live now. ``var``: index in the program; values are 64-bit."""

    def load(self, var: int) -> int: ...

    def store(self, var: int, value: int) -> None: ...


class Engine(Protocol):
    """Runs a program's guest clauses. The guest may run or be stopped before and after each call, and stays so."""

    @property
    def globals_(self) -> Globals: ...

    @property
    def guest_bytes(self) -> int:
        """Guest memory in use, in bytes."""
        ...

    @property
    def code(self) -> tuple[int, bytes] | None:
        """Address and bytes of the machine code in the guest; None where clauses are evaluated on the host."""
        ...

    @property
    def stats(self) -> Mapping[str, float | int]:
        """Figures of this engine alone, by name, for the statistics at the end."""
        ...

    def enable(self, initial: Mapping[int, int], state: ProgramState, speculations: Speculations) -> None:
        """Make every site live. All or nothing; raises :class:`probekit.errors.ProbekitError`.

        ``initial``: values of integer globals that BEGIN has set, by index. ``state``: what the host's own probes
        keep; from here on both see the same variables, and the same ``speculations``.
        """
        ...

    def poll(self, timeout: float) -> Drained:
        """Wait up to ``timeout`` seconds for something to read, and take it."""
        ...

    def send_heartbeat(self) -> None:
        """Send the guest's watchdog a heartbeat, if one is due, between two polls that are far apart."""
        ...

    def aggregations(self) -> dict[int, Rows]:
        """Return everything so far, by aggregation number."""
        ...

    def costs(self) -> ClauseCosts | None:
        """Return what the clauses have cost so far; None where that is not measured."""
        ...

    def silence(self) -> None:
        """Make clauses do nothing from now on (``exit()``); sites stay as they are."""
        ...

    def is_in_place(self) -> bool:
        """Return whether the guest's memory still holds what enabling put there. The guest is stopped.

        It does not after a snapshot from before was loaded.
        """
        ...

    def disable(self) -> list[str]:
        """Restore every site and give memory back; safe to call twice.

        Returns a message for everything that could not be done.
        """
        ...
