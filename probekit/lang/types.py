"""D's types and C's conversions between them, LP64.

promote(char)                       ->  int
usual(int, unsigned int)            ->  unsigned int
usual(unsigned int, long)           ->  long
INT32.wrap(2**31)                   ->  -2**31
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

__all__ = (
    "INT",
    "INT64",
    "STRING",
    "STRING_SIZE",
    "TYPE_NAMES",
    "UINT64",
    "VOID",
    "IntType",
    "StringType",
    "Type",
    "VoidType",
    "literal_type",
    "promote",
    "same",
    "usual",
)

STRING_SIZE = 256
"""Bytes of a string with its NUL: DTrace's default ``strsize``."""


@final
@dataclass(frozen=True, slots=True)
class IntType:
    """An integer of 8, 16, 32 or 64 bits. ``name``: as messages show it."""

    name: str
    bits: int
    signed: bool

    def wrap(self, value: int) -> int:
        """``value`` reduced to this type, as C converts it."""
        value &= (1 << self.bits) - 1
        return value - (1 << self.bits) if self.signed and value >> (self.bits - 1) else value

    def holds(self, value: int) -> bool:
        """True when the type can represent ``value``."""
        return self.wrap(value) == value

    def __str__(self) -> str:
        return self.name


@final
@dataclass(frozen=True, slots=True)
class StringType:
    """D's ``string``. ``size``: the most bytes a value has, with its NUL."""

    size: int = STRING_SIZE

    def __str__(self) -> str:
        return "string"


@final
@dataclass(frozen=True, slots=True)
class VoidType:
    """``void``: the type of an action."""

    def __str__(self) -> str:
        return "void"


Type = IntType | StringType | VoidType

INT = IntType("int", 32, True)
UINT = IntType("unsigned int", 32, False)
INT64 = IntType("int64_t", 64, True)
UINT64 = IntType("uint64_t", 64, False)
LONG = IntType("long", 64, True)
ULONG = IntType("unsigned long", 64, False)
STRING = StringType()
VOID = VoidType()

TYPE_NAMES: dict[str, IntType] = {
    name: IntType(name, bits, signed)
    for name, bits, signed in (
        ("int8_t", 8, True),
        ("int16_t", 16, True),
        ("int32_t", 32, True),
        ("int64_t", 64, True),
        ("intptr_t", 64, True),
        ("uint8_t", 8, False),
        ("uint16_t", 16, False),
        ("uint32_t", 32, False),
        ("uint64_t", 64, False),
        ("uintptr_t", 64, False),
        ("size_t", 64, False),
        ("ssize_t", 64, True),
        ("off_t", 64, True),
        ("pid_t", 32, True),
        ("uid_t", 32, False),
        ("gid_t", 32, False),
        ("id_t", 32, True),
        ("dev_t", 32, False),
        ("hrtime_t", 64, True),
        ("uchar_t", 8, False),
        ("ushort_t", 16, False),
        ("uint_t", 32, False),
        ("ulong_t", 64, False),
        ("longlong_t", 64, True),
        ("u_longlong_t", 64, False),
    )
}
"""The typedefs that D has without any guest."""


def same(a: Type, b: Type) -> bool:
    """True when the two have the same values and representation (names do not count)."""
    match a, b:
        case IntType(), IntType():
            return (a.bits, a.signed) == (b.bits, b.signed)
        case _:
            return type(a) is type(b)


def promote(t: IntType) -> IntType:
    """C's integer promotion: anything narrower than ``int`` becomes ``int``."""
    return INT if t.bits < 32 else t


def usual(a: IntType, b: IntType) -> IntType:
    """C's usual arithmetic conversions: the type both operands are converted to."""
    a, b = promote(a), promote(b)
    if a.bits != b.bits:
        return a if a.bits > b.bits else b
    return a if not a.signed or b.signed else b


def literal_type(value: int, *, decimal: bool, unsigned: bool, longs: int) -> IntType | None:
    """The type of an integer constant: the first in C's list that holds it; None when none does."""
    candidates = (INT, UINT, LONG, ULONG)
    for t in candidates:
        if longs and t.bits < 64:
            continue
        if t.signed and unsigned:
            continue
        # D, as C before C99, lets a decimal constant that no signed type holds be unsigned long.
        if not t.signed and decimal and not unsigned and t is not ULONG:
            continue
        if t.holds(value):
            return t
    return None
