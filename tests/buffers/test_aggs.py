"""Bucket arithmetic and aggregating functions."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probekit.buffers.aggs import AGG_FUNCS, AggPlan, KeyPart, as_signed, datum
from probekit.buffers.quantize import BUCKETS, ZERO_BUCKET, Linear, LogLinear, bucket_of, bucket_value

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


PARAMS: dict[str, tuple[int, ...]] = {"lquantize": (-10, 100, 5), "llquantize": (10, 0, 3, 20)}
PLANS = [AggPlan(0, "a", func.name, (), PARAMS.get(func.name, ())) for func in AGG_FUNCS.values()]


@pytest.mark.parametrize("plan", PLANS, ids=list(AGG_FUNCS))
@given(data=st.data())
def test_merging_starts_neutral_commutes_and_associates(plan: AggPlan, data: Any) -> None:
    rows = st.lists(INT64, min_size=plan.words, max_size=plan.words).map(tuple)
    a, b, c = (data.draw(rows) for _ in range(3))
    assert plan.merge(plan.initial, a) == a
    assert plan.merge(a, b) == plan.merge(b, a)
    assert plan.merge(plan.merge(a, b), c) == plan.merge(a, plan.merge(b, c))


@pytest.mark.parametrize("plan", PLANS, ids=list(AGG_FUNCS))
@given(value=INT64)
def test_a_datum_is_a_value(plan: AggPlan, value: int) -> None:
    words = datum(plan, value)
    assert len(words) == plan.words
    assert all(-(1 << 63) <= word < 1 << 63 for word in words)


def test_squares_carry_into_the_second_word() -> None:
    plan = AggPlan(0, "a", "stddev", ())
    one = datum(plan, 1 << 40)
    assert one == (1, 1 << 40, 0, 1 << 16)
    assert plan.merge(datum(plan, (1 << 32) - 1), datum(plan, (1 << 32) - 1))[3] == 1


def test_linear_buckets() -> None:
    linear = Linear(-10, 30, 10)
    assert linear.labels == ("< -10", "-10", "0", "10", "20", ">= 30")
    assert [linear.bucket_of(v) for v in (-11, -10, -1, 0, 29, 30, 99)] == [0, 1, 1, 2, 4, 5, 5]


def test_log_linear_buckets() -> None:
    ten = LogLinear(10, 0, 1, 10)
    assert ten.labels[:3] == ("< 1", "1", "2")
    assert ten.labels[9:12] == ("9", "10", "20")
    assert ten.labels[-2:] == ("90", ">= 100")
    assert [ten.bucket_of(v) for v in (-5, 0, 1, 9, 10, 19, 20, 99, 100, 1 << 60)] == [
        0,
        0,
        1,
        9,
        10,
        10,
        11,
        18,
        19,
        19,
    ]
    two = LogLinear(2, 0, 2, 2)
    assert two.labels == ("< 1", "1", "2", "4", ">= 8")


def test_the_increment_is_what_a_bucket_grows_by() -> None:
    assert datum(AggPlan(0, "a", "lquantize", (), (0, 2, 1)), 1, -3) == (0, 0, -3, 0)


def test_key_words() -> None:
    plan = AggPlan(0, "a", "count", (KeyPart("string", size=17), KeyPart("int"), KeyPart("probe")))
    assert plan.key_words == 3 + 1 + 1
    assert not plan.constant_keyed
    assert AggPlan(0, "a", "count", (KeyPart("probe"),)).constant_keyed
    assert AggPlan(0, "a", "count", ()).constant_keyed
