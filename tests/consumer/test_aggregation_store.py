"""The consumer's aggregations, and printa() of them."""

from __future__ import annotations

from typing import Any

import pytest

from probekit.buffers.aggs import AggPlan, KeyPart, datum
from probekit.buffers.formats import parse_format
from probekit.consumer.aggregation_store import AggregationStore
from probekit.consumer.events import Row
from probekit.consumer.text.printa import render_rows
from probekit.consumer.text.printf import FormatContext

KEY = (KeyPart("string", size=16),)


def store_of(*funcs: Any) -> AggregationStore:
    return AggregationStore([AggPlan(i, f"a{i}", func, KEY) for i, func in enumerate(funcs)])


def rows(store: AggregationStore, agg: int = 0) -> list[Any]:
    return [(row.key[0], row.value) for row in store.view(agg).rows]


def test_snapshots_add_up() -> None:
    store = store_of("sum")
    store.add(0, {(b"a",): (1,)})
    store.add(0, {(b"a",): (2,), (b"b",): (9,)})
    assert rows(store) == [("a", 3), ("b", 9)]


def test_clear_keeps_keys_and_later_data_starts_anew() -> None:
    store = store_of("sum", "min")
    store.add(0, {(b"a",): (5,)})
    store.clear(0)
    assert rows(store) == [("a", 0)]
    store.add(0, {(b"a",): (2,)})
    assert rows(store) == [("a", 2)]


@pytest.mark.parametrize(("func", "none", "later"), [("min", (1 << 63) - 1, 9), ("max", -(1 << 63), -9)])
def test_after_clear_a_minimum_or_maximum_is_that_of_later_data(func: str, none: int, later: int) -> None:
    store = store_of(func)
    store.add(0, {(b"a",): (5,)})
    store.clear(0)
    assert rows(store) == [("a", none)]
    store.add(0, {(b"a",): (later,)})
    assert rows(store) == [("a", later)]


def test_trunc_and_its_negative() -> None:
    store = store_of("count")
    table = {(bytes([97 + i]),): (i,) for i in range(5)}
    store.add(0, table)
    store.trunc(0, -3)
    assert rows(store) == [("a", 0), ("b", 1), ("c", 2)]
    store.trunc(0, 1)
    assert rows(store) == [("c", 2)]
    store.trunc(0, None)
    assert rows(store) == []


def test_normalize_holds_for_the_keys_there_are() -> None:
    store = store_of("sum")
    store.add(0, {(b"a",): (10,)})
    store.normalize(0, 5)
    store.add(0, {(b"b",): (10,)})
    assert store.view(0).rows == (Row(("a",), 10, 5), Row(("b",), 10, 1))
    store.denormalize(0)
    assert {row.normal for row in store.view(0).rows} == {1}


def test_a_growing_source_adds_what_is_new() -> None:
    store = store_of("sum")
    store.add_total(0, [((b"a",), (5,)), ((b"z",), (1,))])
    store.trunc(0, None)
    store.add_total(0, [((b"a",), (7,)), ((b"z",), (1,))])
    assert rows(store) == [("a", 2)]


def test_what_was_printed_is_not_left() -> None:
    store = store_of("sum", "sum")
    store.add(0, {(b"a",): (5,)})
    store.printed([0])
    store.printed([1])  # nothing in it yet
    store.add(1, {(b"b",): (1,)})
    assert [a.name for a in store.unprinted()] == ["a1"]


def test_a_formatted_printa() -> None:
    store = store_of("sum", "avg")
    store.add(0, {(b"a",): (5,), (b"b",): (7,)})
    store.add(1, {(b"a",): datum(store.plans[1], 8)})
    text = render_rows(parse_format("%-3s|%@d|%@3d\n"), store.printed([0, 1]), FormatContext()).text
    assert text == "a  |5|  8\nb  |7|  0\n"
    store.normalize(0, 5)
    assert render_rows(parse_format("%@d,"), store.printed([0]), FormatContext()).text == "1,1,"


def test_a_formatted_quantize_is_a_histogram() -> None:
    store = AggregationStore([AggPlan(0, "", "lquantize", (), (0, 2, 1))])
    store.add(0, {(): (0, 1, 0, 0)})
    text = render_rows(parse_format("x%@d"), store.printed([0]), FormatContext()).text
    assert text.startswith("x\n           value  ---")
    assert text.count("\n") == 5
