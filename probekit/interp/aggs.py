"""Keep the aggregations that the host updates, in the same words as a CPU's table in the guest.

    @a[execname] = avg(arg0)   with 4, then 8 under "sh"   ->   {("sh",): (12, 2)}

Nothing but these words is kept, so tables of the guest and of the host merge by ``AggPlan.merge`` alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from probekit.buffers.aggs import AggKey, AggPlan, datum

__all__ = ("Aggregations",)

Words = tuple[int, ...]


@dataclass(slots=True)
class Aggregations:
    """One table for each aggregation of a program."""

    plans: Sequence[AggPlan]
    """The program's aggregations."""
    limit: int | None = None
    """The most keys that a table takes; None: as many as come."""
    drops: int = 0
    """How many data found no room for their keys."""
    _tables: list[dict[AggKey, Words]] = field(init=False)

    def __post_init__(self) -> None:
        self._tables = [{} for _ in self.plans]

    def update(self, agg: int, key: AggKey, value: int | None, weight: int = 1) -> None:
        """Add a datum to the value of a key.

        ``value``: None for ``count()``; ``weight``: the increment of a histogram's bucket. A key
        without room is a drop.
        """
        plan, table = self.plans[agg], self._tables[agg]
        before = table.get(key)
        if before is None:
            if self.limit is not None and len(table) >= self.limit:
                self.drops += 1
                return
            before = plan.initial
        table[key] = plan.merge(before, datum(plan, value, weight))

    def table(self, agg: int) -> Mapping[AggKey, Words]:
        """Return the table of one aggregation: the words of each key's value."""
        return self._tables[agg]

    def clear(self) -> None:
        """Forget every key and the drops."""
        self._tables = [{} for _ in self.plans]
        self.drops = 0
