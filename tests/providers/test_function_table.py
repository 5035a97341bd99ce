"""The table of a kernel's functions: found by name as a search through all of them would find them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probekit.probe.names import ProbeDescription, glob_regex
from probekit.providers.api import Function
from probekit.providers.function_table import FunctionTable, function_table, matching_functions

NAMES = st.sampled_from(("a", "b", "sys_a", "__x64_sys_a", "__x64_sys_b", "__se_sys_a", "a.cold", "b.cold.7", "copy"))
ROWS = st.lists(st.tuples(st.integers(0, 24), NAMES, st.sampled_from("tT"), st.sampled_from(("", "m"))), max_size=24)


def _table(rows: list[tuple[int, str, str, str]]) -> FunctionTable:
    ordered = sorted(rows, key=lambda row: row[0])
    return function_table([(16 * at, 16, name, letter, module) for at, name, letter, module in ordered])


def _names(function: Function) -> Iterator[str]:
    yield function.name
    yield from function.aliases
    if function.name.startswith("__x64_sys_"):
        yield "sys_" + function.name.removeprefix("__x64_sys_")


@given(rows=ROWS, name=NAMES)
def test_a_name_finds_what_a_search_through_all_finds(rows: list[tuple[int, str, str, str]], name: str) -> None:
    table = _table(rows)
    assert table.named(name) == [i for i, function in enumerate(table) if name in _names(function)]


@given(rows=ROWS, pattern=st.sampled_from(("*", "sys_*", "*_a", "a*", "__x64_*", "?", "[ab]", "copy", "none*")))
def test_a_pattern_finds_what_a_search_through_all_finds(rows: list[tuple[int, str, str, str]], pattern: str) -> None:
    table = _table(rows)
    fits = glob_regex(pattern).fullmatch
    assert table.named_like(pattern) == [i for i, function in enumerate(table) if any(map(fits, _names(function)))]


@given(rows=ROWS)
def test_addresses_rise_and_a_copy_is_equal(rows: list[tuple[int, str, str, str]]) -> None:
    table = _table(rows)
    assert table.addrs == sorted(set(table.addrs)) == [function.addr for function in table]
    assert [table[i] for i in range(len(table))] == list(table) == table[:]
    assert not any(".cold" in function.name for function in table)
    assert FunctionTable(table).addrs == table.addrs


def test_a_module_is_matched_by_its_name_and_an_empty_function_means_all() -> None:
    table = _table([(0, "a", "t", ""), (1, "a", "t", "m"), (2, "b", "t", "m")])
    assert list(matching_functions(table, ProbeDescription.parse("fbt:m::"))) == [1, 2]
    assert list(matching_functions(table, ProbeDescription.parse("fbt:vmlinux:a:"))) == [0]
    assert list(matching_functions(table, ProbeDescription.parse("fbt::a:"))) == [0, 1]


def test_excluded_ranges_are_left_out_and_cold_parts_belong_to_their_function() -> None:
    rows = [(0, 16, "early", "T", ""), (16, 16, "late", "T", ""), (32, 8, "late.cold", "t", "")]
    table = function_table(rows, [(0, 16)])
    assert table[:] == [Function(16, 16, "late", "vmlinux", (), ((32, 40),))]


def test_an_index_out_of_range_is_an_error() -> None:
    with pytest.raises(IndexError):
        _table([])[0]
