"""The verifier of finished code: it passes what the generator makes, and nothing that breaks a rule."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probekit.codegen.verify import MAX_IMAGE, CodeError, CodeLayout, verify_code
from probekit.isa.assemble import assemble
from tests.codegen.emulated_kernel import CODE
from tests.codegen.machine import Machine
from tests.support.emulator import TEXT

GUEST = Machine("int64_t x; fbt::: /arg0/ { x = arg1; trace(*(int *)arg0); @[execname] = sum(arg1); }")
THUNK = max(GUEST.image.thunks.values())


def layout(text: str, record: int = 0x40) -> CodeLayout:
    """A thunk of our own behind the routines of a real image."""
    code = GUEST.code[: THUNK - CODE] + assemble(text, THUNK)
    return CodeLayout(CODE, code, GUEST.image.layout.routines, {THUNK: record})


def routine(name: str) -> str:
    return hex(GUEST.image.layout.routines[name])


GOOD = (
    "ret 8",
    "mov qword ptr [rsp + 8], rax; mov qword ptr [rbx + 0x100], rcx; ret 8",
    f"mov rcx, {GUEST.context.activity + 8:#x}; mov qword ptr [rcx], rax; ret 8",
    "mov rdi, qword ptr [rsp + 0x40]; mov qword ptr [rdi + 24], rax; add rdi, 8; mov byte ptr [rdi], al; ret 8",
    f"lea rdi, [rbx + 8]; call {routine('agg_find_0')}; test rax, rax; jz out; inc qword ptr [rax]; out: ret 8",
    f"call {routine('load_4')}; jb out; mov eax, eax; out: ret 8",
    "lea rdi, [rbx + rcx*8 + 0x40]; test rax, rax; js out; inc qword ptr [rdi + rcx*8]; out: ret 8",
)
BAD = {
    "not known to be ours": (
        "mov qword ptr [rax], 1; ret 8",
        "mov rdi, qword ptr [rsp + 0x48]; mov qword ptr [rdi], rax; ret 8",
        f"mov rcx, {TEXT:#x}; mov qword ptr [rcx], rax; ret 8",
        "mov qword ptr gs:[rbx], rax; ret 8",
        "lea rdi, [rbx + 8]; add rdi, rcx; mov qword ptr [rdi], 0; ret 8",
        "lea rdi, [rbx + 8]; test rax, rax; jz over; mov rdi, rax; over: mov qword ptr [rdi], 0; ret 8",
        f"lea rdi, [rbx]; call {routine('agg_find_0')}; mov qword ptr [rdi], 0; ret 8",
        f"call {routine('load_4')}; mov qword ptr [rax], 0; ret 8",
        "lock inc qword ptr [rdx]; ret 8",
        "push rax; pop qword ptr [rcx]; ret 8",
    ),
    "a jump backwards": ("again: dec rax; jnz again; ret 8", "xor eax, eax; jmp over; over: ret 8; back: jmp over"),
    "leaves its piece of code": (f"jmp {CODE:#x}", f"jz {TEXT:#x}; ret 8"),
    "a function that is not allowed": (f"call {TEXT:#x}; ret 8", f"call {CODE + 1:#x}; ret 8"),
    "not on the list": ("cpuid; ret 8", "sti; ret 8", "hlt; ret 8", "iretq", "out dx, al; ret 8", "wrmsr; ret 8"),
    "not a general-purpose one": ("mov ds, ax; ret 8",),
    "whose target is not known": ("jmp rax", "call rax; ret 8"),
    "runs off the end": ("xor eax, eax",),
    "nothing reaches": ("ret 8; xor eax, eax; ret 8",),
    "of stack": ("sub rsp, 0x2000; ret 8",),
}


@pytest.mark.parametrize("text", GOOD)
def test_what_is_right_passes(text: str) -> None:
    verify_code(layout(text), GUEST.context)


@pytest.mark.parametrize(("reason", "text"), [(reason, text) for reason, texts in BAD.items() for text in texts])
def test_what_is_wrong_is_refused(reason: str, text: str) -> None:
    with pytest.raises(CodeError) as caught:
        verify_code(layout(text), GUEST.context)
    assert reason in str(caught.value) or "jump" in reason
    assert caught.value.addr >= THUNK


def test_vectors_and_floats_are_refused() -> None:
    for code in ("0f28c1", "d9e8", "c5f877", "660f6ec0", "0f77"):  # movaps, fld1, vzeroupper, movd, emms
        bad = GUEST.code[: THUNK - CODE] + bytes.fromhex(code) + b"\xc2\x08\x00"
        with pytest.raises(CodeError):
            verify_code(CodeLayout(CODE, bad, GUEST.image.layout.routines, {THUNK: 0}), GUEST.context)


def test_a_routine_calls_only_what_was_there_before() -> None:
    routines = dict(GUEST.image.layout.routines)
    first, later = min(routines.values()), max(routines.values())
    code = bytearray(GUEST.image.code)
    call = assemble(f"call {later:#x}; ret", first)
    code[first - CODE : first - CODE + len(call)] = call
    with pytest.raises(CodeError):
        verify_code(replace(GUEST.image.layout, code=bytes(code)), GUEST.context)


def test_too_much_code_is_refused() -> None:
    with pytest.raises(CodeError):
        verify_code(replace(GUEST.image.layout, code=b"\xcc" * (MAX_IMAGE + 1)), GUEST.context)


@settings(max_examples=200)
@given(st.integers(0, len(GUEST.image.code) - 1), st.integers(1, 255))
def test_any_damage_is_a_code_error_at_worst(at: int, change: int) -> None:
    """Any byte may be wrong: the answer is an error of ours, or the change was harmless to every rule."""
    code = bytearray(GUEST.image.code)
    code[at] ^= change
    with suppress(CodeError):
        verify_code(replace(GUEST.image.layout, code=bytes(code)), GUEST.context)
