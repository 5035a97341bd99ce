"""The hash of INT3 sites: every site is found, nothing else is, and each search is bounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probekit.guest.trap_table import ENTRY_SIZE, build_table, find_stub, table_size

_addresses = st.one_of(
    st.integers(1, (1 << 64) - 1), st.integers(0, 3000).map(lambda n: 0xFFFFFFFF81000000 + n), st.integers(1, 64)
)


@given(st.dictionaries(_addresses, _addresses, max_size=200), st.lists(_addresses, max_size=50))
def test_every_site_has_its_stub_and_any_other_address_has_none(stubs: dict[int, int], others: list[int]) -> None:
    table = build_table(stubs)
    assert {site: find_stub(table, site) for site in stubs} == stubs
    assert all(find_stub(table, other) == 0 for other in others if other not in stubs)


@given(st.dictionaries(_addresses, _addresses, min_size=1, max_size=300))
def test_a_table_has_the_size_that_was_planned_and_is_a_quarter_full_at_most(stubs: dict[int, int]) -> None:
    table = build_table(stubs)
    assert len(table.data) == table_size(len(stubs)) == table.capacity * ENTRY_SIZE
    assert table.capacity & (table.capacity - 1) == 0
    assert 4 * len(stubs) <= table.capacity
    assert 1 <= table.limit <= table.capacity


def test_no_site_needs_no_room() -> None:
    assert table_size(0) == 0
    assert find_stub(build_table({}), 0x1000) == 0


@pytest.mark.parametrize("stubs", [{0: 1}, {1: 0}, {5: 6, 0: 7}])
def test_the_mark_of_a_free_slot_is_no_address(stubs: dict[int, int]) -> None:
    with pytest.raises(ValueError, match="address 0"):
        build_table(stubs)
