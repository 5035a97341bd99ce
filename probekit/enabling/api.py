"""Define the protocol that both engines implement, their options, and their results."""

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
from probekit.guest.safepoint import CallLog
from probekit.guest.stack_search import SLEEPER_LIMIT
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
    "Salvaged",
)

MemoryFactory = Callable[[Allocation], DataMemory]
"""Returns the object that reads and writes an allocation of ours. Called while the guest is stopped."""


Rows = list[tuple[AggKey, Sequence[int]]]
"""Keys and values of one aggregation. A key may occur twice; see :func:`probekit.consumer.aggregations.merge`."""


class EngineLog(CallLog, Protocol):
    """Notes every change in the guest, so that another process can undo it."""

    def edits(self, edits: Sequence[Edit]) -> None:
        """Note edits, before the first byte of them is written."""
        ...

    def reverted(self) -> None:
        """Note that all edits are undone."""
        ...

    def allocated(self, memory: Allocation) -> None:
        """Note that guest memory was allocated."""
        ...

    def freed(self, memory: Allocation) -> None:
        """Note that guest memory was freed."""
        ...

    def table_written(self, addr: int) -> None:
        """Note that the recovery table is complete, with its header at ``addr``."""
        ...

    def table_wiped(self) -> None:
        """Note that the recovery table's header is about to be wiped."""
        ...

    def contents(self) -> bytes:
        """Return everything noted so far as bytes, from which another process can undo it."""
        ...

    @property
    def borrowed(self) -> bool:
        """Whether a guest task was borrowed for a call and not given back."""
        ...

    def registered(self, items: Sequence[Registration]) -> None:
        """Note registrations, before the kernel makes them."""
        ...

    def unregistered(self, items: Sequence[Registration]) -> None:
        """Note that the kernel took registrations back."""
        ...


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
    quiet_s: float = SLEEPER_LIMIT
    """Seconds to wait until no task runs or sleeps inside our code. If one stays longer, the memory is not freed."""
    measure: bool = False
    """Whether clauses measure their own time."""
    staged: frozenset[int] = frozenset()
    """Addresses of the sites that are patched in stages while the guest runs. The others are patched in one pause."""


@dataclass(frozen=True, slots=True)
class Drained:
    """The result of one reading. All counters but ``corrupt`` are totals since the enabling began."""

    records: tuple[tuple[int, RawRecord], ...]
    """``(cpu, record)``, in order for each CPU."""
    principal_drops: Mapping[int, int]
    """Records that found no room, by CPU."""
    recursion_drops: Mapping[int, int]
    """Firings that were skipped because the CPU was inside a clause already, by CPU."""
    aggregation_drops: Mapping[int, int]
    """Keys that found no room in an aggregation, by CPU."""
    corrupt: int = 0
    """Rings and tables that were malformed in this reading."""
    dynamic_drops: int = 0
    """Variables of threads, and elements, that found no room."""
    busy_drops: int = 0
    """Accesses to elements that failed because another CPU held the lock too long."""
    watchdog_timeouts: int = 0
    """How often the guest's watchdog had silenced the clauses, because it received no heartbeat."""
    unavailable: int = 0
    """How often no speculation was free."""
    busy_speculations: int = 0
    """How often no speculation was free, but some had ended and only waited for a reading of the rings."""
    filled: bool = False
    """Whether a ring whose policy is ``fill`` is full."""
    fill: float = 0.0
    """The part of the fullest ring that was in use, from 0 to 1."""
    unseen: int = 0
    """Stop engine: changes of watched memory that no stop reported."""
    undecoded: int = 0
    """Stop engine: accesses to watched memory of which only the range is known."""
    lost_steps: int = 0
    """Stop engine: single steps whose trap was lost."""
    complete_until: int | None = None
    """Time stamp until which no record is missing that a later reading will find; None when none is missing."""


@dataclass(frozen=True, slots=True)
class ClauseCosts:
    """What a program's clauses have cost the guest so far."""

    clauses: tuple[Cost, ...]
    """The cost of each clause that has fired."""
    entries: int
    """How often a thunk was called."""
    entries_ns: float
    """Nanoseconds spent on calling thunks and returning from them, without the clauses themselves."""

    @property
    def total_ns(self) -> float:
        """Nanoseconds of guest CPU time that the program has taken so far."""
        return self.entries_ns + sum(cost.ns for cost in self.clauses)


class Globals(Protocol):
    """Reads and writes a program's global variables, in the guest or on the host."""

    def load(self, var: int) -> int:
        """Return the 64-bit value of a variable. ``var``: its index in the program."""
        ...

    def store(self, var: int, value: int) -> None:
        """Set a variable to a 64-bit value. ``var``: its index in the program."""
        ...


@dataclass(frozen=True, slots=True)
class Salvaged:
    """What was left of the data of a guest that is gone."""

    drained: Drained | None
    """The last records; None where they cannot be told from those that were read before."""
    age: float | None
    """How many seconds ago the aggregations and variables were read; None where nothing is left of them."""


class Engine(Protocol):
    """Runs a program's guest clauses. Each call leaves the guest running or stopped, as it was."""

    @property
    def globals_(self) -> Globals:
        """The program's global variables."""
        ...

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

        ``initial``: values of integer globals that BEGIN has set, by index. ``state``, ``speculations``: the variables
        and speculations of the host's own probes; from now on guest and host share them.
        """
        ...

    def poll(self, timeout: float) -> Drained:
        """Wait up to ``timeout`` seconds for records, and return them."""
        ...

    def send_heartbeat(self) -> None:
        """Send the guest's watchdog a heartbeat, if one is due, between two polls that are far apart."""
        ...

    def aggregations(self) -> dict[int, Rows]:
        """Return all values that were aggregated so far, by aggregation number."""
        ...

    def costs(self) -> ClauseCosts | None:
        """Return what the clauses have cost so far; None where that is not measured."""
        ...

    def silence(self) -> None:
        """Make clauses do nothing from now on (``exit()``); sites stay as they are."""
        ...

    def keep_copy(self) -> None:
        """Keep a copy of what was counted, in case the guest dies. Called when the guest was just seen to run."""
        ...

    def salvage(self, *, intact: bool) -> Salvaged:
        """Take what can still be read, instead of :meth:`disable`, of a guest that is gone.

        ``intact``: whether its memory is still what it was when it ended.
        """
        ...

    def is_in_place(self) -> bool:
        """Return whether the guest's memory still holds what enabling put there. The guest is stopped.

        It does not after a snapshot from before was loaded.
        """
        ...

    def disable(self) -> list[str]:
        """Restore every site and free our memory; safe to call twice.

        Returns a message for each failure.
        """
        ...
