"""Shapes for print(): each type is described, and what claims too many parts is refused."""

from __future__ import annotations

import pytest

from probekit.buffers.print_types import (
    PrintArray,
    PrintInt,
    PrintMember,
    PrintPointer,
    PrintString,
    PrintStruct,
)
from probekit.lang.shapes import TooManyParts, shape
from probekit.lang.types import (
    ArrayType,
    IntType,
    PointerType,
    StringType,
    StructMember,
    StructType,
    alignof,
)


def test_shapes_are_bounded() -> None:
    with pytest.raises(TooManyParts):
        shape(ArrayType(StructType("struct", "empty"), 1 << 30), 256)
    loop = StructType("struct", "loop", size=8, complete=True)
    loop.members = (StructMember("me", loop, 0),)
    with pytest.raises(TooManyParts):
        shape(loop, 256)
    assert alignof(StructType("struct", "n", (StructMember("me", loop, 0),), 8, align=0)) == 1
    assert shape(ArrayType(IntType("char", 8, True), 1 << 20), 256)


def test_each_type_has_its_shape() -> None:
    char, integer = IntType("char", 8, True), IntType("int", 32, True)
    members = (StructMember("a", integer, 0), StructMember("text", ArrayType(char, 5), 32))
    assert shape(StructType("struct", "p", members, 12, complete=True), 256) == PrintStruct(
        "struct p",
        (
            PrintMember("a", 0, PrintInt("int", 32, True)),
            PrintMember("text", 4, PrintArray("char [5]", PrintInt("char", 8, True, char=True), 5, 1)),
        ),
        12,
    )
    assert shape(PointerType(integer), 256) == PrintPointer("int *")
    assert shape(StringType(64), 256) == PrintString(256), "as long as strings are in this program"


def test_an_int8_t_is_a_number_and_no_character() -> None:
    assert shape(IntType("int8_t", 8, True), 256) == PrintInt("int8_t", 8, True)


def test_a_bit_field_is_read_in_an_integer_of_its_own_type() -> None:
    field = StructMember("b", IntType("unsigned int", 32, False), 37, bit_size=3)
    made = shape(StructType("struct", "s", (field,), 8, complete=True), 256)
    assert made == PrintStruct(
        "struct s", (PrintMember("b", 4, PrintInt("unsigned int", 32, False, bit_offset=5, bit_size=3)),), 8
    )
