"""What a program costs the guest, from the words that its clauses count their own time in.

    clause 1   12,000 firings, 750 of them timed: 64 us   ->   12,000 firings, 1.02 ms
    leading to clauses and back   12,000 times 31 ns      ->   0.37 ms

Time is the time stamp counter's, so what the hypervisor takes away in the middle of a clause is in it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Protocol

from probekit.buffers.layout import CostWords
from probekit.codegen.costs import FIRINGS_TIMED
from probekit.consumer.events import Cost
from probekit.records import record

__all__ = ("CostMeter", "LeadTimes", "MeasuredCosts", "add_costs", "inline_clauses")


@record
class LeadTimes:
    """Nanoseconds that lead to a clause and back: by a call, and of an increment in its place."""

    thunk: float
    inline: float

    @classmethod
    def of_ticks(cls, thunk: int, inline: int, tsc_khz: int) -> LeadTimes:
        """From the ticks of ``FIRINGS_TIMED`` of each."""
        each = 1e6 / tsc_khz / FIRINGS_TIMED
        return cls(thunk * each, inline * each)


@record
class MeasuredCosts:
    """``clauses``: each that has fired; ``entries``, ``entries_ns``: how often clauses were called, and what that takes
    beside them."""

    clauses: tuple[Cost, ...]
    entries: int
    entries_ns: float

    @property
    def total_ns(self) -> float:
        """All that the program has added so far."""
        return self.entries_ns + sum(cost.ns for cost in self.clauses)


def inline_clauses(inline: Sequence[tuple[int, ...] | None], clauses: Sequence[tuple[int, ...]]) -> dict[int, int]:
    """The aggregation in which a clause counts inline somewhere. Both arguments: by site."""
    return {
        number: agg
        for aggs, numbers in set(zip(inline, clauses, strict=True))
        if aggs is not None
        for number, agg in zip(numbers, aggs, strict=True)
    }


def add_costs(
    words: CostWords, blocks: Sequence[bytes], counted: Mapping[int, int], leads: LeadTimes, tsc_khz: int
) -> MeasuredCosts:
    """``blocks``: each CPU's words, ``counted``: by clause, what its inline aggregation holds altogether.

    The guest is untrusted: sums may be anything, but they are sums of what is there.
    """
    columns = [struct.unpack(f"<{words.size // 8}Q", data) for data in blocks]

    def total(offset: int) -> int:
        return sum(column[(offset - words.offset) // 8] for column in columns)

    found: list[Cost] = []
    for clause in range(words.clauses):
        firings, samples = total(words.firings(clause)), total(words.samples(clause))
        ns = total(words.ticks(clause)) / samples * firings * 1e6 / tsc_khz if samples else 0.0
        inline = max(counted.get(clause, 0) - firings, 0)  # those in a thunk have counted in it as well
        if firings or inline:
            found.append(Cost(clause, firings + inline, ns + inline * leads.inline))
    entries = total(words.entries)
    return MeasuredCosts(tuple(found), entries, entries * leads.thunk)


class CostSource(Protocol):
    """Where the words are: :class:`probekit.enabling.guest_engine.data_memory.ProgramData`."""

    def cost_words(self) -> list[bytes]: ...

    def counted(self, agg: int) -> int: ...


@record
class CostMeter:
    """What is needed to tell costs from their words. ``inline``: see :func:`inline_clauses`."""

    words: CostWords
    inline: Mapping[int, int]
    leads: LeadTimes
    tsc_khz: int

    def read(self, counts: CostSource) -> MeasuredCosts:
        """The costs as they are now."""
        counted = {clause: counts.counted(agg) for clause, agg in self.inline.items()}
        return add_costs(self.words, counts.cost_words(), counted, self.leads, self.tsc_khz)
