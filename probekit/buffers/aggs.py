"""Aggregating functions: how many words a value has, how it starts, merges and finishes.

A value in guest memory is a row of 64-bit words. Tables of several CPUs merge
word by word on the host.

    sum        words 1   starts (0,)            merge +
    min        words 1   starts (2**63-1,)      merge min
    avg        words 2   (sum, count)           merge +, +
    stddev     words 4   (count, sum, sum of squares: low 64 bits, high 64 bits)
    quantize   words 127, see ``quantize``
    lquantize  words levels + 2: below the base, the levels, at and above the limit
    llquantize words as ``LogLinear.buckets`` says: below the lowest magnitude, the steps of each, above the highest

How many words a value has depends on the function's parameters, so ask the
plan (:attr:`AggPlan.words`, :attr:`AggPlan.initial`), not the function.
:func:`datum` makes the words of one datum alone; merging it in is feeding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Literal, assert_never

from probekit.buffers.quantize import BUCKETS, Linear, LogLinear, bucket_of
from probekit.records import record

__all__ = (
    "AGG_FUNCS",
    "AggFunc",
    "AggFuncName",
    "AggKey",
    "AggPlan",
    "KeyPart",
    "KeyPartKind",
    "as_signed",
    "datum",
)

AggFuncName = Literal["count", "sum", "avg", "min", "max", "stddev", "quantize", "lquantize", "llquantize"]

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


def _wide(low: int, high: int) -> int:
    return (low & _MASK) | (high & _MASK) << 64


def _add_stddev(a: Sequence[int], b: Sequence[int]) -> Words:
    """Counts and sums as 64-bit words; the sum of squares carries from its low word into the high one."""
    squares = _wide(a[2], a[3]) + _wide(b[2], b[3])
    return as_signed(a[0] + b[0]), as_signed(a[1] + b[1]), as_signed(squares), as_signed(squares >> 64)


@record
class AggFunc:
    """One aggregating function. ``words``: of a value (0: the plan's parameters decide, see :class:`AggPlan`).

    ``initial``: before the first datum; ``merge``: two CPUs' values; ``takes_value``: False for ``count()`` alone;
    ``takes_increment``: a last argument may say by how much a bucket grows; ``parameters``: how many constants the
    function takes between value and increment.
    """

    name: AggFuncName
    words: int
    initial: Words
    merge: Callable[[Sequence[int], Sequence[int]], Words]
    takes_value: bool = True
    takes_increment: bool = False
    parameters: int = 0


AGG_FUNCS: dict[str, AggFunc] = {
    f.name: f
    for f in (
        AggFunc("count", 1, (0,), _add, False),
        AggFunc("sum", 1, (0,), _add),
        AggFunc("avg", 2, (0, 0), _add),
        AggFunc("min", 1, (_MAX,), lambda a, b: (min(a[0], b[0]),)),
        AggFunc("max", 1, (_MIN,), lambda a, b: (max(a[0], b[0]),)),
        AggFunc("stddev", 4, (0, 0, 0, 0), _add_stddev),
        AggFunc("quantize", BUCKETS, (0,) * BUCKETS, _add, takes_increment=True),
        AggFunc("lquantize", 0, (), _add, takes_increment=True, parameters=3),
        AggFunc("llquantize", 0, (), _add, takes_increment=True, parameters=4),
    )
}

KeyPartKind = Literal["int", "uint", "string", "probe", "stack"]


@record
class KeyPart:
    """One element of an aggregation's key tuple, always 8-byte aligned in memory.

    ``kind`` ``int``/``uint``: one word (already extended to 64 bits; ``bits`` is its D width for printing;
    ``detail``: empty, or ``sym func mod usym ufunc umod uaddr`` for an address that is printed so);
    ``string``: ``size`` bytes, NUL-padded; ``probe``: one word, the probe's ID, which the consumer
    turns into ``detail`` (``probefunc`` ...); ``stack``: ``size`` bytes of 8-byte addresses, innermost first,
    0-padded (``stack(n)``: ``size`` is 8 n; ``detail`` is ``ustack`` for a user's one). In an :data:`AggKey` a
    stack is its bytes.
    """

    kind: KeyPartKind
    size: int = 8
    bits: int = 64
    detail: str = ""

    @property
    def words(self) -> int:
        """Space in 64-bit words."""
        return -(-self.size // 8)


@record
class AggPlan:
    """One aggregation of a program. ``name``: without the ``@`` (empty for ``@``). ``index``: its number.

    ``params``: of ``lquantize`` base, limit, step; of ``llquantize`` factor, low and high magnitude, steps.
    """

    index: int
    name: str
    func: AggFuncName
    keys: tuple[KeyPart, ...]
    params: tuple[int, ...] = ()

    @property
    def words(self) -> int:
        """Words of a value."""
        return len(self.initial)

    @property
    def initial(self) -> Words:
        """A value before its first datum."""
        match self.func:
            case "lquantize":
                return (0,) * Linear(*self.params).buckets
            case "llquantize":
                return (0,) * _log_linear(self.params).buckets
            case _:
                return AGG_FUNCS[self.func].initial

    def merge(self, a: Sequence[int], b: Sequence[int]) -> Words:
        """Two values as one."""
        return AGG_FUNCS[self.func].merge(a, b)

    def since(self, now: Sequence[int], before: Sequence[int]) -> Words:
        """What came to a value between two readings. Of ``min`` and ``max`` that is the whole value."""
        match self.func:
            case "min" | "max":
                return tuple(now)
            case "stddev":
                squares = _wide(now[2], now[3]) - _wide(before[2], before[3])
                counts = (as_signed(now[i] - before[i]) for i in (0, 1))
                return (*counts, as_signed(squares), as_signed(squares >> 64))
            case _:
                return tuple(as_signed(a - b) for a, b in zip(now, before, strict=True))

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


@lru_cache(maxsize=64)
def _log_linear(params: tuple[int, ...]) -> LogLinear:
    return LogLinear(*params)


def datum(plan: AggPlan, value: int | None, increment: int = 1) -> Words:
    """The words of one datum alone. ``value``: None for ``count()``; ``increment``: of the bucket of a histogram."""
    number = as_signed(value or 0)
    match plan.func:
        case "count":
            return (1,)
        case "sum" | "min" | "max":
            return (number,)
        case "avg":
            return number, 1
        case "stddev":
            square = number * number
            return 1, number, as_signed(square), as_signed(square >> 64)
        case "quantize":
            return _bucket(BUCKETS, bucket_of(number), increment)
        case "lquantize":
            linear = Linear(*plan.params)
            return _bucket(linear.buckets, linear.bucket_of(number), increment)
        case "llquantize":
            log_linear = _log_linear(plan.params)
            return _bucket(log_linear.buckets, log_linear.bucket_of(number), increment)
        case _:
            assert_never(plan.func)


def _bucket(count: int, index: int, increment: int) -> Words:
    words = [0] * count
    words[index] = as_signed(increment)
    return tuple(words)
