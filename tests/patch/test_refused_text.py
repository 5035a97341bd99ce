"""Ranges with reasons."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from probekit.patch.refused_text import RefusedText


def test_the_first_reason_is_kept() -> None:
    refused = RefusedText.of([(0x18, 0x28, "b"), (0x10, 0x20, "a"), (0x30, 0x30, "empty"), (0x12, 0x14, "inner")])
    assert [refused.reason(at) for at in (0xF, 0x10, 0x13, 0x1F, 0x20, 0x27, 0x28, 0x30)] == [
        None, "a", "a", "a", "b", "b", None, None,
    ]  # fmt: skip


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=8))
def test_every_place_of_every_range_is_refused(ranges: list[tuple[int, int]]) -> None:
    refused = RefusedText.of((start, end, f"{start}") for start, end in ranges)
    for at in range(42):
        assert (refused.reason(at) is not None) == any(start <= at < end for start, end in ranges)
