"""What clauses cost: sums over CPUs, scaled up from the firings that were timed."""

from __future__ import annotations

import struct

import pytest

from probekit.buffers.layout import CostWords
from probekit.codegen.costs import FIRINGS_TIMED
from probekit.enabling.guest_engine.costs import CostMeter, LeadTimes, add_costs, inline_clauses

WORDS = CostWords(offset=120, clauses=3)
KHZ = 2_000_000  # two ticks a nanosecond
LEADS = LeadTimes(thunk=30.0, inline=4.0)


def block(entries: int, *clauses: tuple[int, int, int]) -> bytes:
    """One CPU's words: how often thunks were called, and ``(firings, timed, ticks)`` of each clause."""
    rest = (0,) * 3 * (WORDS.clauses - len(clauses))
    return struct.pack(f"<{WORDS.size // 8}Q", entries, 0, *(word for clause in clauses for word in clause), *rest)


def test_cpus_are_added_and_the_timed_firings_stand_for_all() -> None:
    blocks = [block(100, (96, 6, 2400), (4, 1, 100)), block(60, (64, 4, 1600))]
    costs = add_costs(WORDS, blocks, {}, LEADS, KHZ)
    first, second = costs.clauses
    assert (first.clause, first.firings) == (0, 160) and first.ns == pytest.approx(160 * 200)
    assert (second.clause, second.firings) == (1, 4) and second.ns == pytest.approx(4 * 50)
    assert costs.entries == 160 and costs.entries_ns == pytest.approx(160 * 30)
    assert costs.total_ns == pytest.approx(160 * 200 + 4 * 50 + 160 * 30)


def test_a_clause_that_never_fired_is_left_out_and_one_that_was_never_timed_costs_nothing() -> None:
    (only,) = add_costs(WORDS, [block(1, (0, 0, 0), (1, 0, 0))], {}, LEADS, KHZ).clauses
    assert (only.clause, only.firings, only.ns) == (1, 1, 0.0)


def test_inline_firings_are_those_of_the_aggregation_that_no_thunk_has_counted() -> None:
    costs = add_costs(WORDS, [block(10, (10, 10, 200))], {0: 50, 2: 7}, LEADS, KHZ)
    both, inline = costs.clauses
    assert (both.clause, both.firings) == (0, 50) and both.ns == pytest.approx(10 * 10 + 40 * 4)
    assert (inline.clause, inline.firings) == (2, 7) and inline.ns == pytest.approx(7 * 4)


def test_a_guest_that_counts_less_than_its_thunks_makes_no_negative_cost() -> None:
    (only,) = add_costs(WORDS, [block(10, (10, 10, 200))], {0: 3}, LEADS, KHZ).clauses
    assert only.firings == 10 and only.ns == pytest.approx(100)


def test_which_clauses_count_inline() -> None:
    assert inline_clauses([(1, 0), None, (1,), None], [(2, 3), (2,), (2,), (4,)]) == {2: 1, 3: 0}


def test_lead_times_are_for_one_firing() -> None:
    leads = LeadTimes.of_ticks(FIRINGS_TIMED * 60, FIRINGS_TIMED * 8, KHZ)
    assert leads.thunk == pytest.approx(30.0) and leads.inline == pytest.approx(4.0)


def test_the_meter_reads_what_is_counted_inline() -> None:
    class Source:
        def cost_words(self) -> list[bytes]:
            return [block(0)]

        def counted(self, agg: int) -> int:
            return {5: 9}[agg]

    (only,) = CostMeter(WORDS, {1: 5}, LEADS, KHZ).read(Source()).clauses
    assert (only.clause, only.firings) == (1, 9)
