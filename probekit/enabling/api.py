"""What a session asks of an engine, whichever it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from probekit.buffers.aggs import AggKey
from probekit.buffers.layout import RawRecord
from probekit.guest.linux import Allocation
from probekit.guest.safepoint import CallLog
from probekit.patch.edits import Edit

__all__ = ("Drained", "Engine", "EngineLog", "EngineOptions", "Globals", "Rows")

Rows = list[tuple[AggKey, Sequence[int]]]
"""Values of one aggregation: keys may come more than once, :func:`probekit.consumer.aggregate.merge` adds them up."""


class EngineLog(CallLog, Protocol):
    """Told of everything that is about to change in the guest, in time to be undone by another process."""

    def edits(self, edits: Sequence[Edit]) -> None: ...

    def reverted(self) -> None: ...

    def allocated(self, memory: Allocation) -> None: ...

    def freed(self, memory: Allocation) -> None: ...


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """``aggsize``: bytes for each keyed aggregation on each CPU; ``bufsize``: bytes of each CPU's ring.

    ``safepoint_s``: seconds to wait for a place where guest functions may be called.
    """

    aggsize: int = 1 << 20
    bufsize: int = 1 << 20
    safepoint_s: float = 20.0


@dataclass(frozen=True, slots=True)
class Drained:
    """What one visit found. ``records``: ``(cpu, record)`` in order for each CPU; counters are totals, by CPU."""

    records: tuple[tuple[int, RawRecord], ...]
    principal_drops: Mapping[int, int]
    recursion_drops: Mapping[int, int]
    aggregation_drops: Mapping[int, int]
    corrupt: int = 0


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
        """Guest memory in use."""
        ...

    def enable(self, initial: Mapping[int, int]) -> None:
        """Make every site live. All or nothing; raises :class:`probekit.errors.ProbekitError`.

        ``initial``: values of global variables that BEGIN has set, by index.
        """
        ...

    def poll(self, timeout: float) -> Drained:
        """Wait up to ``timeout`` seconds for something to read, and take it."""
        ...

    def aggregations(self) -> dict[int, Rows]:
        """Everything so far, by aggregation number."""
        ...

    def silence(self) -> None:
        """From now on clauses do nothing (``exit()``); sites stay as they are."""
        ...

    def disable(self) -> list[str]:
        """Restore every site and give memory back; safe to call twice. Returns what could not be done, in words."""
        ...
