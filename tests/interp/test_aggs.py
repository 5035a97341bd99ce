"""Aggregations that the host feeds."""

from __future__ import annotations

from probekit.buffers.aggs import AggPlan, KeyPart
from probekit.interp.aggs import Aggregations

_AVERAGE = AggPlan(0, "a", "avg", (KeyPart("string", 16),))
_STEPS = AggPlan(1, "b", "lquantize", (), (0, 2, 1))


def test_data_of_one_key_are_merged() -> None:
    aggs = Aggregations((_AVERAGE,))
    aggs.update(0, ("sh",), 4)
    aggs.update(0, ("sh",), 8)
    aggs.update(0, ("ls",), 1)
    assert aggs.table(0) == {("sh",): (12, 2), ("ls",): (1, 1)}


def test_the_weight_of_a_datum_is_what_its_bucket_grows_by() -> None:
    aggs = Aggregations((_AVERAGE, _STEPS))
    aggs.update(1, (), 1, weight=5)
    assert aggs.table(1) == {(): (0, 0, 5, 0)}
    assert aggs.table(0) == {}


def test_a_key_that_finds_no_room_is_a_drop_and_known_keys_go_on() -> None:
    aggs = Aggregations((_AVERAGE,), limit=1)
    for key in ("sh", "ls", "sh", "ls"):
        aggs.update(0, (key,), 1)
    assert aggs.table(0) == {("sh",): (2, 2)}
    assert aggs.drops == 2


def test_clearing_forgets_keys_and_drops() -> None:
    aggs = Aggregations((_AVERAGE,), limit=0)
    aggs.update(0, ("sh",), 1)
    aggs.clear()
    assert (dict(aggs.table(0)), aggs.drops) == ({}, 0)
