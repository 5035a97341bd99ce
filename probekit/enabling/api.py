"""What a session asks of an engine, whichever it is."""

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
from probekit.interp.state import State
from probekit.patch.edits import Edit
from probekit.patch.journal_state import Registration

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
"""Makes the way to our data memory; called with the guest stopped."""


Rows = list[tuple[AggKey, Sequence[int]]]
"""Values of one aggregation: keys may come more than once, :func:`probekit.consumer.aggregate.merge` adds them up."""


class EngineLog(CallLog, Protocol):
    """Told of everything that is about to change in the guest, in time to be undone by another process."""

    def edits(self, edits: Sequence[Edit]) -> None: ...

    def reverted(self) -> None: ...

    def allocated(self, memory: Allocation) -> None: ...

    def freed(self, memory: Allocation) -> None: ...

    def table(self, *, stands: bool) -> None:
        """The recovery table is written whole, or is about to be wiped."""
        ...

    def contents(self) -> bytes:
        """Everything that was told so far, as the bytes that another process can undo it from."""
        ...

    def registered(self, items: Sequence[Registration]) -> None: ...

    def unregistered(self, items: Sequence[Registration]) -> None: ...


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """``aggsize``: bytes for each keyed aggregation on each CPU; ``bufsize``: bytes of each CPU's ring.

    ``dynvarsize``: bytes for the variables of threads, and for elements; ``scratchsize``: for one clause.
    ``nspec``: speculations; ``switchrate_s``: seconds from one reading of the rings to the next, None as they fill.
    ``safepoint_s``: seconds to wait for a place where guest functions may be called.
    ``measure``: clauses take their own time.
    ``staged``: addresses of the sites that are patched while the guest runs, in stages; the others are in one pause.
    ``quiet_s``: seconds to wait until nobody is inside our code, or sleeps there; its memory stays behind after that.
    """

    aggsize: int = 1 << 20
    bufsize: int = 1 << 20
    dynvarsize: int = 1 << 20
    scratchsize: int = 1 << 16
    nspec: int = 1
    bufpolicy: Policy = "switch"
    switchrate_s: float | None = None
    safepoint_s: float = 20.0
    quiet_s: float = LIMIT
    measure: bool = False
    staged: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Drained:
    """What one visit found. ``records``: ``(cpu, record)`` in order for each CPU; counters are totals, by CPU.

    ``silenced``: how often the guest's watchdog had silenced the clauses, as nobody looked after them.
    ``dynamic_drops``: variables that found no room; ``busy_drops``: elements that another CPU held too long.
    ``unavailable``, ``busy_speculations``: how often there was no speculation, or only some that were being seen to.
    ``filled``: a ring is full whose policy is ``fill``; ``fill``: what part of the fullest was in use.
    Of the stop engine, totals as well: ``unseen`` changes of watched memory, ``undecoded`` accesses of which only the
    range is known, ``lost_steps`` single steps whose trap was lost.
    """

    records: tuple[tuple[int, RawRecord], ...]
    principal_drops: Mapping[int, int]
    recursion_drops: Mapping[int, int]
    aggregation_drops: Mapping[int, int]
    corrupt: int = 0
    dynamic_drops: int = 0
    busy_drops: int = 0
    silenced: int = 0
    unavailable: int = 0
    busy_speculations: int = 0
    filled: bool = False
    fill: float = 0.0
    unseen: int = 0
    undecoded: int = 0
    lost_steps: int = 0


@dataclass(frozen=True, slots=True)
class ClauseCosts:
    """What a program's clauses have cost the guest so far."""

    clauses: tuple[Cost, ...]
    """Each clause that has fired."""

    entries: int
    """How often a list of clauses was called."""

    entries_ns: float
    """Nanoseconds that leading to clauses and back took, beside the clauses themselves."""

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

    def enable(self, initial: Mapping[int, int], state: State, speculations: Speculations) -> None:
        """Make every site live. All or nothing; raises :class:`probekit.errors.ProbekitError`.

        ``initial``: values of integer globals that BEGIN has set, by index. ``state``: what the host's own probes
        keep; from here on both see the same variables, and the same ``speculations``.
        """
        ...

    def poll(self, timeout: float) -> Drained:
        """Wait up to ``timeout`` seconds for something to read, and take it."""
        ...

    def beat(self) -> None:
        """Give the guest's watchdog a sign of life, between two polls that are far apart."""
        ...

    def aggregations(self) -> dict[int, Rows]:
        """Return everything so far, by aggregation number."""
        ...

    def costs(self) -> ClauseCosts | None:
        """Return what the clauses have cost so far; None where that is not measured."""
        ...

    def silence(self) -> None:
        """From now on clauses do nothing (``exit()``); sites stay as they are."""
        ...

    def disable(self) -> list[str]:
        """Restore every site and give memory back; safe to call twice. Returns what could not be done, in words."""
        ...
