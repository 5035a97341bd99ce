"""Compute arithmetic on constants: 64 bits, wrapping, exactly as both engines compute it at run time.

compute("add", 2**63 - 1, 1, signed=True)   ->  -2**63
compute("div", -2**63, -1, signed=True)     ->  -2**63   (wraps; it does not trap)
compute("shl", 1, 65, signed=True)          ->  2        (the count is taken modulo 64)
"""

from __future__ import annotations

import operator
from collections.abc import Callable

from probekit.lang.typed import ArithOp, CompareOp

__all__ = ("COMPARE", "compute", "signed64", "unsigned64")

_MASK = (1 << 64) - 1


def unsigned64(value: int) -> int:
    """Return the value's low 64 bits, read as unsigned."""
    return value & _MASK


def signed64(value: int) -> int:
    """Return the value's low 64 bits, read as signed."""
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


def _div(a: int, b: int) -> int:
    quotient = abs(a) // abs(b)  # C truncates towards zero
    return quotient if (a < 0) == (b < 0) else -quotient


_OPS: dict[ArithOp, Callable[[int, int], int]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": _div,
    "rem": lambda a, b: a - b * _div(a, b),
    "and": operator.and_,
    "or": operator.or_,
    "xor": operator.xor,
    "shl": lambda a, b: a << (b & 63),
    "shr": lambda a, b: a >> (b & 63),
}

COMPARE: dict[CompareOp, Callable[[int, int], bool]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}


def compute(op: ArithOp, left: int, right: int, *, signed: bool) -> int:
    """Compute one operation on 64 bits. Raises :class:`ZeroDivisionError`.

    ``signed``: how the operands and the result are read.
    """
    read = signed64 if signed else unsigned64
    return read(_OPS[op](read(left), read(right)))
