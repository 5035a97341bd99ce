"""Assembly text as data, and back."""

from __future__ import annotations

import pytest

from probekit.isa.asm_syntax import AssembleError, Data, Imm, LabelDef, LabelRef, Mem, Reg, Statement, parse, render


def _items(text: str) -> list[object]:
    return [line.item for line in parse(text)]


def test_a_statement_has_prefixes_a_mnemonic_and_operands() -> None:
    assert _items("LOCK xadd qword ptr gs:[rdx + rcx*8 - 0x10], rax") == [
        Statement("xadd", ("lock",), (Mem(8, "gs", "rdx", "rcx", 8, -16), Reg("rax")))
    ]


def test_statements_are_divided_by_lines_and_semicolons_and_comments_are_left_out() -> None:
    lines = parse("nop; ret # a comment\nagain: jmp again")
    assert [(line.number, line.item) for line in lines] == [
        (1, Statement("nop", (), ())),
        (1, Statement("ret", (), ())),
        (2, LabelDef("again")),
        (2, Statement("jmp", (), (LabelRef("again"),))),
    ]


def test_data_are_numbers_and_labels_of_one_width() -> None:
    assert _items(".quad 1, table") == [Data(8, (Imm(1), LabelRef("table")))]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (".string 1", "not supported"),
        (".byte rax", "neither a number nor a label"),
        ("mov rax, 0x10000000000000000", "64 bits"),
        ("mov rax, huge ptr [rbx]", "is not an operand size"),
        ("mov rax, [rbx - rcx]", "subtracted"),
        ("mov rax, [rax + rbx + rcx]", "too many registers"),
        ("mov rax, [rbx + label]", "rip + label"),
        ("mov rax, [rip + label + 8]", "rip + label"),
        ("mov rax, []", "not understood"),
        ("mov rax, 09", "not understood"),
        ("m-v rax", "is not a mnemonic"),
    ],
)
def test_text_that_is_not_understood_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(AssembleError) as caught:
        parse(f"nop\n{text}")
    assert message in caught.value.reason
    assert (caught.value.line, caught.value.text) == (2, text)


@pytest.mark.parametrize(
    "text",
    [
        "lock xadd qword ptr gs:[rdx+rcx*8-0x10], rax",
        "mov rcx, [rip+label]",
        "again:",
        ".long 0x1, again",
        "ret",
    ],
)
def test_rendered_text_reads_back_as_the_same_statement(text: str) -> None:
    (item,) = (line.item for line in parse(text))
    assert render(item) == text
    assert [line.item for line in parse(render(item))] == [item]


def test_a_kernel_address_is_written_as_its_32_bit_displacement_but_in_full_for_the_accumulator() -> None:
    short, full = (line.item for line in parse("mov ecx, [0xffffffff82001000]; mov rax, [0xffffffff82001000]"))
    assert render(short) == "mov ecx, [0x82001000]"
    assert render(full) == "mov rax, [0xffffffff82001000]"
