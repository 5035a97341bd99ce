"""Writes memory as text: the table of ``tracemem()``, bytes of ``trace()``, and the typed form of ``print()``.

hexdump(b"hello")   ->            0  1  2 ...  e  f  0123456789abcdef
                             0: 68 65 6c 6c 6f       hello
typed_lines(struct) ->  (struct point) {
                         .x = (int)1,
                        }
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

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
from probekit.consumer.text.strings import decode

__all__ = ("hexdump", "looks_like_text", "typed_lines")

_MARGIN = 5
_ROW = 16
_TEXT = frozenset(range(0x20, 0x7F)) | frozenset(b"\a\b\t\n\v\f\r")
_DIGITS = "0123456789abcdef"


def looks_like_text(data: bytes) -> str | None:
    """Return bytes as text, without the NULs at their end; None if they do not look like text.

    Bytes that begin with a NUL do not look like text, as in dtrace.
    """
    text = data.rstrip(b"\0")
    if not text or not _TEXT.issuperset(text):
        return None
    return text.decode("ascii")


def hexdump(data: bytes) -> str:
    """Return a table with a line for each 16 bytes: offset, hexadecimal, characters. It starts with a newline."""
    lines = ["", f"{'':{_MARGIN}}      " + "".join(f"  {digit}" for digit in _DIGITS) + "  " + _DIGITS]
    for at in range(0, len(data), _ROW):
        row = data[at : at + _ROW]
        numbers = "".join(f" {byte:02x}" for byte in row).ljust(3 * _ROW)
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
        lines.append(f"{'':{_MARGIN}}{at:>5x}:{numbers}  {text}")
    return "\n".join(lines) + "\n"


def typed_lines(kind: PrintType, data: bytes) -> Iterator[str]:
    """Yield the lines of a value with its type. Members that are zero are left out, as dtrace does."""
    yield from _lines(kind, data, "", "", 0)


def _lines(kind: PrintType, data: bytes, label: str, end: str, depth: int) -> Iterator[str]:
    pad = " " * depth
    match kind:
        case PrintStruct(name=name, members=members):
            yield f"{pad}{label}({name}) {{"
            for member in members:
                yield from _member(member, data, depth + 1)
            yield f"{pad}}}{end}"
        case PrintArray(name=name, element=PrintInt(char=True)):
            yield f'{pad}{label}({name})"{decode(data)}"{end}'
        case PrintArray(name=name, element=element):
            yield f"{pad}{label}({name}) ["
            for part in _elements(kind, data):
                if any(part):
                    yield from _lines(element, part, "", ",", depth + 1)
            yield f"{pad}]{end}"
        case _:
            yield f"{pad}{label}{_scalar(kind, data)}{end}"


def _member(member: PrintMember, data: bytes, depth: int) -> Iterator[str]:
    part = data[member.offset : member.offset + _size(member.type)]
    label = f".{member.name} = " if member.name else ""
    if isinstance(member.type, PrintInt) and member.type.bit_size:
        if _integer(member.type, part):
            yield from _lines(member.type, part, label, ",", depth)
    elif any(part):
        yield from _lines(member.type, part, label, ",", depth)


def _elements(kind: PrintArray, data: bytes) -> Iterator[bytes]:
    for i in range(kind.count):
        at = i * kind.stride
        if at >= len(data):
            return
        yield data[at : at + kind.stride]


def _size(kind: PrintType) -> int:
    match kind:
        case PrintInt(bits=bits) | PrintEnum(bits=bits):
            return bits // 8
        case PrintPointer():
            return 8
        case PrintString(size=size) | PrintStruct(size=size):
            return size
        case PrintArray(count=count, stride=stride):
            return count * stride
        case _:
            assert_never(kind)


def _integer(kind: PrintInt, data: bytes) -> int:
    value = int.from_bytes(data[: kind.bits // 8], "little")
    bits = kind.bits
    if kind.bit_size:
        value >>= kind.bit_offset
        bits = kind.bit_size
    value &= (1 << bits) - 1
    return value - (1 << bits) if kind.signed and bits and value >> (bits - 1) else value


def _scalar(kind: PrintInt | PrintEnum | PrintPointer | PrintString, data: bytes) -> str:
    match kind:
        case PrintInt(name=name):
            value = _integer(kind, data)
            shown = f"'{chr(value)}'" if kind.char and 0x20 <= value < 0x7F else str(value)
            return f"({name}){shown}"
        case PrintEnum(name=name, bits=bits, values=values):
            value = int.from_bytes(data[: bits // 8], "little", signed=True)
            named = {number: word for word, number in values}
            return f"({name}){named.get(value, value)}"
        case PrintPointer(name=name):
            return f"({name})0x{int.from_bytes(data[:8], 'little'):x}"
        case PrintString(name=name):
            return f'({name})"{decode(data)}"'
        case _:
            assert_never(kind)
