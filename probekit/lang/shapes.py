"""Describe D types for ``print()``, in the shapes of :mod:`probekit.buffers.actions`."""

from __future__ import annotations

from probekit.buffers.print_types import (
    PrintArray,
    PrintEnum,
    PrintInt,
    PrintMember,
    PrintPointer,
    PrintString,
    PrintStruct,
    PrintType,
)
from probekit.lang.types import (
    ArrayType,
    EnumType,
    FloatType,
    IntType,
    StringType,
    StructMember,
    StructType,
    Type,
    bit_place,
    sizeof,
)

__all__ = ("MOST_PARTS", "TooManyParts", "shape")

MOST_PARTS = 50_000
"""The most members and elements that one ``print()`` may show. A ``struct task_struct`` has about 2,000."""

_CHARS = frozenset(("char", "signed char", "unsigned char"))


class TooManyParts(Exception):
    """The type has more parts than :data:`MOST_PARTS`, or claims to contain itself."""


def shape(t: Type, string_size: int) -> PrintType:
    """Return the shape of a type that has a size. Raises :class:`TooManyParts`."""
    return _Shapes(string_size).of(t)[0]


class _Shapes:
    """Makes the shape of each struct once, and counts its parts."""

    def __init__(self, string_size: int) -> None:
        self._string_size = string_size
        self._structs: dict[StructType, tuple[PrintType, int] | None] = {}

    def of(self, t: Type) -> tuple[PrintType, int]:
        match t:
            case IntType():
                return PrintInt(t.name, t.bits, t.signed, char=t.name in _CHARS), 1
            case EnumType():
                return PrintEnum(str(t), 8 * t.size, t.values), 1
            case StringType():
                return PrintString(self._string_size), 1
            case ArrayType():
                element, parts = self.of(t.of)
                total = 1 if isinstance(element, PrintInt) and element.char else max(parts * t.count, 1)
                if total > MOST_PARTS:
                    raise TooManyParts
                return PrintArray(str(t), element, t.count, sizeof(t.of, self._string_size)), total
            case StructType():
                return self._struct(t)
            case FloatType():
                return PrintArray(str(t), PrintInt("unsigned char", 8, False), t.size, 1), t.size
            case _:
                return PrintPointer(str(t)), 1

    def _struct(self, t: StructType) -> tuple[PrintType, int]:
        if t not in self._structs:
            self._structs[t] = None
            members: list[PrintMember] = []
            total = 1
            for member in t.members:
                made, parts = self._member(member)
                members.append(made)
                total += parts
                if total > MOST_PARTS:
                    raise TooManyParts
            self._structs[t] = PrintStruct(str(t), tuple(members), t.size), total
        found = self._structs[t]
        if found is None:
            raise TooManyParts
        return found

    def _member(self, member: StructMember) -> tuple[PrintMember, int]:
        if member.bit_size is None:
            made, parts = self.of(member.type)
            return PrintMember(member.name, member.offset // 8, made), parts
        at, unit, shift = bit_place(member)
        signed = member.type.signed if isinstance(member.type, IntType) else True
        field = PrintInt(str(member.type), unit, signed, bit_offset=shift, bit_size=member.bit_size)
        return PrintMember(member.name, at, field), 1
