"""Define the aggregating functions: how many words a value has, how it starts, and how two values merge.

A value in guest memory is a row of 64-bit words. The host merges the tables of several CPUs word by word.

    sum        words 1   starts (0,)            merge +
    min        words 1   starts (2**63-1,)      merge min
    avg        words 2   (sum, count)           merge +, +
    stddev     words 4   (count, sum, sum of squares: low 64 bits, high 64 bits)
    quantize   words 127, see :mod:`probekit.buffers.quantize`
    lquantize  words levels + 2: below the base, the levels, at and above the limit
    llquantize words as ``LogLinear.buckets`` says: from the lowest negative bucket to the highest positive one

For ``lquantize`` and ``llquantize`` the number of words depends on the call's parameters, so :attr:`AggPlan.words` and
:attr:`AggPlan.initial` give it. :func:`datum` makes the words of one datum alone; merging them with a value adds the
datum to it.
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
"""The words of a value, signed."""

_MASK = (1 << 64) - 1
_MAX, _MIN = (1 << 63) - 1, -(1 << 63)


def as_signed(word: int) -> int:
    """Return a 64-bit word as a signed integer."""
    word &= _MASK
    return word - (1 << 64) if word >> 63 else word


def _add(a: Sequence[int], b: Sequence[int]) -> Words:
    sums = tuple(x + y for x, y in zip(a, b, strict=True))
    # Wrapping is rare, so the 127 buckets of each of many keys are not wrapped one by one.
    return sums if min(sums) >= _MIN and max(sums) <= _MAX else tuple(map(as_signed, sums))


def _wide(low: int, high: int) -> int:
    """Return the 128-bit integer of two words."""
    return (low & _MASK) | (high & _MASK) << 64


def _add_stddev(a: Sequence[int], b: Sequence[int]) -> Words:
    """Add counts and sums as 64-bit words; the sum of squares carries from its low word into the high one."""
    squares = _wide(a[2], a[3]) + _wide(b[2], b[3])
    return as_signed(a[0] + b[0]), as_signed(a[1] + b[1]), as_signed(squares), as_signed(squares >> 64)


@record
class AggFunc:
    """An aggregating function, such as ``sum()``."""

    name: AggFuncName
    """What a script calls it."""
    words: int
    """How many words a value has; 0 when the call's parameters decide (see :attr:`AggPlan.words`)."""
    initial: Words
    """A value before its first datum; empty when the call's parameters decide."""
    merge: Callable[[Sequence[int], Sequence[int]], Words]
    """Returns the sum, minimum or maximum of two values, as the function needs it."""
    takes_value: bool = True
    """False for ``count()`` only, which has no argument."""
    takes_increment: bool = False
    """True when the last argument may say by how much the bucket grows."""


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
        AggFunc("lquantize", 0, (), _add, takes_increment=True),
        AggFunc("llquantize", 0, (), _add, takes_increment=True),
    )
}

KeyPartKind = Literal["int", "uint", "string", "probe", "stack"]
"""How a part of a key is stored.

- ``int``, ``uint``: one word, already extended to 64 bits
- ``string``: bytes padded with NULs
- ``probe``: one word, the probe's ID; the consumer shows a part of the probe's name instead
- ``stack``: 8-byte addresses, innermost first, padded with zeros
"""


@record
class KeyPart:
    """A part of an aggregation's key, 8-byte aligned in memory."""

    kind: KeyPartKind
    """How it is stored."""
    size: int = 8
    """Bytes in memory; 8 times n for ``stack(n)``."""
    bits: int = 64
    """The width of an integer's D type, for printing."""
    detail: str = ""
    """How the consumer shows it, beyond ``kind``.

    - ``probe``: the built-in whose value is shown, such as ``probefunc``
    - ``stack``: ``ustack`` for a user stack, else empty
    - ``uint`` that is an address: ``sym``, ``func``, ``mod``, ``usym``, ``ufunc``, ``umod`` or ``uaddr``
    - otherwise empty
    """

    @property
    def words(self) -> int:
        """How many 64-bit words it takes in memory."""
        return -(-self.size // 8)


@record
class AggPlan:
    """An aggregation of a program."""

    index: int
    """Its index among the program's aggregations."""
    name: str
    """Its name without the ``@``; empty for ``@`` itself."""
    func: AggFuncName
    """Its aggregating function."""
    keys: tuple[KeyPart, ...]
    """The parts of its key, in order; empty for an aggregation without a key."""
    params: tuple[int, ...] = ()
    """Base, limit and step of ``lquantize``; factor, low and high magnitude, and steps of ``llquantize``."""

    @property
    def words(self) -> int:
        """How many words a value has."""
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
        """Return two values merged into one."""
        return AGG_FUNCS[self.func].merge(a, b)

    def since(self, now: Sequence[int], before: Sequence[int]) -> Words:
        """Return what was added to a value between two readings; for ``min`` and ``max`` return the later reading."""
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
        """How many words the whole key has."""
        return sum(k.words for k in self.keys)

    @property
    def constant_keyed(self) -> bool:
        """True when the probe alone decides the key, so that each site can have its own value."""
        return all(k.kind == "probe" for k in self.keys)


AggKey = tuple[int | str | bytes, ...]
"""A key as the consumer has it: integers, parts of the probe's name (str), and strings and stacks (bytes)."""


@lru_cache(maxsize=64)
def _log_linear(params: tuple[int, ...]) -> LogLinear:
    return LogLinear(*params)


def datum(plan: AggPlan, value: int | None, increment: int = 1) -> Words:
    """Return the words of a value that has had one datum only.

    ``value``: the datum, None for ``count()``. ``increment``: by how much the bucket of a histogram grows.
    """
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
