"""Keeps the host's copy of every aggregation, which ``clear() trunc() normalize() printa()`` change or show.

As in DTrace, these actions are carried out when their record is *read*. Everything that clauses have aggregated since
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
    """Keeps the aggregations of one program, by number."""

    def __init__(
        self, plans: Sequence[AggPlan], *, order: SortOrder | None = None, symbols: Symbols | None = None
    ) -> None:
        self.plans = tuple(plans)
        self.order = order or SortOrder()
        """The order of rows. It may be changed at any time."""
        self._symbols = symbols or Symbols()
        self._tables: list[dict[AggKey, Words]] = [{} for _ in plans]
        self._normals: list[dict[AggKey, int]] = [{} for _ in plans]
        self._read: list[dict[AggKey, Words]] = [{} for _ in plans]
        self._printed: set[int] = set()

    def add(self, agg: int, table: AggTable) -> None:
        """Add new values to an aggregation."""
        plan = self.plans[agg]
        self._tables[agg] = merge(plan, [self._tables[agg], table])

    def add_total(self, agg: int, rows: Iterable[tuple[AggKey, Words]]) -> None:
        """Add the growth of a source since the last call. ``rows``: all values of the source, which only grow."""
        plan, before = self.plans[agg], self._read[agg]
        now = merge(plan, [rows])
        self._read[agg] = now
        fresh = {key: words for key, words in now.items() if key not in before}
        grown = {key: plan.since(words, before[key]) for key, words in now.items() if before.get(key, words) != words}
        self.add(agg, fresh | grown)

    def clear(self, agg: int) -> None:
        """Carry out ``clear()``: set every value to its initial one. Keys and normalization stay."""
        self._tables[agg] = dict.fromkeys(self._tables[agg], self.plans[agg].initial)

    def trunc(self, agg: int, keep: int | None) -> None:
        """Carry out ``trunc()``: keep the ``keep`` greatest values; if negative, the smallest; if None, none."""
        table = self._tables[agg]
        kept = keys_to_keep(self.plans[agg], table, keep) if keep is not None else set()
        self._tables[agg] = {key: words for key, words in table.items() if key in kept}
        self._normals[agg] = {key: n for key, n in self._normals[agg].items() if key in kept}

    def normalize(self, agg: int, normal: int) -> None:
        """Carry out ``normalize()``: divide the values of all present keys by ``normal`` in output."""
        self._normals[agg] = dict.fromkeys(self._tables[agg], normal)

    def denormalize(self, agg: int) -> None:
        """Carry out ``denormalize()``: show values undivided again."""
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
        """Join aggregations by key for ``printa()``. Aggregations with rows are not shown again at the end."""
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
        """Return the aggregations that no ``printa()`` has shown; these are shown at the end."""
        return [self.view(plan.index) for plan in self.plans if plan.index not in self._printed]
