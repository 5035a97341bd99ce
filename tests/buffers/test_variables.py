"""Where variables are in guest memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probekit.buffers.variables import DYNAMIC_HEAD, DynamicTable, ThreadTable, hash_words, round8

WORDS = st.lists(st.integers(0, (1 << 64) - 1), max_size=6)


@pytest.mark.parametrize(("size", "rounded"), [(0, 0), (1, 8), (8, 8), (9, 16)])
def test_sizes_are_rounded_up_to_whole_words(size: int, rounded: int) -> None:
    assert round8(size) == rounded


@given(words=WORDS)
def test_a_hash_is_a_64_bit_word(words: list[int]) -> None:
    assert 0 <= hash_words(words) < 1 << 64


def test_a_hash_depends_on_the_order_and_each_bit_of_the_words() -> None:
    assert hash_words((1, 2)) != hash_words((2, 1))
    assert len({hash_words((1 << bit,)) for bit in range(64)}) == 64


@given(words=WORDS, bits=st.integers(0, 12))
def test_the_bucket_of_any_hash_lies_in_the_table(words: list[int], bits: int) -> None:
    table = DynamicTable(offset=64, buckets=1 << bits, capacity=4, stride=40, key_words=2)
    bucket = table.bucket(hash_words(words))
    assert table.buckets_offset <= bucket < table.entries_offset
    assert (bucket - table.buckets_offset) % 8 == 0


def test_the_highest_bits_of_a_hash_choose_the_bucket() -> None:
    table = DynamicTable(offset=0, buckets=4, capacity=1, stride=32, key_words=1)
    assert [table.bucket(top << 62) for top in range(4)] == [DYNAMIC_HEAD + 8 * top for top in range(4)]


def test_the_entries_end_where_the_table_ends() -> None:
    table = DynamicTable(offset=64, buckets=8, capacity=5, stride=40, key_words=2)
    assert table.entry(0) == table.entries_offset
    assert table.entry(5) == table.offset + table.size


def test_a_table_of_threads_is_as_long_as_its_entries() -> None:
    assert ThreadTable(offset=16, capacity=8, stride=24, variables={}).size == 192
