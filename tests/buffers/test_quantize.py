"""Bucket arithmetic of the three histogram functions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probekit.buffers.quantize import BUCKETS, ZERO_BUCKET, Linear, LogLinear, bucket_of, bucket_value

INT64 = st.integers(-(1 << 63), (1 << 63) - 1)


@pytest.mark.parametrize(
    ("value", "label"),
    [(0, 0), (1, 1), (2, 2), (3, 2), (4, 4), (-1, -1), (-2, -2), (-3, -2), (-4, -4), ((1 << 63) - 1, 1 << 62)],
)
def test_a_value_is_labelled_by_the_power_of_two_nearest_zero(value: int, label: int) -> None:
    assert bucket_value(bucket_of(value)) == label


def test_the_outer_buckets_hold_the_largest_values_of_64_bits() -> None:
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


def test_linear_buckets_include_their_start_and_end_before_the_next() -> None:
    linear = Linear(-10, 30, 10)
    assert linear.labels == ("< -10", "-10", "0", "10", "20", ">= 30")
    assert [linear.bucket_of(v) for v in (-11, -10, -1, 0, 29, 30, 99)] == [0, 1, 1, 2, 4, 5, 5]


def test_log_linear_buckets_are_steps_within_each_magnitude() -> None:
    ten = LogLinear(10, 0, 1, 10)
    assert ten.labels[19:22] == ("0", "1", "2")
    assert ten.labels[28:31] == ("9", "10", "20")
    assert ten.labels[-2:] == ("90", ">= 100")
    assert ten.labels[:2] == ("<= -100", "-90") and ten.labels[17:19] == ("-2", "-1")
    values = (0, 1, 9, 10, 19, 20, 99, 100, 1 << 60, (1 << 63) - 1)
    assert [ten.bucket_of(v) for v in values] == [19, 20, 28, 29, 29, 30, 37, 38, 38, 38]
    two = LogLinear(2, 0, 2, 2)
    assert two.labels == ("<= -8", "-4", "-2", "-1", "0", "1", "2", "4", ">= 8")


def test_a_negative_value_mirrors_the_positive_one() -> None:
    ten = LogLinear(10, 2, 4, 20)
    for value in (1, 99, 100, 105, 149, 9999, 100000, 1 << 62):
        assert ten.bucket_of(value) - ten.middle == ten.middle - ten.bucket_of(-value)
    assert ten.bucket_of(-(1 << 63)) == 0
    assert ten.labels[ten.middle] == "abs() < 100"


def test_fewer_steps_than_the_factor_begin_at_the_power_itself() -> None:
    assert LogLinear(10, 3, 4, 5).starts == (1000, 2000, 4000, 6000, 8000, 10000, 20000, 40000, 60000, 80000, 100000)
    assert LogLinear(10, 0, 1, 5).starts == (1, 2, 4, 6, 8, 10, 20, 40, 60, 80, 100)
    assert LogLinear(10, 0, 2, 1).starts == (1, 10, 100, 1000)
    assert LogLinear(10, 0, 1, 20).starts[:12] == (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 20)


def test_a_log_linear_bucket_weighs_as_its_start_and_the_outer_ones_as_one_beyond() -> None:
    assert LogLinear(2, 1, 2, 2).weights == (-9, -4, -2, 0, 2, 4, 9)
    assert LogLinear(2, 1, 2, 2).zero is None
    assert LogLinear(2, 0, 2, 2).zero == 4


def test_a_linear_bucket_weighs_as_its_start_and_the_outer_ones_as_one_beyond() -> None:
    assert Linear(-10, 30, 10).weights == (-11, -10, 0, 10, 20, 31)


def test_zero_has_a_linear_bucket_only_within_the_range() -> None:
    assert Linear(-10, 30, 10).zero == 2
    assert Linear(0, 1, 1).zero == 1
    assert Linear(1, 9, 1).zero is None
    assert Linear(-9, 0, 1).zero is None


def test_log_linear_buckets_end_before_values_that_64_bits_cannot_hold() -> None:
    wide = LogLinear(10, 18, 30, 10)
    assert wide.starts[0] == 10**18
    assert all(start < 1 << 63 for start in wide.starts[:-1])
    assert wide.bucket_of((1 << 63) - 1) < wide.buckets


@given(value=INT64)
def test_a_log_linear_value_lies_between_its_bucket_s_start_and_the_next(value: int) -> None:
    scale = LogLinear(10, 1, 4, 20)
    distance = abs(scale.bucket_of(value) - scale.middle)
    assert distance == 0 or scale.starts[distance - 1] <= abs(value)
    assert distance == len(scale.starts) or abs(value) < scale.starts[distance]


@given(INT64, INT64)
def test_log_linear_buckets_keep_the_order(a: int, b: int) -> None:
    scale = LogLinear(10, 0, 4, 5)
    assert (a <= b) <= (scale.bucket_of(a) <= scale.bucket_of(b))
