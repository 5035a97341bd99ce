"""D types as ``print()`` shows them: :mod:`probekit.buffers.actions` shapes, bounded in depth and number."""

from __future__ import annotations

from probekit.buffers.actions import (
    PrintArray,
    PrintEnum,
    PrintInt,
    PrintMember,
    PrintPointer,
    PrintString,
    PrintStruct,
    PrintType,
)
from probekit.lang.types import ArrayType, EnumType, IntType, Member, StringType, StructType, Type, sizeof

__all__ = ("shape",)

_CHARS = frozenset(("char", "signed char", "unsigned char"))


def shape(t: Type, string_size: int) -> PrintType:
    """The shape of a type with a size."""
    match t:
        case IntType():
            return PrintInt(t.name, t.bits, t.signed, char=t.name in _CHARS)
        case EnumType():
            return PrintEnum(str(t), 32, t.values)
        case StringType():
            return PrintString(string_size)
        case ArrayType():
            stride = sizeof(t.of, string_size)
            return PrintArray(str(t), shape(t.of, string_size), t.count, stride)
        case StructType():
            members = tuple(_member(m, string_size) for m in t.members)
            return PrintStruct(str(t), members, t.size)
        case _:
            return PrintPointer(str(t))


def _member(member: Member, string_size: int) -> PrintMember:
    if member.bit_size is None:
        return PrintMember(member.name, member.offset // 8, shape(member.type, string_size))
    bits = sizeof(member.type) * 8
    at = member.offset // bits * bits
    signed = member.type.signed if isinstance(member.type, IntType) else True
    field = PrintInt(str(member.type), bits, signed, bit_offset=member.offset - at, bit_size=member.bit_size)
    return PrintMember(member.name, at // 8, field)
