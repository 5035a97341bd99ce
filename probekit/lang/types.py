"""D's types and C's conversions between them, LP64.

promote(char)                       ->  int
usual(int, unsigned int)            ->  unsigned int
usual(unsigned int, long)           ->  long
INT32.wrap(2**31)                   ->  -2**31

Integers, pointers and enumerations are values; structs, unions and arrays are
objects that lie in memory and are handled by address; a ``string`` is a value of
its own. A struct is equal only to itself, so recursive types need no care. A guest's
types come from outside: its structs may claim to hold themselves, and are walked with that in mind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, final

from probekit.records import record

__all__ = (
    "CHAR",
    "INT",
    "INT64",
    "LONG",
    "MACHINE_POINTER",
    "SIZE_T",
    "SOFT_NAMES",
    "STRING",
    "STRING_SIZE",
    "TYPE_NAMES",
    "UINT64",
    "VOID",
    "VOID_POINTER",
    "ArrayType",
    "EnumType",
    "FloatType",
    "FuncType",
    "IntType",
    "Member",
    "PointerType",
    "StringType",
    "StructType",
    "SymbolType",
    "Type",
    "VoidType",
    "alignof",
    "bit_place",
    "c_name",
    "is_object",
    "literal_type",
    "promote",
    "same",
    "sizeof",
    "usual",
)

STRING_SIZE = 256
"""Bytes of a string with its NUL: DTrace's default ``strsize``."""

POINTER_BYTES = 8


@final
@record
class IntType:
    """An integer of 8, 16, 32 or 64 bits. ``name``: as messages show it; ``means``: what a typedef of it stands for."""

    name: str
    bits: int
    signed: bool
    means: str = ""

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
@record
class FloatType:
    """A floating-point type: it can be declared and measured, never computed with."""

    name: str
    size: int

    def __str__(self) -> str:
        return self.name


@final
@record
class StringType:
    """D's ``string``. ``size``: the most bytes a value has, with its NUL."""

    size: int = STRING_SIZE

    def __str__(self) -> str:
        return "string"


@final
@record
class VoidType:
    """``void``: the type of an action."""

    def __str__(self) -> str:
        return "void"


@final
@record
class SymbolType:
    """What ``sym()``, ``stack()`` and their kin return: only actions and keys know what to do with it."""

    name: str

    def __str__(self) -> str:
        return f"<{self.name}>"


@final
@record
class PointerType:
    """A pointer."""

    to: Type

    def __str__(self) -> str:
        if isinstance(self.to, FuncType):
            return self.to.shown("(*)")
        inner = str(self.to)
        return f"{inner}*" if inner.endswith("*") else f"{inner} *"


@final
@record
class ArrayType:
    """An array of ``count`` elements."""

    of: Type
    count: int

    def __str__(self) -> str:
        return f"{self.of} [{self.count}]"


@final
@record
class Member:
    """A member of a struct or union. ``offset``: bits from its start; ``bit_size``: of a bit-field, else None."""

    name: str
    type: Type
    offset: int
    bit_size: int | None = None


@final
@dataclass(eq=False, slots=True)
class StructType:
    """A struct or union; without members until it is completed. ``alias``: the typedef that names an anonymous one.

    ``members``: of a guest's struct, made when first looked at. ``align``: 0 where only the members can tell.
    """

    kind: Literal["struct", "union"]
    name: str
    members: Sequence[Member] = field(default=(), repr=False)
    size: int = 0
    align: int = 1
    complete: bool = False
    alias: str = ""

    def find(self, name: str) -> Member | None:
        """The member, also through anonymous structs and unions; its offset is from the start of this one."""
        return self._find(name, set())

    def _find(self, name: str, seen: set[int]) -> Member | None:
        if id(self) in seen:
            return None
        seen.add(id(self))
        for member in self.members:
            if member.name == name:
                return member
            if not member.name and isinstance(member.type, StructType):
                inner = member.type._find(name, seen)
                if inner is not None:
                    return Member(inner.name, inner.type, member.offset + inner.offset, inner.bit_size)
        return None

    def __str__(self) -> str:
        return f"{self.kind} {self.name}" if self.name else self.alias or f"{self.kind} (anonymous)"


@final
@dataclass(eq=False, slots=True)
class EnumType:
    """An enumeration: an ``int`` with names; a guest's may have another size, in bytes."""

    name: str
    values: tuple[tuple[str, int], ...] = ()
    complete: bool = False
    size: int = 4
    signed: bool = True

    def __str__(self) -> str:
        return f"enum {self.name or '(anonymous)'}"


@final
@record
class FuncType:
    """A function."""

    result: Type
    params: tuple[Type, ...]
    variadic: bool = False

    def shown(self, name: str) -> str:
        """As C writes it around ``name``, without the declaration of arrays and functions that it returns."""
        shown = ", ".join([*map(str, self.params), *(["..."] if self.variadic else [])])
        return f"{self.result} {name}({shown or 'void'})"

    def __str__(self) -> str:
        return self.shown("")


Type = (
    IntType
    | FloatType
    | StringType
    | VoidType
    | SymbolType
    | PointerType
    | ArrayType
    | StructType
    | EnumType
    | FuncType
)

CHAR = IntType("char", 8, True)
INT = IntType("int", 32, True)
UINT = IntType("unsigned int", 32, False)
INT64 = IntType("int64_t", 64, True)
UINT64 = IntType("uint64_t", 64, False)
LONG = IntType("long", 64, True)
ULONG = IntType("unsigned long", 64, False)
LONG_LONG = IntType("long long", 64, True)
ULONG_LONG = IntType("unsigned long long", 64, False)
SIZE_T = IntType("size_t", 64, False)
MACHINE_POINTER = IntType("uintptr_t", 64, False)
"""What an address is once types no longer matter."""
STRING = StringType()
VOID = VoidType()
VOID_POINTER = PointerType(VOID)

_INTEGER_NAMES: tuple[tuple[str, int, bool], ...] = (
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
    ("ptrdiff_t", 64, True),
    ("off_t", 64, True),
    ("pid_t", 32, True),
    ("uid_t", 32, False),
    ("gid_t", 32, False),
    ("id_t", 32, True),
    ("dev_t", 32, False),
    ("major_t", 32, False),
    ("minor_t", 32, False),
    ("mode_t", 32, False),
    ("time_t", 64, True),
    ("clock_t", 64, True),
    ("hrtime_t", 64, True),
    ("zoneid_t", 32, True),
    ("processorid_t", 32, True),
    ("ipaddr_t", 32, False),
    ("uchar_t", 8, False),
    ("ushort_t", 16, False),
    ("uint_t", 32, False),
    ("ulong_t", 64, False),
    ("longlong_t", 64, True),
    ("u_longlong_t", 64, False),
)

IN6_ADDR = StructType("struct", "in6_addr", (Member("s6_addr", ArrayType(IntType("uint8_t", 8, False), 16), 0),), 16)
IN6_ADDR.complete = True

TYPE_NAMES: dict[str, Type] = {
    **{name: IntType(name, bits, signed) for name, bits, signed in _INTEGER_NAMES},
    "in6_addr_t": IN6_ADDR,
}
"""The typedefs that D has without any guest."""


SOFT_NAMES = frozenset(
    (
        *("clock_t", "dev_t", "hrtime_t", "in6_addr_t", "ipaddr_t", "major_t", "minor_t", "mode_t", "off_t"),
        *("processorid_t", "time_t", "zoneid_t"),
    )
)
"""Those that come from a kernel or library, which a script may define for itself."""


def is_object(t: Type) -> bool:
    """True for what lies in memory and is handled by its address."""
    return isinstance(t, (StructType, ArrayType))


def same(a: Type, b: Type) -> bool:
    """True when the two have the same values and representation (names of integers do not count)."""
    match a, b:
        case IntType(), IntType():
            return (a.bits, a.signed) == (b.bits, b.signed)
        case StringType(), StringType():
            return True
        case PointerType(), PointerType():
            return same(a.to, b.to)
        case ArrayType(), ArrayType():
            return a.count == b.count and same(a.of, b.of)
        case StructType(), StructType():
            return a is b or (bool(a.name) and (a.kind, a.name) == (b.kind, b.name))
        case FuncType(), FuncType():
            return (
                same(a.result, b.result)
                and len(a.params) == len(b.params)
                and a.variadic == b.variadic
                and all(same(x, y) for x, y in zip(a.params, b.params, strict=True))
            )
        case _:
            return a == b


def sizeof(t: Type, string_size: int = STRING_SIZE) -> int:
    """Bytes of a value; 0 for what has no size. ``string_size``: of a ``string``, whatever a single value has."""
    match t:
        case IntType():
            return t.bits // 8
        case PointerType():
            return POINTER_BYTES
        case EnumType():
            return t.size
        case StringType():
            return string_size
        case ArrayType():
            return t.count * sizeof(t.of, string_size)
        case StructType() | FloatType():
            return t.size
        case VoidType() | FuncType() | SymbolType():
            return 0


def alignof(t: Type) -> int:
    """Bytes that an object of the type is aligned to."""
    match t:
        case ArrayType():
            return alignof(t.of)
        case StructType():
            if not t.align:
                t.align = 1  # a struct that claims to hold itself ends here
                t.align = max((alignof(m.type) for m in t.members), default=1)
            return t.align
        case StringType() | VoidType() | FuncType() | SymbolType():
            return 1
        case _:
            return min(sizeof(t), 16)


def bit_place(member: Member) -> tuple[int, int, int]:
    """Where a bit-field is read: byte offset, bits of the integer there (8 to 64, or more than fits), first bit in it.

    As a rule an integer of its own type; where a packed struct lays it across two of them, the smallest that covers it.
    """
    bits, unit = member.bit_size or 0, sizeof(member.type) * 8
    at = member.offset // unit * unit
    if member.offset - at + bits > unit:
        at = member.offset // 8 * 8
        unit = 8
        while unit < member.offset - at + bits:
            unit *= 2
    return at // 8, unit, member.offset - at


def promote(t: IntType) -> IntType:
    """C's integer promotion: anything narrower than ``int`` becomes ``int``."""
    return INT if t.bits < 32 else t


def usual(a: IntType, b: IntType) -> IntType:
    """C's usual arithmetic conversions: the type both operands are converted to."""
    a, b = promote(a), promote(b)
    if a.bits != b.bits:
        return a if a.bits > b.bits else b
    return a if not a.signed or b.signed else b


_LONG_LONGS = frozenset(("long long", "longlong_t", "unsigned long long", "u_longlong_t"))


def c_name(t: IntType) -> str:
    """C's own name of an integer type, whatever typedef it has: ``int64_t`` is a ``long``."""
    if t.name in _LONG_LONGS or t.means in _LONG_LONGS:
        return "long long" if t.signed else "unsigned long long"
    name = {8: "char", 16: "short", 32: "int", 64: "long"}[t.bits]
    return name if t.signed else f"unsigned {name}"


def literal_type(value: int, *, decimal: bool, unsigned: bool, longs: int) -> IntType | None:
    """The type of an integer constant: the first in C's list that holds it; None when none does."""
    candidates = (INT, UINT, LONG, ULONG, LONG_LONG, ULONG_LONG)
    for t in candidates[2 * longs :]:
        if t.signed and unsigned:
            continue
        if not t.signed and decimal and not unsigned:
            continue
        if t.holds(value):
            return t
    return None
