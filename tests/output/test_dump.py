"""Memory as text."""

from __future__ import annotations

from probekit.buffers.print_types import PrintArray, PrintEnum, PrintInt, PrintMember, PrintPointer, PrintStruct
from probekit.output.dump import hexdump, looks_like_text, typed_lines

INT = PrintInt("int", 32, True)


def test_a_hexdump() -> None:
    assert hexdump(b"hello, world\0\xff and more") == (
        "\n"
        "             0  1  2  3  4  5  6  7  8  9  a  b  c  d  e  f  0123456789abcdef\n"
        "         0: 68 65 6c 6c 6f 2c 20 77 6f 72 6c 64 00 ff 20 61  hello, world.. a\n"
        "        10: 6e 64 20 6d 6f 72 65                             nd more\n"
    )


def test_what_looks_like_text() -> None:
    assert looks_like_text(b"abc\n\0\0") == "abc\n"
    assert looks_like_text(b"abc") == "abc"
    assert looks_like_text(b"\0\0") is None
    assert looks_like_text(b"a\0b") is None
    assert looks_like_text(b"a\x01\0") is None


def test_a_struct_leaves_out_zeros() -> None:
    point = PrintStruct("struct point", (PrintMember("x", 0, INT), PrintMember("y", 4, INT)), 8)
    assert list(typed_lines(point, b"\xff\xff\xff\xff\0\0\0\0")) == ["(struct point) {", " .x = (int)-1,", "}"]
    outer = PrintStruct(
        "struct outer",
        (
            PrintMember("p", 0, point),
            PrintMember("name", 8, PrintArray("char [4]", PrintInt("char", 8, True, char=True), 4, 1)),
            PrintMember("e", 12, PrintEnum("enum e", 32, (("A", 1),))),
            PrintMember("next", 16, PrintPointer("struct outer *")),
            PrintMember("b", 24, PrintInt("int", 32, True, bit_offset=4, bit_size=3)),
        ),
        32,
    )
    data = b"\1\0\0\0\2\0\0\0ab\0\0\1\0\0\0\x10\0\0\0\0\0\0\0\x70\0\0\0\0\0\0\0"
    assert list(typed_lines(outer, data)) == [
        "(struct outer) {",
        " .p = (struct point) {",
        "  .x = (int)1,",
        "  .y = (int)2,",
        " },",
        ' .name = (char [4])"ab",',
        " .e = (enum e)A,",
        " .next = (struct outer *)0x10,",
        " .b = (int)-1,",
        "}",
    ]


def test_scalars_and_arrays() -> None:
    assert list(typed_lines(INT, b"\5\0\0\0")) == ["(int)5"]
    assert list(typed_lines(PrintInt("char", 8, True, char=True), b"A")) == ["(char)'A'"]
    assert list(typed_lines(PrintArray("int [2]", INT, 2, 4), b"\1\0\0\0\0\0\0\0")) == ["(int [2]) [", " (int)1,", "]"]
