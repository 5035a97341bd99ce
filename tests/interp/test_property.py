"""Random expressions: front end, lowering and evaluator against C's rules as ctypes has them.

The oracle shares no code with the product: it knows C's promotions, its own
operators, and lets ctypes wrap.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from probekit.buffers.layout import FaultKind
from probekit.ir.build import compile_program
from probekit.ir.verify import verify_program
from probekit.lang.diagnostics import CompileError
from tests.interp.worlds import World

_CTYPES: dict[tuple[int, bool], Any] = {
    (8, True): ctypes.c_int8,
    (8, False): ctypes.c_uint8,
    (16, True): ctypes.c_int16,
    (16, False): ctypes.c_uint16,
    (32, True): ctypes.c_int32,
    (32, False): ctypes.c_uint32,
    (64, True): ctypes.c_int64,
    (64, False): ctypes.c_uint64,
}
_CASTS = {
    "char": (8, True),
    "unsigned char": (8, False),
    "int16_t": (16, True),
    "unsigned short": (16, False),
    "int": (32, True),
    "unsigned": (32, False),
    "long": (64, True),
    "uint64_t": (64, False),
}


@dataclass(frozen=True)
class Num:
    """A C value: what it is, and its type."""

    value: int
    bits: int
    signed: bool

    def to(self, bits: int, signed: bool) -> Num:
        return Num(_CTYPES[bits, signed](self.value).value, bits, signed)


Env = tuple[int, ...]
Expr = tuple[str, Callable[[Env], Num]]


def _promoted(a: Num) -> Num:
    return a.to(32, True) if a.bits < 32 else a


def _balanced(a: Num, b: Num) -> tuple[Num, Num]:
    a, b = _promoted(a), _promoted(b)
    bits = max(a.bits, b.bits)
    signed = all(x.signed for x in (a, b) if x.bits == bits)
    return a.to(bits, signed), b.to(bits, signed)


def _truncated(a: int, b: int) -> int:
    q = abs(a) // abs(b)
    return q if (a >= 0) == (b >= 0) else -q


_ARITH: dict[str, Callable[[int, int], int]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": _truncated,
    "%": lambda a, b: a - b * _truncated(a, b),
    "&": lambda a, b: a & b,
    "|": lambda a, b: a | b,
    "^": lambda a, b: a ^ b,
}
_COMPARE: dict[str, Callable[[int, int], bool]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def _flag(held: bool) -> Num:
    return Num(int(held), 32, True)


def _apply(op: str, left: Callable[[Env], Num], right: Callable[[Env], Num], env: Env) -> Num:
    a = left(env)
    if op == "&&":
        return _flag(bool(a.value) and bool(right(env).value))
    if op == "||":
        return _flag(bool(a.value) or bool(right(env).value))
    b = right(env)
    if op == "^^":
        return _flag(bool(a.value) != bool(b.value))
    if op == ",":
        return b
    if op in ("<<", ">>"):
        a, count = _promoted(a), b.value & 63
        return Num(a.value << count if op == "<<" else a.value >> count, a.bits, a.signed).to(a.bits, a.signed)
    x, y = _balanced(a, b)
    if op in _COMPARE:
        return _flag(_COMPARE[op](x.value, y.value))
    return Num(_ARITH[op](x.value, y.value), x.bits, x.signed).to(x.bits, x.signed)


def _unary(op: str, operand: Callable[[Env], Num], env: Env) -> Num:
    a = _promoted(operand(env))
    if op == "!":
        return _flag(not a.value)
    value = {"-": -a.value, "~": ~a.value, "+": a.value}[op]
    return Num(value, a.bits, a.signed).to(a.bits, a.signed)


def _choose(c: Expr, a: Expr, b: Expr, env: Env) -> Num:
    # The type needs both sides, the value only one: a fault on the other must not happen.
    taken, other = (a, b) if c[1](env).value else (b, a)
    value = taken[1](env)
    try:
        shape = other[1](env)
    except ZeroDivisionError:
        shape = _shape(other, env)
    return _balanced(value, shape)[0]


def _shape(expr: Expr, env: Env) -> Num:
    """The type of an expression that faults, found with arguments under which it does not."""
    for n in range(1, 200):
        try:
            return expr[1](tuple(e * 31 + n * 7 + i for i, e in enumerate(env)))
        except ZeroDivisionError:
            continue
    raise _UntypedError


class _UntypedError(Exception):
    """The oracle cannot tell; the example is given up."""


_INTS = st.one_of(
    st.integers(-3, 3), st.integers(-(1 << 63), (1 << 63) - 1), st.sampled_from([(1 << 31) - 1, 1 << 31, -(1 << 31)])
)


def _literal(value: int, suffix: str) -> Expr:
    if suffix == "ul" or value >= 1 << 63:
        bits, signed = 64, False
    elif suffix == "u":
        bits, signed = (32 if value < 1 << 32 else 64), False
    elif suffix == "l":
        bits, signed = 64, True
    else:
        bits, signed = (32 if value < 1 << 31 else 64), True
    return f"{value}{suffix}", lambda env: Num(value, bits, signed)


def _argument(index: int) -> Expr:
    return f"arg{index}", lambda env: Num(env[index], 64, True)


_LEAVES: st.SearchStrategy[Expr] = st.one_of(
    st.builds(_argument, st.integers(0, 3)),
    st.builds(
        _literal,
        st.one_of(st.integers(0, 70), st.integers(0, (1 << 64) - 1)),
        st.sampled_from(["", "u", "l", "ul"]),
    ).filter(lambda e: not (e[0].endswith("l") and not e[0].endswith("ul") and int(e[0][:-1]) >= 1 << 63)),
)


def _bigger(inner: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
    ops = [*_ARITH, *_COMPARE, "<<", ">>", "&&", "||", "^^", ","]
    return st.one_of(
        st.builds(
            lambda op, a, b: (f"({a[0]} {op} {b[0]})", lambda env: _apply(op, a[1], b[1], env)),
            st.sampled_from(ops),
            inner,
            inner,
        ),
        st.builds(
            lambda op, a: (f"({op} {a[0]})", lambda env: _unary(op, a[1], env)), st.sampled_from(list("-~!+")), inner
        ),
        st.builds(
            lambda t, a: (f"(({t}){a[0]})", lambda env: a[1](env).to(*_CASTS[t])), st.sampled_from(list(_CASTS)), inner
        ),
        st.builds(
            # A constant condition chooses while it is compiled, and the type with it: so none is constant.
            lambda c, a, b: (f"({c[0]} && pid == pid ? {a[0]} : {b[0]})", lambda env: _choose(c, a, b, env)),
            inner,
            inner,
            inner,
        ),
    )


_EXPRS = st.recursive(_LEAVES, _bigger, max_leaves=12)


@given(_EXPRS, st.tuples(_INTS, _INTS, _INTS, _INTS))
def test_expressions_compute_what_c_computes(expr: Expr, env: Env) -> None:
    text, oracle = expr
    try:
        program = compile_program(f"BEGIN {{ trace({text}); }}")
    except CompileError as error:
        tags = {d.tag for d in error.diagnostics}
        # A decimal constant has a signed type, so 2^63 (behind a minus, too) is none.
        too_large = any(int(digits) >= 1 << 63 for digits in re.findall(r"\b\d+\b", text))
        assert tags <= {"D_DIV_ZERO", *(["D_INT_OFLOW"] if too_large else [])}
        return
    assert verify_program(program) == []
    (outcome,) = World(program, args=env + (0,) * 6).run()
    try:
        expected = oracle(env)
    except ZeroDivisionError:
        assert outcome.fault is not None
        assert outcome.fault.kind is FaultKind.DIVZERO
        return
    except _UntypedError:
        return
    assert outcome.fault is None
    assert outcome.record is not None
    record = program.clauses[0].record
    assert record is not None
    (place,) = record.fields
    assert (place.size * 8, place.kind == "int") == (expected.bits, expected.signed)
    assert int.from_bytes(outcome.record[: place.size], "little", signed=expected.signed) == expected.value
