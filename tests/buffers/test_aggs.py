"""Bucket arithmetic and aggregating functions."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probekit.buffers.aggs import AGG_FUNCS, AggPlan, KeyPart, as_signed
from probekit.buffers.quantize import BUCKETS, ZERO_BUCKET, bucket_of, bucket_value

INT64 = st.integers(-(1 << 63), (1 << 63) - 1)


@pytest.mark.parametrize(
    ("value", "label"),
    [(0, 0), (1, 1), (2, 2), (3, 2), (4, 4), (-1, -1), (-2, -2), (-3, -2), (-4, -4), ((1 << 63) - 1, 1 << 62)],
)
def test_labels(value: int, label: int) -> None:
    assert bucket_value(bucket_of(value)) == label


def test_the_ends() -> None:
    assert bucket_of(-(1 << 63)) == 0
    assert bucket_of((1 << 63) - 1) == BUCKETS - 1
    assert bucket_of(0) == ZERO_BUCKET
    assert [bucket_value(i) for i in (0, BUCKETS - 1)] == [-(1 << 62), 1 << 62]


@given(st.integers(0, BUCKETS - 1))
def test_a_label_lies_in_its_own_bucket(index: int) -> None:
    assert bucket_of(bucket_value(index)) == index


@given(INT64)
def test_a_bucket_holds_what_lies_between_its_label_and_the_next(value: int) -> None:
    index = bucket_of(value)
    assert abs(bucket_value(index)) <= abs(value)
    if 0 < index < BUCKETS - 1:
        assert abs(value) < 2 * max(abs(bucket_value(index)), 1)


@given(INT64, INT64)
def test_buckets_keep_the_order(a: int, b: int) -> None:
    assert (a <= b) <= (bucket_of(a) <= bucket_of(b))


@given(st.integers())
def test_as_signed_wraps(word: int) -> None:
    assert -(1 << 63) <= as_signed(word) < 1 << 63
    assert (as_signed(word) - word) % (1 << 64) == 0


@pytest.mark.parametrize("func", list(AGG_FUNCS.values()), ids=list(AGG_FUNCS))
@given(data=st.data())
def test_merging_starts_neutral_commutes_and_associates(func: Any, data: Any) -> None:
    rows = st.lists(INT64, min_size=func.words, max_size=func.words).map(tuple)
    a, b, c = (data.draw(rows) for _ in range(3))
    assert len(func.initial) == func.words
    assert func.merge(func.initial, a) == a
    assert func.merge(a, b) == func.merge(b, a)
    assert func.merge(func.merge(a, b), c) == func.merge(a, func.merge(b, c))


def test_key_words() -> None:
    plan = AggPlan(0, "a", "count", (KeyPart("string", size=17), KeyPart("int"), KeyPart("probe")))
    assert plan.key_words == 3 + 1 + 1
    assert not plan.constant_keyed
    assert AggPlan(0, "a", "count", (KeyPart("probe"),)).constant_keyed
    assert AggPlan(0, "a", "count", ()).constant_keyed
