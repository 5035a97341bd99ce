"""The consumer's own copy of every aggregation, which ``clear() trunc() normalize() printa()`` act on.

As in DTrace these happen when the record that asks for them is *read*: what
clauses have aggregated since the last snapshot is added first, all of it.

    store.add(0, {("sh",): (3,)}); store.normalize(0, 3); store.view(0).rows  ->  (Row(("sh",), 3, normal=3),)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from probekit.buffers.aggs import AggKey, AggPlan
from probekit.consumer.aggregate import SortOrder, Table, finish, join, kept, merge
from probekit.consumer.events import Aggregation
from probekit.consumer.events import Table as TableItem
from probekit.consumer.symbols import Symbols

__all__ = ("AggregationStore",)

Words = Sequence[int]


class AggregationStore:
    """Tables by aggregation number. ``order``: how rows are sorted; may be set at any time."""

    def __init__(
        self, plans: Sequence[AggPlan], *, order: SortOrder | None = None, symbols: Symbols | None = None
    ) -> None:
        self.plans = tuple(plans)
        self.order = order or SortOrder()
        self._symbols = symbols or Symbols()
        self._tables: list[dict[AggKey, Words]] = [{} for _ in plans]
        self._normals: list[dict[AggKey, int]] = [{} for _ in plans]
        self._read: list[dict[AggKey, Words]] = [{} for _ in plans]
        self._printed: set[int] = set()

    def add(self, agg: int, table: Table) -> None:
        """New data, to be added to what is there."""
        plan = self.plans[agg]
        self._tables[agg] = merge(plan, [self._tables[agg], table])

    def add_total(self, agg: int, rows: Iterable[tuple[AggKey, Words]]) -> None:
        """The whole of a source whose values only grow: what is new in it since the last call is added."""
        plan, before = self.plans[agg], self._read[agg]
        now = merge(plan, [rows])
        self._read[agg] = now
        fresh = {key: words for key, words in now.items() if key not in before}
        grown = {key: plan.since(words, before[key]) for key, words in now.items() if before.get(key, words) != words}
        self.add(agg, fresh | grown)

    def clear(self, agg: int) -> None:
        """``clear()``: every value as before its first datum; keys and normalization stay."""
        plan = self.plans[agg]
        # A min() or max() that has seen nothing has no value to show but 0.
        zero = (0,) * plan.words if plan.func in ("min", "max") else plan.initial
        self._tables[agg] = dict.fromkeys(self._tables[agg], zero)

    def trunc(self, agg: int, keep: int | None) -> None:
        """``trunc()``: leave the ``keep`` greatest, for a negative number the smallest, or nothing."""
        table = self._tables[agg]
        left = kept(self.plans[agg], table, keep) if keep is not None else set()
        self._tables[agg] = {key: words for key, words in table.items() if key in left}
        self._normals[agg] = {key: n for key, n in self._normals[agg].items() if key in left}

    def normalize(self, agg: int, normal: int) -> None:
        """``normalize()``: of the keys that there are now."""
        self._normals[agg] = dict.fromkeys(self._tables[agg], normal)

    def denormalize(self, agg: int) -> None:
        """``denormalize()``."""
        self._normals[agg] = {}

    def view(self, agg: int) -> Aggregation:
        """An aggregation as it is now."""
        return finish(
            self.plans[agg],
            self._tables[agg],
            order=self.order,
            normals=self._normals[agg],
            symbols=self._symbols,
        )

    def printed(self, aggs: Sequence[int]) -> TableItem:
        """Aggregations joined by key for ``printa()``; those with rows are not shown again at the end."""
        views = [self.view(agg) for agg in aggs]
        self._printed |= {agg for agg, view in zip(aggs, views, strict=True) if view.rows}
        return TableItem(
            keys=views[0].keys if views else (),
            rows=tuple(join(views, self.order)),
            names=tuple(view.name for view in views),
            funcs=tuple(view.func for view in views),
        )

    def all(self) -> list[Aggregation]:
        """Every aggregation."""
        return [self.view(plan.index) for plan in self.plans]

    def left(self) -> list[Aggregation]:
        """Those that no ``printa()`` has shown, for the end."""
        return [self.view(plan.index) for plan in self.plans if plan.index not in self._printed]

    def tables(self) -> Sequence[Mapping[AggKey, Words]]:
        """The raw words, for tests and engines that compare."""
        return self._tables
