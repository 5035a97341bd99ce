"""The consumer's own copy of every aggregation, which ``clear() trunc() normalize() printa()`` act on.

As in DTrace these happen when the record that asks for them is *read*: everything that clauses have aggregated since
the last snapshot is added first.

    store.add(0, {("sh",): (3,)}); store.normalize(0, 3); store.view(0).rows  ->  (Row(("sh",), 3, normal=3),)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from probekit.buffers.aggs import AggKey, AggPlan
from probekit.consumer.aggregations import AggTable, SortOrder, Words, finish, join, keys_to_keep, merge
from probekit.consumer.events import Aggregation, Table
from probekit.consumer.symbols import Symbols

__all__ = ("AggregationStore",)


class AggregationStore:
    """The aggregations of one program, by number."""

    def __init__(
        self, plans: Sequence[AggPlan], *, order: SortOrder | None = None, symbols: Symbols | None = None
    ) -> None:
        self.plans = tuple(plans)
        self.order = order or SortOrder()
        """How rows are sorted; may be set at any time."""
        self._symbols = symbols or Symbols()
        self._tables: list[dict[AggKey, Words]] = [{} for _ in plans]
        self._normals: list[dict[AggKey, int]] = [{} for _ in plans]
        self._read: list[dict[AggKey, Words]] = [{} for _ in plans]
        self._printed: set[int] = set()

    def add(self, agg: int, table: AggTable) -> None:
        """Add new data to what is there."""
        plan = self.plans[agg]
        self._tables[agg] = merge(plan, [self._tables[agg], table])

    def add_total(self, agg: int, rows: Iterable[tuple[AggKey, Words]]) -> None:
        """Add what is new, since the last call, in a source whose values only grow. ``rows``: all of that source."""
        plan, before = self.plans[agg], self._read[agg]
        now = merge(plan, [rows])
        self._read[agg] = now
        fresh = {key: words for key, words in now.items() if key not in before}
        grown = {key: plan.since(words, before[key]) for key, words in now.items() if before.get(key, words) != words}
        self.add(agg, fresh | grown)

    def clear(self, agg: int) -> None:
        """Set every value to what it was before its first datum; keys and normalization stay. ``clear()``."""
        plan = self.plans[agg]
        # A min() or max() that has seen nothing has no value to show but 0.
        zero = (0,) * plan.words if plan.func in ("min", "max") else plan.initial
        self._tables[agg] = dict.fromkeys(self._tables[agg], zero)

    def trunc(self, agg: int, keep: int | None) -> None:
        """Leave the ``keep`` greatest values, for a negative number the smallest; for None nothing. ``trunc()``."""
        table = self._tables[agg]
        left = keys_to_keep(self.plans[agg], table, keep) if keep is not None else set()
        self._tables[agg] = {key: words for key, words in table.items() if key in left}
        self._normals[agg] = {key: n for key, n in self._normals[agg].items() if key in left}

    def normalize(self, agg: int, normal: int) -> None:
        """Divide the values of all present keys when they are shown. ``normalize()``."""
        self._normals[agg] = dict.fromkeys(self._tables[agg], normal)

    def denormalize(self, agg: int) -> None:
        """Show values as they are again. ``denormalize()``."""
        self._normals[agg] = {}

    def view(self, agg: int) -> Aggregation:
        """Return an aggregation as it is now."""
        return finish(
            self.plans[agg],
            self._tables[agg],
            order=self.order,
            normals=self._normals[agg],
            symbols=self._symbols,
        )

    def printed(self, aggs: Sequence[int]) -> Table:
        """Join aggregations by key for ``printa()``. Those with rows are not shown again at the end."""
        views = [self.view(agg) for agg in aggs]
        self._printed |= {agg for agg, view in zip(aggs, views, strict=True) if view.rows}
        return Table(
            keys=views[0].keys if views else (),
            rows=tuple(join(views, self.order)),
            names=tuple(view.name for view in views),
            funcs=tuple(view.func for view in views),
        )

    def all(self) -> list[Aggregation]:
        """Return every aggregation."""
        return [self.view(plan.index) for plan in self.plans]

    def unprinted(self) -> list[Aggregation]:
        """Return the aggregations that no ``printa()`` has shown: they are shown at the end."""
        return [self.view(plan.index) for plan in self.plans if plan.index not in self._printed]
