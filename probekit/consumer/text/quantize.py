"""Draws ``quantize()``, ``lquantize()`` and ``llquantize()`` exactly as DTrace does, to the column.

    quantize(1), quantize(2), quantize(3)  ->

               value  ------------- Distribution ------------- count
                   0 |                                         0
                   1 |@@@@@@@@@@@@@                            1
                   2 |@@@@@@@@@@@@@@@@@@@@@@@@@@@              2
                   4 |                                         0

One empty bucket is shown on either side. A count below zero (possible with an increment) is drawn to the left. With
counts of both signs, a centre line separates two halves of 20 columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from probekit.buffers.quantize import BUCKETS, ZERO_BUCKET, Linear, LogLinear, bucket_value
from probekit.consumer.events import Histogram, Quantize, divide
from probekit.records import record

__all__ = ("COLUMNS", "Bars", "histogram_lines", "labels", "shown_buckets")

COLUMNS = 40
_ZOOM_PERCENT = 95  # percent of its columns that the longest bar fills with ``aggzoom``
_HEADER = f"{'value':>16} {'------------- Distribution -------------':>41} {'count':<9}"


@record
class Bars:
    """The scale of the bars of one histogram. A count of ``total / scale`` is a full bar."""

    total: int
    """The sum of all counts, or with ``zoom`` 100 times the greatest count."""
    positives: bool
    """Whether any count is above 0."""
    negatives: bool
    """Whether any count is below 0."""
    scale: int = 1
    """The divisor of ``total``: 95 with ``zoom``, else 1."""

    @classmethod
    def of(cls, counts: Iterable[int], *, zoom: bool = False) -> Bars:
        """Return the scale for these counts. A full bar is their sum, or with ``zoom`` 100/95 of the greatest."""
        seen = tuple(counts)
        total = 100 * max(map(abs, seen), default=0) if zoom else sum(map(abs, seen))
        scale = _ZOOM_PERCENT if zoom else 1
        return cls(total, any(c > 0 for c in seen), any(c < 0 for c in seen), scale)

    def draw(self, count: int) -> str:
        """Return one bar with its axis, 41 columns wide."""
        if not self.negatives:
            return "|" + ("@" * self._length(count, COLUMNS)).ljust(COLUMNS)
        if not self.positives:
            return ("@" * self._length(count, COLUMNS)).rjust(COLUMNS) + "|"
        half = COLUMNS // 2
        bar = "@" * self._length(count, half)
        return f"{bar:>{half}}|{'':{half}}" if count <= 0 else f"{'':{half}}|{bar:<{half}}"

    def _length(self, count: int, columns: int) -> int:
        """Return the length of a bar in columns, rounded half up. It is exact for counts of any size."""
        return (2 * abs(count) * self.scale * columns + self.total) // (2 * self.total) if self.total else 0


def shown_buckets(value: Quantize | Histogram) -> range:
    """Return the buckets to print: from one before the first with data to one after the last.

    Without data, these are the buckets around zero of ``quantize()``, or the first ones of another histogram.
    """
    counts = value.buckets
    used = [i for i, count in enumerate(counts) if count]
    if used:
        return range(max(used[0] - 1, 0), min(used[-1] + 1, len(counts) - 1) + 1)
    if isinstance(value, Quantize):
        return range(ZERO_BUCKET - 1, ZERO_BUCKET + 2)
    first = 0 if isinstance(value.scale, Linear) else value.scale.middle
    return range(first, min(first + 3, len(counts)))


def labels(value: Quantize | Histogram) -> Sequence[str]:
    """Return the label of each bucket.

    DTrace names the middle bucket of ``llquantize()`` by magnitudes only if it, or one before it, has any data.
    """
    if isinstance(value, Quantize):
        return _QUANTIZE_LABELS
    names, scale = value.scale.labels, value.scale
    if isinstance(scale, LogLinear) and not any(value.buckets[: scale.middle + 1]):
        return tuple(name.removeprefix("abs() ") for name in names)
    return names


_QUANTIZE_LABELS = tuple(str(bucket_value(i)) for i in range(BUCKETS))


def histogram_lines(value: Quantize | Histogram, *, normal: int = 1, zoom: bool = False) -> Iterator[str]:
    """Yield the histogram's lines, header first, without line ends.

    ``normal``: the divisor of ``normalize()``. ``zoom``: the option ``aggzoom``.
    """
    names = labels(value)
    if len(value.buckets) != len(names):  # the guest may have stored any number of words
        padded = (value.buckets + (0,) * len(names))[: len(names)]
        value = Quantize(padded) if isinstance(value, Quantize) else Histogram(value.scale, padded)
    bars = Bars.of(value.buckets, zoom=zoom)
    yield _HEADER
    for bucket in shown_buckets(value):
        count = value.buckets[bucket]
        yield f"{names[bucket]:>16} {bars.draw(count)} {divide(count, normal):<9}"
