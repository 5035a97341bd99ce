"""Compute the buckets of ``quantize()``, ``lquantize()`` and ``llquantize()``.

``quantize``: powers of two of both signs, in 127 buckets as DTrace has them (DTRACE_QUANTIZE_NBUCKETS). Bucket 63 is
for zero, 64 for 1, 65 for 2 and 3, 66 for 4 to 7; 62 for -1, 61 for -3 and -2. The value printed beside a bucket is
its value nearest to zero: 0, 1, 2, 4 ... -1, -2, -4.

    Linear(base=0, limit=100, step=10)     bucket 0: < 0, 1: 0..9, ... 10: 90..99, 11: >= 100
    LogLinear(factor=10, low=0, high=1, steps=10)
        bucket 19: 0, 20: 1, 21: 2, ... 28: 9, 29: 10..19, ... 37: 90..99, 38: >= 100; 18: -1, ... 0: <= -100
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property

from probekit.records import record

__all__ = ("BUCKETS", "ZERO_BUCKET", "Linear", "LogLinear", "bucket_of", "bucket_value")

BUCKETS = 127
"""How many buckets ``quantize()`` has."""
ZERO_BUCKET = 63
"""The bucket for zero."""

_MAX = (1 << 63) - 1


def bucket_of(value: int) -> int:
    """Return the index of the bucket of a signed 64-bit value, 0 to 126."""
    if value == 0:
        return ZERO_BUCKET
    if value > 0:
        return min(ZERO_BUCKET + value.bit_length(), BUCKETS - 1)
    return max(ZERO_BUCKET - (-value).bit_length(), 0)


def bucket_value(index: int) -> int:
    """Return the value that labels a bucket: its value nearest to zero."""
    if index == ZERO_BUCKET:
        return 0
    if index > ZERO_BUCKET:
        return 1 << (index - ZERO_BUCKET - 1)
    return -(1 << (ZERO_BUCKET - index - 1))


@record
class Linear:
    """The buckets of ``lquantize(v, base, limit, step)``. The compiler makes sure that the step divides the range."""

    base: int
    """The lowest value of the second bucket."""
    limit: int
    """The lowest value of the last bucket."""
    step: int = 1
    """How many values a bucket between them is for."""

    @property
    def levels(self) -> int:
        """How many buckets there are between base and limit."""
        return (self.limit - self.base) // self.step

    @property
    def buckets(self) -> int:
        """How many buckets there are: the first is below the base, the last at the limit and above."""
        return self.levels + 2

    def bucket_of(self, value: int) -> int:
        """Return the index of the bucket of a value."""
        if value < self.base:
            return 0
        return min((value - self.base) // self.step, self.levels) + 1

    @property
    def labels(self) -> tuple[str, ...]:
        """The text that is printed beside each bucket."""
        inner = (str(self.base + i * self.step) for i in range(self.levels))
        return (f"< {self.base}", *inner, f">= {self.base + self.levels * self.step}")

    @property
    def weights(self) -> tuple[int, ...]:
        """The weight of one datum in each bucket when rows are sorted."""
        inner = (self.base + i * self.step for i in range(self.levels))
        return (self.base - 1, *inner, self.base + self.levels * self.step + 1)

    @property
    def zero(self) -> int | None:
        """The bucket that decides between rows of equal weight; None when no bucket is for 0 alone."""
        return self.bucket_of(0) if self.base <= 0 < self.limit else None


@dataclass(frozen=True)
class LogLinear:
    """The buckets of ``llquantize(v, factor, low, high, steps)``."""

    factor: int
    """The base of the powers."""
    low: int
    """The exponent of the lowest power: smaller magnitudes share one bucket, the middle one."""
    high: int
    """The highest exponent: the last bucket begins at ``factor**(high+1)``, the first ends at its negative."""
    steps: int
    """By how many steps a power divides ``factor`` times itself: it has a bucket for each step above it."""

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """The lowest magnitude of each bucket after the middle one, ascending; the last is ``factor**(high+1)``.

        Each power begins a bucket. The others begin at the multiples of the power's step that lie above it.
        """
        starts: list[int] = []
        value = self.factor**self.low
        for _ in range(self.low, self.high + 1):
            if value > _MAX:
                break
            end = value * self.factor
            step = max(end // self.steps, 1)
            starts += (value, *range((value // step + 1) * step, end, step))
            value = end
        return (*starts, value)

    @property
    def middle(self) -> int:
        """The bucket of what is nearer to zero than the lowest power. Negative values lie before it."""
        return len(self.starts)

    @property
    def buckets(self) -> int:
        """How many buckets there are."""
        return 2 * self.middle + 1

    def bucket_of(self, value: int) -> int:
        """Return the index of the bucket of a value: its distance from the middle is how many starts it reaches."""
        distance = bisect_right(self.starts, abs(value))
        return self.middle + (distance if value > 0 else -distance)

    @property
    def labels(self) -> tuple[str, ...]:
        """The text that is printed beside each bucket."""
        *inner, last = self.starts
        low = self.starts[0]
        negative = (f"<= -{last}", *(f"-{start}" for start in reversed(inner)))
        return (*negative, "0" if low == 1 else f"abs() < {low}", *map(str, inner), f">= {last}")

    @property
    def weights(self) -> tuple[int, ...]:
        """The weight of one datum in each bucket when rows are sorted."""
        positive = (*self.starts[:-1], self.starts[-1] + 1)
        return (*(-weight for weight in reversed(positive)), 0, *positive)

    @property
    def zero(self) -> int | None:
        """The bucket that decides between rows of equal weight; None when no bucket is for 0 alone."""
        return self.middle if self.low == 0 else None
