"""What the assembler must get right, and the known wrong encodings that must be refused."""

from __future__ import annotations

import time

import pytest

from probekit.isa.assemble import AssembleError, assemble

A = 0xFFFFFFFF81000000


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("push rax", "50"),
        ("pop r15", "415f"),
        ("mov rax, qword ptr gs:[0x1f000]", "6548a100f0010000000000"),
        ("mov rbx, qword ptr gs:[0x1f000]", "65488b1c2500f00100"),
        ("mov rbx, qword ptr gs:[-0x10]", "65488b1c25f0ffffff"),
        ("mov rcx, [0xffffffff82001000]", "488b0c2500100082"),
        ("mov rcx, 0x1122334455667788", "48b98877665544332211"),
        ("mov rax, 0xffffffff81000000", "48c7c000000081"),
        ("mov rax, 0xffffffff", "48b8ffffffff00000000"),
        ("inc qword ptr [rax + 0x11223344]", "48ff8044332211"),
        ("lock inc qword ptr [rax + 8]", "f048ff4008"),
        ("lock xadd qword ptr [rdx], rcx", "f0480fc10a"),
        ("lea rsp, [rsp - 0x80]", "488d642480"),
        ("lea rax, [rbx + rcx*8 + 0x10]", "488d44cb10"),
        ("call 0xffffffff81000105", "e800010000"),
        ("jmp 0xffffffff81000000", "ebfe"),
        ("cmp rax, -1", "4883f8ff"),
        ("test al, 1", "a801"),
        ("shl rax, 3", "48c1e003"),
        ("sal rax, cl", "48d3e0"),
        ("sar rdx, 63", "48c1fa3f"),
        ("imul rax, rbx", "480fafc3"),
        ("imul rax, 10", "486bc00a"),
        ("idiv rcx", "48f7f9"),
        ("div qword ptr [rsp]", "48f73424"),
        ("cqo", "4899"),
        ("bsr rax, rcx", "480fbdc1"),
        ("cmovz rax, rdx", "480f44c2"),
        ("setnz al", "0f95c0"),
        ("movzx eax, byte ptr [rdi]", "0fb607"),
        ("movsx rax, word ptr [rdi]", "480fbf07"),
        ("movsxd rax, dword ptr gs:[0x100]", "6548630425 00010000"),
        ("pushfq; cli; popfq; sti", "9c fa 9d fb"),
        ("rdtsc", "0f31"),
        ("xchg rax, [rbx]", "488703"),
        ("xchg [rbx], rax", "488703"),
        ("rep movsb", "f3a4"),
        ("ret 8", "c20800"),
        ("endbr64", "f30f1efa"),
        ("serialize", "0f01e8"),
        ("mov eax, 10", "b80a000000"),
        ("mov qword ptr [rbp + -8], 1", "48c745f801000000"),
        (".quad 0x1122334455667788, -1", "8877665544332211 ffffffffffffffff"),
        ("nop  # a comment", "90"),
        ("", ""),
    ],
)
def test_right(text: str, code: str) -> None:
    assert assemble(text, A).hex() == bytes.fromhex(code).hex()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("call 0xffffffff00000000", "leads to"),  # rel32 wraps to 0
        ("jmp 0xffffffff00000000", "leads to"),
        ("je 0xffffffff00000000", ""),
        ("mov eax, 0x123456789", "does not fit"),
        ("mov byte ptr [rax], 0x1ff", "does not fit"),
        ("mov rax, [rbx + 0x123456789]", "displacement"),
        ("mov rcx, [0x123456789]", ""),
        ("nop dword ptr [rax + rax]", "reservednop"),  # encodes 0f 18 24 00
        ("add rax, 0xffffffff", ""),
        ("mov [rax], 1", ""),  # how many bytes?
        ("inc [rax]", ""),
        ("jmp 1f", "not understood"),
        ("jmp nowhere", "no label"),
        ("x: nop; x: nop", "twice"),
        ("mov rax, [rax + somewhere]", "[rip + label]"),
        ("frobnicate rax", "keystone"),
        ("mov rax", "keystone"),
        (".align 16", "not supported"),
        ("mov rax, 0x11223344556677889", "64 bits"),
        ("mov eax, 010", "not understood"),  # octal to some
        ("mov rax, rbx rcx", "not understood"),
        ("mov rax, [rbx - rcx]", "subtracted"),
    ],
)
def test_refused(text: str, reason: str) -> None:
    with pytest.raises(AssembleError, match=None) as caught:
        assemble(text, A)
    assert reason in caught.value.reason


def test_error_names_the_statement() -> None:
    with pytest.raises(AssembleError) as caught:
        assemble("nop\nx: nop; bogus rax\njmp x", A)
    assert (caught.value.line, caught.value.text) == (2, "bogus rax")


def test_labels_forward_and_backward() -> None:
    # 00 test rax, rax; 03 je done; 05 lea rdx, [rip+table]; 0c jmp again ...; 0e ret; 0f .quad
    text = "again: test rax, rax; je done; lea rdx, [rip + table]; jmp again; done: ret; table: .quad again"
    code = assemble(text, A)
    assert code.hex() == "4885c07409488d1503000000ebf2c3" + A.to_bytes(8, "little").hex()


def test_long_branches_over_many_lines() -> None:
    code = assemble("\n".join(["je far", *["mov rax, 0x1122334455667788"] * 50, "far: ret"]), A)
    assert code[:6].hex() == "0f84f4010000" and code[-1:] == b"\xc3"


def test_wrong_bytes_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever keystone answers, only what was asked passes."""
    from probekit.isa import assemble as module

    for answer in (
        b"\x48\xff\x40\x09",
        b"\x48\xff\x41\x08",
        b"\xff\x40\x08",
        b"\x48\xff\x48\x08",
        b"\x90",
        b"\x48\xff",
    ):
        monkeypatch.setattr(module, "_encode", lambda text, addr, answer=answer: answer)
        with pytest.raises(AssembleError):
            module.assemble("inc qword ptr [rax + 8]", A)
    monkeypatch.setattr(module, "_encode", lambda text, addr: b"\x48\xff\x40\x08\x90")
    with pytest.raises(AssembleError, match="more than was asked"):
        module.assemble("inc qword ptr [rax + 8]", A)


def test_speed_of_a_large_clause() -> None:
    lines = [
        f"l{i}: mov rax, qword ptr [rsp + {8 * (i % 40):#x}]; add rax, {i}; cmp rax, 5; jne l{i + 1}; inc rbx"
        for i in range(100)
    ]
    text = "\n".join([*lines, "l100: ret"])
    assemble(text, A)
    began = time.perf_counter()
    assemble(text, A)
    assert time.perf_counter() - began < 1.0  # 10 ms on a quiet machine
