"""What a program has cost, in lines."""

from __future__ import annotations

from probekit.consumer.events import Cost, Costs
from probekit.consumer.text.costs import aborted_text, costs_lines

COSTS = Costs((Cost(0, 120_000, 10_200_000.0), Cost(2, 0, 0.0)), 120_000, 3_720_000.0, 1.2449)


def test_a_line_for_each_clause_and_one_for_all() -> None:
    assert list(costs_lines(COSTS, verbose=True)) == [
        "clause 1: 120,000 firings, 85 ns each",
        "clause 3: 0 firings, 0 ns each",
        "to clauses and back: 120,000 times, 31 ns each",
        "overhead: 1.24% of the guest's CPU time",
    ]


def test_without_v_only_the_reason_of_an_early_end_is_told() -> None:
    assert list(costs_lines(COSTS, verbose=False)) == []
    ended = Costs((), 0, 0.0, 12.34, limit=10)
    reason = "processing aborted: probes took 12.3% of the guest's CPU time, more than maxoverhead=10"
    assert aborted_text(ended) == reason
    assert list(costs_lines(ended, verbose=False)) == [reason]
    assert list(costs_lines(ended, verbose=True)) == ["overhead: 12.34% of the guest's CPU time", reason]
