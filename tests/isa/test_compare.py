"""Is a decoded instruction the one that was asked for?"""

from __future__ import annotations

import pytest
from iced_x86 import Decoder

from probekit.isa.asm_syntax import Statement, parse
from probekit.isa.compare import mismatch

_ADDR = 0xFFFFFFFF81000000


def _mismatch(text: str, code: str, **labels: int) -> str | None:
    (line,) = parse(text)
    assert isinstance(line.item, Statement)
    return mismatch(line.item, Decoder(64, bytes.fromhex(code), ip=_ADDR).decode(), labels)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("mov rax, rbx", "4889d8"),
        ("jz label", "74fe"),
        ("je label", "74fe"),
        ("mov rax, [rbx + rcx]", "488b0419"),
        ("mov rax, [rcx + rbx]", "488b0419"),
        ("xchg rax, [rbx]", "488703"),
        ("imul rax, 10", "486bc00a"),
        ("mov eax, -1", "b8ffffffff"),
        ("sal rax, 3", "48c1e003"),
        ("rep movsb", "f3a4"),
        ("mov rax, [rip + label]", "488b05f9ffffff"),
        ("mov rax, [0xffffffff81000000]", "488b05f9ffffff"),
    ],
)
def test_what_means_the_same_is_no_mismatch(text: str, code: str) -> None:
    assert _mismatch(text, code, label=_ADDR) is None


@pytest.mark.parametrize(
    ("text", "code", "reason"),
    [
        ("mov rax, rcx", "4889d8", "operand 2 is not rcx"),
        ("add rax, rbx", "4889d8", "assembled to mov"),
        ("mov eax, 0x123456789", "b889674523", "does not fit the 4-byte operand"),
        ("mov eax, 5", "b806000000", "holds 0x6, not 0x5"),
        ("jz label", "75fe", "assembled to jne"),
        ("jz other", "74fe", "does not lead to other"),
        ("call 0xffffffff81000005", "e801000000", "leads to"),
        ("mov rax, [rbx + rcx*2]", "488b0419", "other registers"),
        ("mov rax, [rbx + 8]", "488b4309", "displacement"),
        ("mov rax, gs:[rbx]", "488b03", "another segment"),
        ("mov dword ptr [rbx], 1", "48c70301000000", "accesses 8 bytes, not 4"),
        ("mov [rbx], 1", "48c70301000000", "does not say how many bytes"),
        ("movsb", "f3a4", "other prefixes"),
        ("mov rax, [rip + other]", "488b05f9ffffff", "addresses"),
        ("mov rax, 5", "488b03", "not a number"),
        ("mov rax, [rbx]", "4889d8", "not in memory"),
    ],
)
def test_a_wrong_encoding_is_named(text: str, code: str, reason: str) -> None:
    found = _mismatch(text, code, label=_ADDR, other=_ADDR + 64)
    assert found is not None
    assert reason in found
