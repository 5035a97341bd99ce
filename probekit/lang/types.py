"""D's types and C's conversions between them, LP64.

promote(char)                       ->  int
usual(int, unsigned int)            ->  unsigned int
usual(unsigned int, long)           ->  long
INT32.wrap(2**31)                   ->  -2**31

Integers, pointers and enumerations are values; structs, unions and arrays are
objects that lie in memory and are handled by address; a ``string`` is a value of
its own. A struct is equal only to itself, so recursive types need no care.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, final

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
class FloatType:
    """A floating-point type: it can be declared and measured, never computed with."""

    name: str
    size: int

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


@final
@dataclass(frozen=True, slots=True)
class SymbolType:
    """What ``sym()``, ``stack()`` and their kin return: only actions and keys know what to do with it."""

    name: str

    def __str__(self) -> str:
        return f"<{self.name}>"


@final
@dataclass(frozen=True, slots=True)
class PointerType:
    """A pointer."""

    to: Type

    def __str__(self) -> str:
        inner = str(self.to)
        return f"{inner}*" if inner.endswith("*") else f"{inner} *"


@final
@dataclass(frozen=True, slots=True)
class ArrayType:
    """An array of ``count`` elements."""

    of: Type
    count: int

    def __str__(self) -> str:
        return f"{self.of} [{self.count}]"


@final
@dataclass(frozen=True, slots=True)
class Member:
    """A member of a struct or union. ``offset``: bits from its start; ``bit_size``: of a bit-field, else None."""

    name: str
    type: Type
    offset: int
    bit_size: int | None = None


@final
@dataclass(eq=False, slots=True)
class StructType:
    """A struct or union; without members until it is completed. ``alias``: the typedef that names an anonymous one."""

    kind: Literal["struct", "union"]
    name: str
    members: tuple[Member, ...] = field(default=(), repr=False)
    size: int = 0
    align: int = 1
    complete: bool = False
    alias: str = ""

    def find(self, name: str) -> Member | None:
        """The member, also through anonymous structs and unions; its offset is from the start of this one."""
        for member in self.members:
            if member.name == name:
                return member
            if not member.name and isinstance(member.type, StructType):
                inner = member.type.find(name)
                if inner is not None:
                    return Member(inner.name, inner.type, member.offset + inner.offset, inner.bit_size)
        return None

    def __str__(self) -> str:
        return f"{self.kind} {self.name}" if self.name else self.alias or f"{self.kind} (anonymous)"


@final
@dataclass(eq=False, slots=True)
class EnumType:
    """An enumeration: an ``int`` with names."""

    name: str
    values: tuple[tuple[str, int], ...] = ()
    complete: bool = False

    def __str__(self) -> str:
        return f"enum {self.name or '(anonymous)'}"


@final
@dataclass(frozen=True, slots=True)
class FuncType:
    """A function."""

    result: Type
    params: tuple[Type, ...]
    variadic: bool = False

    def __str__(self) -> str:
        shown = ", ".join([*map(str, self.params), *(["..."] if self.variadic else [])])
        return f"{self.result} ({shown or 'void'})"


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
            return 4
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
            return t.align
        case StringType() | VoidType() | FuncType() | SymbolType():
            return 1
        case _:
            return min(sizeof(t), 16)


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
