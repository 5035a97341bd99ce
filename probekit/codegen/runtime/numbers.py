"""Convert between strings and numbers, index strings, make random numbers.

lltostr    rsi: number, rdx: base   -> the string
strtoll    rsi: string, rdx: base   -> rax: the number
charat     rsi: string, rdx: index  -> rax: the character, 0 after the string's end
setchar    rsi: string, rdx: index, cl: character  -> the string with that character
rand                                -> rax: 32 random bits, sign-extended

The rules are those of :mod:`probekit.codegen.runtime.strings`.
"""

from __future__ import annotations

from probekit.buffers.layout import FaultKind, HeaderWord
from probekit.codegen.context import CodegenContext
from probekit.codegen.reg_alloc import longest_string
from probekit.codegen.runtime.core import header
from probekit.codegen.runtime.registry import AddressOf, Routine
from probekit.codegen.runtime.stack import REGS_SIZE
from probekit.codegen.runtime.strings import max_length

__all__ = ("ROUTINES",)

_DIGITS_END = REGS_SIZE  # digits are written downwards in the part of `temp` that holds registers at other times


def _bad_base() -> str:
    """Return with a fault for a base that is not 2 to 36."""
    return f"""
    bad:
        mov edx, {FaultKind.ILLOP}
        xor eax, eax
        stc
        ret
    """


def _lltostr(context: CodegenContext, address_of: AddressOf) -> str:
    """Write a number. r8: start of the digits so far; r9: the base; r10: 1 for a negative number."""
    return f"""
        cmp rdx, 2
        jl bad
        cmp rdx, 36
        jg bad
        lea rcx, {context.in_scratch(context.scratch.temp + _DIGITS_END)}
        mov r8, rcx
        mov r9, rdx
        mov rax, rsi
        xor r10d, r10d
        cmp r9d, 10
        jne digit
        test rax, rax
        jns digit
        neg rax
        inc r10d
    digit:
        test rax, rax
        jz ended
        xor edx, edx
        div r9
        cmp edx, 10
        jb decimal
        add edx, {ord("a") - ord("0") - 10}
    decimal:
        add edx, {ord("0"):#x}
        dec r8
        mov byte ptr [r8], dl
        jmp digit
    ended:
        cmp r9d, 8
        je octal
        cmp r8, rcx
        jne some
        dec r8
        mov byte ptr [r8], {ord("0"):#x}
    some:
        cmp r9d, 16
        jne sign
        dec r8
        mov byte ptr [r8], {ord("x"):#x}
    octal:
        dec r8
        mov byte ptr [r8], {ord("0"):#x}
    sign:
        test r10d, r10d
        jz out
        dec r8
        mov byte ptr [r8], {ord("-"):#x}
    out:
        mov rsi, r8
        sub rcx, r8
        call {address_of("store_string"):#x}
        clc
        ret
    {_bad_base()}
    """


def _strtoll(context: CodegenContext, _address_of: AddressOf) -> str:
    """Read a number as strtoll(3) does; one that is too large becomes the largest.

    rsi: the next character; edi: how many may follow; r8: a digit; r9: the base; r10: 1 for a negative number; r11: 1
    for one that is too large.
    """
    return f"""
        cmp rdx, 2
        jl bad
        cmp rdx, 36
        jg bad
        mov r9, rdx
        xor r10d, r10d
        xor r11d, r11d
        mov edi, {longest_string(context.program):#x}
        {_skip_blanks_and_sign()}
        {_skip_hex_prefix()}
        {_read_digits()}
        mov rcx, 0x7fffffffffffffff
        add rcx, r10
        test r11d, r11d
        jnz clamp
        cmp rax, rcx
        jbe value
    clamp:
        mov rax, rcx
    value:
        test r10d, r10d
        jz out
        neg rax
    out:
        clc
        ret
    {_bad_base()}
    """


def _skip_blanks_and_sign() -> str:
    return f"""
    space:
        movzx ecx, byte ptr [rsi]
        cmp ecx, 0x20
        je blank
        lea eax, [rcx - 9]
        cmp eax, 4
        ja number
    blank:
        inc rsi
        dec edi
        jnz space
    number:
        cmp ecx, {ord("-"):#x}
        jne plus
        inc r10d
        inc rsi
        jmp digits
    plus:
        cmp ecx, {ord("+"):#x}
        jne digits
        inc rsi
    digits:
    """


def _skip_hex_prefix() -> str:
    """Clear rax, and skip ``0x`` where the base is 16."""
    return f"""
        xor eax, eax
        cmp r9d, 16
        jne next
        cmp byte ptr [rsi], {ord("0"):#x}
        jne next
        movzx ecx, byte ptr [rsi + 1]
        or ecx, 0x20
        cmp ecx, {ord("x"):#x}
        jne next
        add rsi, 2
    """


def _read_digits() -> str:
    """Read digits into rax up to the first character that is none in this base."""
    return f"""
    next:
        movzx ecx, byte ptr [rsi]
        lea r8d, [rcx - {ord("0"):#x}]
        cmp r8d, 9
        jbe have
        or ecx, 0x20
        lea r8d, [rcx - {ord("a"):#x}]
        cmp r8d, 25
        ja ended
        add r8d, 10
    have:
        cmp r8d, r9d
        jae ended
        test r11d, r11d
        jnz step
        mul r9
        jb large
        add rax, r8
        jae step
    large:
        mov r11d, 1
    step:
        inc rsi
        dec edi
        jnz next
    ended:
    """


def _charat(context: CodegenContext, _address_of: AddressOf) -> str:
    return f"""
        cmp rdx, {context.program.string_size:#x}
        jae bad
        xor eax, eax
    next:
        cmp byte ptr [rsi + rax], 0
        je nothing
        cmp eax, edx
        je found
        inc eax
        jmp next
    found:
        movsx rax, byte ptr [rsi + rax]
        clc
        ret
    nothing:
        xor eax, eax
        ret
    bad:
        mov rax, rdx
        mov edx, {FaultKind.BADADDR}
        stc
        ret
    """


def _setchar(context: CodegenContext, _address_of: AddressOf) -> str:
    """Copy a string up to its NUL, with another character at the place that rdx says."""
    return f"""
        cmp rdx, {context.program.string_size:#x}
        jae bad
        xor r8d, r8d
    next:
        cmp r8d, {max_length(context):#x}
        jae done
        mov al, byte ptr [rsi + r8]
        cmp r8d, edx
        je replaced
        test al, al
        jz done
        mov byte ptr [rdi + r8], al
        inc r8d
        jmp next
    replaced:
        test cl, cl
        jz done
        mov byte ptr [rdi + r8], cl
        inc r8d
        test al, al
        jnz next
    done:
        mov byte ptr [rdi + r8], 0
        clc
        ret
    bad:
        mov rax, rdx
        mov edx, {FaultKind.BADADDR}
        stc
        ret
    """


def _rand(_context: CodegenContext, _address_of: AddressOf) -> str:
    """Take the next number of xorshift64 (Marsaglia, 2003), which starts from the time stamp counter."""
    return f"""
        mov rcx, {header(HeaderWord.RANDOM)}
        test rcx, rcx
        jnz go
        rdtsc
        shl rdx, 32
        or rax, rdx
        or rax, 1
        mov rcx, rax
    go:
        mov rdx, rcx
        shl rdx, 13
        xor rcx, rdx
        mov rdx, rcx
        shr rdx, 7
        xor rcx, rdx
        mov rdx, rcx
        shl rdx, 17
        xor rcx, rdx
        mov {header(HeaderWord.RANDOM)}, rcx
        mov rax, rcx
        sar rax, 32
        ret
    """


ROUTINES: dict[str, Routine] = {
    "charat": _charat,
    "setchar": _setchar,
    "lltostr": _lltostr,
    "rand": _rand,
    "strtoll": _strtoll,
}
