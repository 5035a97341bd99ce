"""The table of shared routines: each has one name, and a kernel function that is missing is named."""

from __future__ import annotations

import pytest

from probekit.codegen.runtime.registry import AGG_FIND_PREFIX, agg_find_name, kernel_function, merge_tables
from probekit.errors import InternalError, UnsupportedError


def test_tables_are_merged_and_two_routines_of_one_name_are_our_own_bug() -> None:
    first, second = (lambda _c, _a: "nop"), (lambda _c, _a: "ret")
    assert merge_tables({"a": first}, {}, {"b": second}) == {"a": first, "b": second}
    with pytest.raises(InternalError, match="two routines are named a"):
        merge_tables({"a": first}, {"a": second})


def test_a_kernel_without_the_function_is_refused_by_its_name() -> None:
    assert kernel_function(0x1000, "panic") == 0x1000
    with pytest.raises(UnsupportedError, match="no panic") as caught:
        kernel_function(None, "panic")
    assert caught.value.feature == "panic"


def test_the_look_ups_of_aggregations_have_names_of_their_own() -> None:
    names = {agg_find_name(agg) for agg in range(20)}
    assert len(names) == 20 and all(name.startswith(AGG_FIND_PREFIX) for name in names)
