"""Write network addresses as strings: see :mod:`probekit.codegen.runtime.strings` for the rules.

inet_ntoa    rsi: address of an IPv4 address
inet_ntoa6   rsi: address of an IPv6 address
inet_ntop    rsi: family, rdx: address
link_ntop    rsi: hardware type, rdx: address

The address is copied to the scratch memory first, and its string is built after it there.
"""

from __future__ import annotations

from probekit.buffers.layout import FaultKind
from probekit.codegen.context import CodegenContext
from probekit.codegen.runtime.registry import AddressOf, Routine
from probekit.codegen.runtime.stack import REGS_SIZE, spill

__all__ = ("ROUTINES",)

_DIGITS_END = REGS_SIZE  # digits are written downwards in the part of `temp` that holds registers at other times
_STRING = 32  # where the string is built: after the longest address, 20 bytes; the longest string has 59
_AF_INET = 2
_AF_INET6 = (10, 26)  # Linux's, and Solaris's
_ETHERNET, _INFINIBAND = (1, 6), (32, 20)  # ARPHRD_*, bytes of an address


def _inet_ntoa(context: CodegenContext, address_of: AddressOf) -> str:
    return f"""
        mov rax, rsi
        call {address_of("load_4"):#x}
        mov edx, {FaultKind.BADADDR}
        jb out
        mov r8d, eax
        lea r9, {context.in_scratch(context.scratch.temp + _DIGITS_END)}
        mov rsi, r9
        mov r10d, 4
    part:
        mov eax, r8d
        shr eax, 24
        shl r8d, 8
        mov ecx, 10
    digit:
        xor edx, edx
        div ecx
        add edx, {ord("0"):#x}
        dec r9
        mov byte ptr [r9], dl
        test eax, eax
        jnz digit
        dec r10d
        jz done
        dec r9
        mov byte ptr [r9], {ord("."):#x}
        jmp part
    done:
        mov rcx, rsi
        sub rcx, r9
        mov rsi, r9
        call {address_of("store_string"):#x}
        clc
    out:
        ret
    """


def _address_operand(context: CodegenContext, index: str) -> str:
    """Return the memory operand of a byte in the copied address, without its size. ``index``: a register's text."""
    return f"[rbx + {index} + {context.layout.scratch_offset + context.scratch.temp:#x}]"


def _inet_ntoa6(context: CodegenContext, address_of: AddressOf) -> str:
    """Write an IPv6 address as inet_ntop(3) does.

    The first of the longest runs of zero groups is ``::``, and an IPv4 address in an IPv6 one is dotted. r8: the group
    where that run begins (8: nowhere); r9: how long it is; r10: the current group; r11: where the string goes on.
    """
    return f"""
        mov {spill(context)}, rdi
        lea rdi, {context.in_scratch(context.scratch.temp)}
        mov ecx, 16
        call {address_of("load_bytes"):#x}
        mov edx, {FaultKind.BADADDR}
        jb out
        {_find_zero_groups(context)}
        lea r11, {context.in_scratch(context.scratch.temp + _STRING)}
        xor r10d, r10d
        {_write_groups(context)}
        {_write_dotted(context)}
    done:
        {_finish(context, address_of)}
    out:
        ret
    """


def _find_zero_groups(context: CodegenContext) -> str:
    """Set r8 and r9 to the start and length of the first longest run of two or more zero groups."""
    return f"""
        mov r8d, 8
        mov r9d, 1
        xor r10d, r10d
        xor r11d, r11d
    look:
        cmp word ptr {_address_operand(context, "r10*2")}, 0
        jne other
        inc r11d
        cmp r11d, r9d
        jbe on
        mov r9d, r11d
        mov r8d, r10d
        sub r8d, r11d
        inc r8d
        jmp on
    other:
        xor r11d, r11d
    on:
        inc r10d
        cmp r10d, 8
        jb look
    """


def _write_groups(context: CodegenContext) -> str:
    """Write the groups and their colons; go to ``dotted`` for an IPv4 address at the end, else to ``done``."""
    return f"""
    group:
        cmp r10d, r8d
        jne plain
        mov byte ptr [r11], {ord(":"):#x}
        inc r11
        add r10d, r9d
        cmp r10d, 8
        jb colon
        mov byte ptr [r11], {ord(":"):#x}
        inc r11
        jmp done
    plain:
        test r10d, r10d
        jz value
    colon:
        mov byte ptr [r11], {ord(":"):#x}
        inc r11
    value:
        cmp r10d, 6
        jne digits
        test r8d, r8d
        jnz digits
        cmp r9d, 6
        je dotted
        cmp r9d, 5
        jne digits
        movzx eax, word ptr {context.in_scratch(context.scratch.temp + 10)}
        cmp eax, 0xffff
        je dotted
    digits:
        movzx eax, word ptr {_address_operand(context, "r10*2")}
        {_write_group()}
        inc r10d
        cmp r10d, 8
        jb group
        jmp done
    """


def _write_group() -> str:
    """Write the group in eax, in network byte order, without leading zeros."""
    return f"""
        bswap eax
        shr eax, 16
        mov ecx, 12
    lead:
        mov edx, eax
        shr edx, cl
        test edx, edx
        jnz digit
        test ecx, ecx
        jz digit
        sub ecx, 4
        jmp lead
    digit:
        mov edx, eax
        shr edx, cl
        and edx, 15
        {_hex_digit("dl", "edx", "nibble")}
        mov byte ptr [r11], dl
        inc r11
        sub ecx, 4
        jns digit
    """


def _write_dotted(context: CodegenContext) -> str:
    """Write the last four bytes of the address as decimals with dots between them."""
    return f"""
    dotted:
        mov r10d, 12
    part:
        movzx eax, byte ptr {_address_operand(context, "r10")}
        cmp eax, 10
        jb one
        cmp eax, 100
        jb two
        mov ecx, 100
        {_decimal_digit()}
    two:
        mov ecx, 10
        {_decimal_digit()}
    one:
        add eax, {ord("0"):#x}
        mov byte ptr [r11], al
        inc r11
        inc r10d
        cmp r10d, 16
        jae done
        mov byte ptr [r11], {ord("."):#x}
        inc r11
        jmp part
    """


def _decimal_digit() -> str:
    """Write the first digit of eax, which is below ten times ecx; the remainder stays in eax."""
    return f"""
        xor edx, edx
        div ecx
        add eax, {ord("0"):#x}
        mov byte ptr [r11], al
        inc r11
        mov eax, edx
    """


def _hex_digit(low: str, register: str, label: str) -> str:
    """Change 0 to 15 in a register to its digit. ``low``: the name of the register's lowest byte."""
    return f"""
        add {register}, {ord("0"):#x}
        cmp {low}, {ord("9"):#x}
        jbe {label}
        add {register}, {ord("a") - ord("9") - 1:#x}
    {label}:
    """


def _finish(context: CodegenContext, address_of: AddressOf) -> str:
    """Store the string that ends at r11 where the caller wants it."""
    return f"""
        lea rsi, {context.in_scratch(context.scratch.temp + _STRING)}
        mov rcx, r11
        sub rcx, rsi
        mov rdi, {spill(context)}
        call {address_of("store_string"):#x}
        clc
    """


def _inet_ntop(_context: CodegenContext, address_of: AddressOf) -> str:
    """Choose by the family; one that is unknown is a fault."""
    sixes = "\n".join(f"cmp rsi, {family}\nje six" for family in _AF_INET6)
    return f"""
        cmp rsi, {_AF_INET}
        je four
        {sixes}
        mov edx, {FaultKind.ILLOP}
        xor eax, eax
        stc
        ret
    four:
        mov rsi, rdx
        call {address_of("inet_ntoa"):#x}
        ret
    six:
        mov rsi, rdx
        call {address_of("inet_ntoa6"):#x}
        ret
    """


def _link_ntop(context: CodegenContext, address_of: AddressOf) -> str:
    """Write a hardware address in hexadecimal, with colons; an unknown type of hardware is a fault."""
    return f"""
        mov ecx, {_ETHERNET[1]}
        cmp rsi, {_ETHERNET[0]}
        je known
        mov ecx, {_INFINIBAND[1]}
        cmp rsi, {_INFINIBAND[0]}
        je known
        mov edx, {FaultKind.ILLOP}
        xor eax, eax
        stc
        ret
    known:
        mov {spill(context)}, rdi
        mov {spill(context, 1)}, rcx
        lea rdi, {context.in_scratch(context.scratch.temp)}
        mov rsi, rdx
        call {address_of("load_bytes"):#x}
        mov edx, {FaultKind.BADADDR}
        jb out
        mov rcx, {spill(context, 1)}
        xor r10d, r10d
        lea r11, {context.in_scratch(context.scratch.temp + _STRING)}
    next:
        movzx eax, byte ptr {_address_operand(context, "r10")}
        mov edx, eax
        shr edx, 4
        {_hex_digit("dl", "edx", "upper")}
        and eax, 15
        {_hex_digit("al", "eax", "lower")}
        mov byte ptr [r11], dl
        mov byte ptr [r11 + 1], al
        add r11, 2
        inc r10d
        cmp r10d, ecx
        jae done
        mov byte ptr [r11], {ord(":"):#x}
        inc r11
        jmp next
    done:
        {_finish(context, address_of)}
    out:
        ret
    """


ROUTINES: dict[str, Routine] = {
    "inet_ntoa": _inet_ntoa,
    "inet_ntoa6": _inet_ntoa6,
    "inet_ntop": _inet_ntop,
    "link_ntop": _link_ntop,
}
