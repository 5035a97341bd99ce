from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from probekit.patch.ranges import Ranges, any_inside

_PAIRS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=8)


@given(_PAIRS, st.integers(0, 60), st.integers(0, 60))
def test_overlap_is_what_a_byte_set_says(pairs: list[tuple[int, int]], start: int, end: int) -> None:
    covered = {byte for lo, hi in pairs for byte in range(lo, hi)}
    ranges = Ranges.of(pairs)
    assert (ranges.overlap(start, end) is not None) == bool(covered & set(range(start, end)))
    assert (start in ranges) == (start in covered)


@given(st.lists(st.integers(0, 40)), st.integers(0, 40), st.integers(0, 40))
def test_any_inside_is_strict(points: list[int], start: int, end: int) -> None:
    assert any_inside(sorted(points), start, end) == any(start < point < end for point in points)
