"""The text of a ``quantize()``, to the column as DTrace prints it.

    quantize(1), quantize(2), quantize(3)  ->

               value  ------------- Distribution ------------- count
                   0 |                                         0
                   1 |@@@@@@@@@@@@@                            1
                   2 |@@@@@@@@@@@@@@@@@@@@@@@@@@@              2
                   4 |                                         0

One empty bucket is shown either side. A count below zero (possible with an
increment) draws to the left; with both signs, a centre line parts two halves
of 20 columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from probekit.buffers.quantize import BUCKETS, ZERO_BUCKET, bucket_value
from probekit.consumer.events import Quantize

__all__ = ("COLUMNS", "Bars", "divide", "quantize_lines", "shown_buckets")

COLUMNS = 40
_HEADER = f"{'value':>16} {'------------- Distribution -------------':>41} {'count':<9}"


def divide(value: int, by: int) -> int:
    """C's division: towards zero."""
    quotient = abs(value) // abs(by)
    return quotient if (value < 0) == (by < 0) else -quotient


@dataclass(frozen=True, slots=True)
class Bars:
    """How the bars of one histogram are drawn. ``total``: of all counts' magnitudes."""

    total: int
    positives: bool
    negatives: bool

    @classmethod
    def of(cls, counts: Iterable[int]) -> Bars:
        """The bars for these counts."""
        seen = tuple(counts)
        return cls(sum(map(abs, seen)), any(c > 0 for c in seen), any(c < 0 for c in seen))

    def draw(self, count: int) -> str:
        """One bar with its axis, 41 columns wide."""
        if not self.negatives:
            return "|" + ("@" * self._length(count, COLUMNS)).ljust(COLUMNS)
        if not self.positives:
            return ("@" * self._length(count, COLUMNS)).rjust(COLUMNS) + "|"
        half = COLUMNS // 2
        bar = "@" * self._length(count, half)
        return f"{bar:>{half}}|{'':{half}}" if count <= 0 else f"{'':{half}}|{bar:<{half}}"

    def _length(self, count: int, columns: int) -> int:
        """The share of the total in columns, rounded half up; exact, whatever the counts."""
        return (2 * abs(count) * columns + self.total) // (2 * self.total) if self.total else 0


def shown_buckets(counts: Sequence[int]) -> range:
    """The buckets to print: those with data and one either side, or the three about zero."""
    used = [i for i, count in enumerate(counts) if count]
    if not used:
        return range(ZERO_BUCKET - 1, ZERO_BUCKET + 2)
    return range(max(used[0] - 1, 0), min(used[-1] + 1, BUCKETS - 1) + 1)


def quantize_lines(value: Quantize, *, normal: int = 1) -> Iterator[str]:
    """The histogram's lines, header first, without line ends."""
    counts = (value.buckets + (0,) * BUCKETS)[:BUCKETS]
    bars = Bars.of(counts)
    yield _HEADER
    for bucket in shown_buckets(counts):
        count = counts[bucket]
        yield f"{bucket_value(bucket):>16} {bars.draw(count)} {divide(count, normal):<9}"
