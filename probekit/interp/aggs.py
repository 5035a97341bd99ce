"""Aggregations that the host feeds: the same words that a CPU's table in the guest holds.

    @a[execname] = avg(arg0)   fed 4, then 8 under "sh"   ->   {("sh",): (12, 2)}

Beside the words of a plan nothing else is kept, so tables of the guest and of the
host merge by ``AggFunc.merge`` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from probekit.buffers.aggs import AGG_FUNCS, AggFuncName, AggKey, AggPlan, as_signed
from probekit.buffers.quantize import bucket_of

__all__ = ("Aggregations", "datum")

Words = tuple[int, ...]


def _bucket(value: int) -> Words:
    words = [0] * AGG_FUNCS["quantize"].words
    words[bucket_of(value)] = 1
    return tuple(words)


_DATUM: dict[AggFuncName, Callable[[int], Words]] = {
    "count": lambda _value: (1,),
    "sum": lambda value: (value,),
    "avg": lambda value: (value, 1),
    "min": lambda value: (value,),
    "max": lambda value: (value,),
    "quantize": _bucket,
}


def datum(func: AggFuncName, value: int | None) -> Words:
    """The words of one datum alone: merging it into a table is what feeding means."""
    return _DATUM[func](as_signed(value or 0))


@dataclass(slots=True)
class Aggregations:
    """One table for each plan of a program. ``limit``: the most keys that a table takes; the rest are drops."""

    plans: Sequence[AggPlan]
    limit: int | None = None
    drops: int = 0
    _tables: list[dict[AggKey, Words]] = field(init=False)

    def __post_init__(self) -> None:
        self._tables = [{} for _ in self.plans]

    def feed(self, agg: int, key: AggKey, value: int | None) -> None:
        """One datum under one key."""
        func, table = AGG_FUNCS[self.plans[agg].func], self._tables[agg]
        before = table.get(key)
        if before is None:
            if self.limit is not None and len(table) >= self.limit:
                self.drops += 1
                return
            before = func.initial
        table[key] = func.merge(before, datum(func.name, value))

    def table(self, agg: int) -> Mapping[AggKey, Words]:
        """What one aggregation holds."""
        return self._tables[agg]

    def clear(self) -> None:
        """Forget every key and the drops."""
        self._tables = [{} for _ in self.plans]
        self.drops = 0
