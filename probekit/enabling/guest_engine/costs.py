"""Compute the CPU time that a program takes in the guest, from the words in which its clauses count their own time.

    clause 1              12,000 firings, 750 of them timed: 64 us   ->   12,000 firings, 1.02 ms
    calls and returns     12,000 times 31 ns                         ->   0.37 ms

Time is read from the time stamp counter, so it includes time in which the hypervisor has interrupted a clause.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Protocol

from probekit.buffers.layout import CostWords
from probekit.codegen.costs import FIRINGS_TIMED
from probekit.consumer.events import Cost
from probekit.enabling.api import ClauseCosts
from probekit.records import record

__all__ = ("CostMeter", "LeadTimes", "add_costs", "inline_clauses")


@record
class LeadTimes:
    """Nanoseconds of one firing in addition to its clauses."""

    thunk: float
    """Nanoseconds of the call of a thunk and its return."""
    inline: float
    """Nanoseconds of an inline increment."""

    @classmethod
    def of_ticks(cls, thunk: int, inline: int, tsc_khz: int) -> LeadTimes:
        """Compute the times from ticks. ``thunk``, ``inline``: ticks that ``FIRINGS_TIMED`` of each have taken."""
        each = 1e6 / tsc_khz / FIRINGS_TIMED
        return cls(thunk * each, inline * each)


def inline_clauses(inline: Sequence[tuple[int, ...] | None], clauses: Sequence[tuple[int, ...]]) -> dict[int, int]:
    """Return the aggregation of each clause that counts inline somewhere. Both arguments have an item for each site."""
    return {
        number: agg
        for aggs, numbers in set(zip(inline, clauses, strict=True))
        if aggs is not None
        for number, agg in zip(numbers, aggs, strict=True)
    }


def add_costs(
    words: CostWords, blocks: Sequence[bytes], counted: Mapping[int, int], leads: LeadTimes, tsc_khz: int
) -> ClauseCosts:
    """Add up the words of all CPUs.

    ``blocks``: the bytes of each CPU's words; ``counted``: the sum of the inline aggregation of each clause that has
    one. The guest is untrusted: words may hold any value, but a wrong sum is the worst result.
    """
    columns = [struct.unpack(f"<{words.size // 8}Q", data) for data in blocks]

    def total(offset: int) -> int:
        return sum(column[(offset - words.offset) // 8] for column in columns)

    found: list[Cost] = []
    for clause in range(words.clauses):
        firings, samples = total(words.firings(clause)), total(words.samples(clause))
        ns = total(words.ticks(clause)) / samples * firings * 1e6 / tsc_khz if samples else 0.0
        inline = max(counted.get(clause, 0) - firings, 0)  # ``counted`` includes firings in a thunk
        if firings or inline:
            found.append(Cost(clause, firings + inline, ns + inline * leads.inline))
    entries = total(words.entries)
    return ClauseCosts(tuple(found), entries, entries * leads.thunk)


class CostSource(Protocol):
    """Reads the cost words of all CPUs: :class:`probekit.enabling.guest_engine.data_memory.ProgramData`."""

    def cost_words(self) -> list[bytes]:
        """Return the bytes of each CPU's :class:`probekit.buffers.layout.CostWords`."""
        ...

    def counted(self, agg: int) -> int:
        """Return the sum of a ``count()`` over all CPUs."""
        ...


@record
class CostMeter:
    """Computes the costs of one enabling."""

    words: CostWords
    inline: Mapping[int, int]
    """The aggregation of each clause that counts inline somewhere: see :func:`inline_clauses`."""
    leads: LeadTimes
    tsc_khz: int
    """Ticks of the time stamp counter per millisecond."""

    def read(self, source: CostSource) -> ClauseCosts:
        """Return the costs as they are now."""
        counted = {clause: source.counted(agg) for clause, agg in self.inline.items()}
        return add_costs(self.words, source.cost_words(), counted, self.leads, self.tsc_khz)
