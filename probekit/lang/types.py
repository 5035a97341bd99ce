"""Define D's types and C's conversions between them, for LP64.

promote(char)                       ->  int
usual(int, unsigned int)            ->  unsigned int
usual(unsigned int, long)           ->  long
INT32.wrap(2**31)                   ->  -2**31

Integers, pointers and enumerations are values. Structs, unions and arrays are objects: they lie in memory and are
handled by address. A ``string`` is a value of its own kind. A struct equals only itself, so recursive types compare
safely. A guest's types come from outside: its structs may claim to contain themselves, and every walk allows for it.
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
    "REDEFINABLE_NAMES",
    "SIZE_T",
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
    "PointerType",
    "StringType",
    "StructMember",
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
    """An integer of 8, 16, 32 or 64 bits."""

    name: str
    """As messages show it."""
    bits: int
    """8, 16, 32 or 64."""
    signed: bool
    means: str = ""
    """For a typedef, the name of the integer type that it stands for."""

    def wrap(self, value: int) -> int:
        """Reduce ``value`` to this type, as C converts it."""
        value &= (1 << self.bits) - 1
        return value - (1 << self.bits) if self.signed and value >> (self.bits - 1) else value

    def holds(self, value: int) -> bool:
        """Tell whether the type can represent ``value``."""
        return self.wrap(value) == value

    def __str__(self) -> str:
        return self.name


@final
@record
class FloatType:
    """A floating-point type. It can be declared and has a size; D never computes with it."""

    name: str
    size: int
    """Bytes."""

    def __str__(self) -> str:
        return self.name


@final
@record
class StringType:
    """D's ``string``."""

    size: int = STRING_SIZE
    """The most bytes of a value, with its NUL."""

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
    """The result of ``sym()``, ``stack()`` and similar functions, which only actions and keys accept."""

    name: str
    """The function, which decides how the value is shown."""

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
    """0 for an array without a size, the last member of its struct."""

    def __str__(self) -> str:
        return f"{self.of} [{self.count}]"


@final
@record
class StructMember:
    """A member of a struct or union."""

    name: str
    """Empty for an anonymous struct or union."""
    type: Type
    offset: int
    """Bits from the start of the struct."""
    bit_size: int | None = None
    """The width of a bit-field, else None."""


@final
@dataclass(eq=False, slots=True)
class StructType:
    """A struct or union. It has no members until it is complete."""

    kind: Literal["struct", "union"]
    name: str
    members: Sequence[StructMember] = field(default=(), repr=False)
    """The members of a guest's struct are converted when they are first looked at."""
    size: int = 0
    """Bytes."""
    align: int = 1
    """Bytes; 0 for a guest's struct, whose alignment :func:`alignof` computes from its members."""
    complete: bool = False
    """Its members and size are known."""
    alias: str = ""
    """The typedef that names an anonymous struct."""

    def find(self, name: str) -> StructMember | None:
        """Return a member, or None; also one inside an anonymous struct or union.

        Its offset is from the start of this struct.
        """
        return self._find(name, set())

    def _find(self, name: str, seen: set[int]) -> StructMember | None:
        if id(self) in seen:
            return None
        seen.add(id(self))
        for member in self.members:
            if member.name == name:
                return member
            if not member.name and isinstance(member.type, StructType):
                inner = member.type._find(name, seen)
                if inner is not None:
                    return StructMember(inner.name, inner.type, member.offset + inner.offset, inner.bit_size)
        return None

    def __str__(self) -> str:
        return f"{self.kind} {self.name}" if self.name else self.alias or f"{self.kind} (anonymous)"


@final
@dataclass(eq=False, slots=True)
class EnumType:
    """An enumeration: an ``int`` with names."""

    name: str
    values: tuple[tuple[str, int], ...] = ()
    """Name and value of each enumerator."""
    complete: bool = False
    """Its enumerators are known."""
    size: int = 4
    """Bytes; an enumeration of a guest may have another size than an ``int``."""
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
        """Return the type as C writes it around ``name``; a result that is an array or function is simplified."""
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
"""The type of an address in the checked program, where pointer types no longer matter."""
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

IN6_ADDR = StructType(
    "struct", "in6_addr", (StructMember("s6_addr", ArrayType(IntType("uint8_t", 8, False), 16), 0),), 16
)
IN6_ADDR.complete = True

TYPE_NAMES: dict[str, Type] = {
    **{name: IntType(name, bits, signed) for name, bits, signed in _INTEGER_NAMES},
    "_Bool": IntType("_Bool", 8, False),
    "in6_addr_t": IN6_ADDR,
}
"""The typedefs that D has without any guest."""


REDEFINABLE_NAMES = frozenset(
    (
        *("clock_t", "dev_t", "hrtime_t", "in6_addr_t", "ipaddr_t", "major_t", "minor_t", "mode_t", "off_t"),
        *("processorid_t", "time_t", "zoneid_t"),
    )
)
"""Typedefs that come from a kernel or library in DTrace, which a script may define itself."""


def is_object(t: Type) -> bool:
    """Tell whether a value lies in memory and is handled by its address."""
    return isinstance(t, (StructType, ArrayType))


def same(a: Type, b: Type) -> bool:
    """Tell whether two types have the same values and representation. Names of integers do not count."""
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
    """Return the bytes of a value; 0 for a type that has no size.

    ``string_size``: the bytes of every ``string``, whatever its ``StringType`` says.
    """
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
    """Return the alignment of an object, in bytes."""
    match t:
        case ArrayType():
            return alignof(t.of)
        case StructType():
            if not t.align:
                t.align = 1  # ends the recursion of a struct that claims to contain itself
                t.align = max((alignof(m.type) for m in t.members), default=1)
            return t.align
        case StringType() | VoidType() | FuncType() | SymbolType():
            return 1
        case _:
            return min(sizeof(t), 16)


def bit_place(member: StructMember) -> tuple[int, int, int]:
    """Return where to read a bit-field: byte offset, bits of the integer there, and its first bit in that integer.

    As a rule the integer has the bit-field's own type. Where a packed struct lays the bit-field across two of those, it
    is the smallest integer that covers it (8, 16, 32 or 64 bits; more if it covers more than eight bytes).
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
    """Apply C's integer promotion: a type narrower than ``int`` becomes ``int`` (C11 6.3.1.1)."""
    return INT if t.bits < 32 else t


def usual(a: IntType, b: IntType) -> IntType:
    """Apply C's usual arithmetic conversions: return the type of the result (C11 6.3.1.8)."""
    a, b = promote(a), promote(b)
    if a.bits != b.bits:
        return a if a.bits > b.bits else b
    return a if not a.signed or b.signed else b


_LONG_LONGS = frozenset(("long long", "longlong_t", "unsigned long long", "u_longlong_t"))


def c_name(t: IntType) -> str:
    """Return C's own name of an integer type, under any typedef: ``int64_t`` is a ``long``."""
    if t.name in _LONG_LONGS or t.means in _LONG_LONGS:
        return "long long" if t.signed else "unsigned long long"
    name = {8: "char", 16: "short", 32: "int", 64: "long"}[t.bits]
    return name if t.signed else f"unsigned {name}"


def literal_type(value: int, *, decimal: bool, unsigned: bool, longs: int) -> IntType | None:
    """Return the type of an integer constant: the first in C's list that holds it (C11 6.4.4.1), or None.

    ``decimal``: it was not written in octal or hexadecimal. ``unsigned``, ``longs``: its suffix.
    """
    candidates = (INT, UINT, LONG, ULONG, LONG_LONG, ULONG_LONG)
    for t in candidates[2 * longs :]:
        if t.signed and unsigned:
            continue
        if not t.signed and decimal and not unsigned:
            continue
        if t.holds(value):
            return t
    return None
