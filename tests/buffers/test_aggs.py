"""Aggregating functions: their words, and how values merge."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probekit.buffers.aggs import AGG_FUNCS, AggPlan, KeyPart, as_signed, datum

INT64 = st.integers(-(1 << 63), (1 << 63) - 1)


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


def test_the_increment_is_what_a_bucket_grows_by() -> None:
    assert datum(AggPlan(0, "a", "lquantize", (), (0, 2, 1)), 1, -3) == (0, 0, -3, 0)


def test_a_key_takes_whole_words_and_is_constant_when_the_probe_alone_decides_it() -> None:
    plan = AggPlan(0, "a", "count", (KeyPart("string", size=17), KeyPart("int"), KeyPart("probe")))
    assert plan.key_words == 3 + 1 + 1
    assert not plan.constant_keyed
    assert AggPlan(0, "a", "count", (KeyPart("probe"),)).constant_keyed
    assert AggPlan(0, "a", "count", ()).constant_keyed
