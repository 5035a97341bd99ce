"""Bucket arithmetic of ``quantize()``: powers of two, both signs.

127 buckets, as DTrace has them (DTRACE_QUANTIZE_NBUCKETS): index 63 is zero,
64 holds 1, 65 holds 2..3, 66 holds 4..7; 62 holds -1, 61 holds -3..-2. The
value printed beside a bucket is the one nearest zero: 0, 1, 2, 4 ... -1, -2, -4.
"""

from __future__ import annotations

__all__ = ("BUCKETS", "ZERO_BUCKET", "bucket_of", "bucket_value")

BUCKETS = 127
ZERO_BUCKET = 63


def bucket_of(value: int) -> int:
    """The bucket index, 0..126, of a signed 64-bit value."""
    if value == 0:
        return ZERO_BUCKET
    if value > 0:
        return min(ZERO_BUCKET + value.bit_length(), BUCKETS - 1)
    return max(ZERO_BUCKET - (-value).bit_length(), 0)


def bucket_value(index: int) -> int:
    """The value that labels a bucket: the one nearest zero."""
    if index == ZERO_BUCKET:
        return 0
    if index > ZERO_BUCKET:
        return 1 << (index - ZERO_BUCKET - 1)
    return -(1 << (ZERO_BUCKET - index - 1))
