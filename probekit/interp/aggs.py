"""Aggregations that the host feeds: the same words that a CPU's table in the guest holds.

    @a[execname] = avg(arg0)   fed 4, then 8 under "sh"   ->   {("sh",): (12, 2)}

Beside the words of a plan nothing else is kept, so tables of the guest and of the
host merge by ``AggPlan.merge`` alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from probekit.buffers.aggs import AggKey, AggPlan, datum

__all__ = ("Aggregations",)

Words = tuple[int, ...]


@dataclass(slots=True)
class Aggregations:
    """One table for each plan of a program. ``limit``: the most keys that a table takes; the rest are drops."""

    plans: Sequence[AggPlan]
    limit: int | None = None
    drops: int = 0
    _tables: list[dict[AggKey, Words]] = field(init=False)

    def __post_init__(self) -> None:
        self._tables = [{} for _ in self.plans]

    def feed(self, agg: int, key: AggKey, value: int | None, weight: int = 1) -> None:
        """One datum under one key; ``weight``: what a histogram's bucket grows by."""
        plan, table = self.plans[agg], self._tables[agg]
        before = table.get(key)
        if before is None:
            if self.limit is not None and len(table) >= self.limit:
                self.drops += 1
                return
            before = plan.initial
        table[key] = plan.merge(before, datum(plan, value, weight))

    def table(self, agg: int) -> Mapping[AggKey, Words]:
        """What one aggregation holds."""
        return self._tables[agg]

    def clear(self) -> None:
        """Forget every key and the drops."""
        self._tables = [{} for _ in self.plans]
        self.drops = 0
