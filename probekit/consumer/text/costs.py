"""Has the text about the CPU time that a program has taken in the guest, for ``-v`` and ``maxoverhead``.

clause 1: 120,000 firings, 85 ns each
to clauses and back: 120,000 times, 31 ns each
overhead: 1.24% of the guest's CPU time
"""

from __future__ import annotations

from collections.abc import Iterator

from probekit.consumer.events import Costs

__all__ = ("aborted_text", "costs_lines")


def aborted_text(costs: Costs) -> str:
    """Return the message for a program that was ended because it took more than its limit."""
    return (
        f"processing aborted: probes took {costs.percent:.1f}% of the guest's CPU time, "
        f"more than maxoverhead={costs.limit}"
    )


def costs_lines(costs: Costs, *, verbose: bool) -> Iterator[str]:
    """Yield with ``verbose`` a line for each clause. Also yield the message if the program exceeded its limit."""
    if verbose:
        for cost in costs.clauses:
            yield f"clause {cost.clause + 1}: {cost.firings:,} firings, {cost.ns / max(cost.firings, 1):,.0f} ns each"
        if costs.entries:
            yield f"to clauses and back: {costs.entries:,} times, {costs.entries_ns / costs.entries:,.0f} ns each"
        yield f"overhead: {costs.percent:.2f}% of the guest's CPU time"
    if costs.limit is not None:
        yield aborted_text(costs)
