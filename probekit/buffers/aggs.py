"""Aggregating functions: how many words a value has, how it starts, merges and finishes.

A value in guest memory is a row of 64-bit words. Tables of several CPUs merge
word by word on the host.

    sum    words 1   starts (0,)            merge +
    min    words 1   starts (2**63-1,)      merge min
    avg    words 2   (sum, count)           merge +, +
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from probekit.buffers.quantize import BUCKETS

__all__ = ("AGG_FUNCS", "AggFunc", "AggFuncName", "AggKey", "AggPlan", "KeyPart", "as_signed")

AggFuncName = Literal["count", "sum", "avg", "min", "max", "quantize"]

Words = tuple[int, ...]

_MASK = (1 << 64) - 1
_MAX, _MIN = (1 << 63) - 1, -(1 << 63)


def as_signed(word: int) -> int:
    """A 64-bit word as a signed integer."""
    word &= _MASK
    return word - (1 << 64) if word >> 63 else word


def _add(a: Sequence[int], b: Sequence[int]) -> Words:
    sums = tuple(x + y for x, y in zip(a, b, strict=True))
    # Wrapping is rare; 127 buckets of each of many keys are not wrapped one by one for nothing.
    return sums if min(sums) >= _MIN and max(sums) <= _MAX else tuple(map(as_signed, sums))


@dataclass(frozen=True, slots=True)
class AggFunc:
    """One aggregating function. ``words``: of a value; ``initial``: before the first datum; ``merge``: two CPUs'."""

    name: AggFuncName
    words: int
    initial: Words
    merge: Callable[[Sequence[int], Sequence[int]], Words]
    takes_value: bool


AGG_FUNCS: dict[str, AggFunc] = {
    f.name: f
    for f in (
        AggFunc("count", 1, (0,), _add, False),
        AggFunc("sum", 1, (0,), _add, True),
        AggFunc("avg", 2, (0, 0), _add, True),
        AggFunc("min", 1, (_MAX,), lambda a, b: (min(a[0], b[0]),), True),
        AggFunc("max", 1, (_MIN,), lambda a, b: (max(a[0], b[0]),), True),
        AggFunc("quantize", BUCKETS, (0,) * BUCKETS, _add, True),
    )
}


@dataclass(frozen=True, slots=True)
class KeyPart:
    """One element of an aggregation's key tuple, always 8-byte aligned in memory.

    ``kind`` ``int``/``uint``: one word (already extended to 64 bits; ``bits`` is its D width for printing);
    ``string``: ``size`` bytes, NUL-padded; ``probe``: one word, the probe's ID, which the consumer
    turns into ``detail`` (``probefunc`` ...).
    """

    kind: Literal["int", "uint", "string", "probe"]
    size: int = 8
    bits: int = 64
    detail: str = ""

    @property
    def words(self) -> int:
        """Space in 64-bit words."""
        return -(-self.size // 8)


@dataclass(frozen=True, slots=True)
class AggPlan:
    """One aggregation of a program. ``name``: without the ``@`` (empty for ``@``). ``index``: its number."""

    index: int
    name: str
    func: AggFuncName
    keys: tuple[KeyPart, ...]

    @property
    def key_words(self) -> int:
        """Words of the whole key tuple."""
        return sum(k.words for k in self.keys)

    @property
    def constant_keyed(self) -> bool:
        """True when the probe alone decides the key, so that each site can own its value."""
        return all(k.kind == "probe" for k in self.keys)


AggKey = tuple[int | str | bytes, ...]
"""A key as the consumer sees it: integers, and strings."""
