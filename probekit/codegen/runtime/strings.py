"""Make and measure strings: D's subroutines, equal to :mod:`probekit.interp.strings` byte for byte.

Arguments are in rsi, rdx, rcx. A string is stored at rdi, cut to the size that strings have; an integer is in rax. A
fault is the carry flag, with its kind in edx and the word at fault in rax. Every loop ends at a NUL, or after as many
bytes as the longest string has.

store_string  rsi, rcx: bytes   -> these bytes as a string
copy_string   rsi: string       -> the string
strlen        rsi: string       -> rax; keeps everything else
strjoin       rsi, rdx: strings
tolower, toupper  rsi: string
strchr, strrchr   rsi: string, dl: character

:mod:`~probekit.codegen.runtime.string_search`, ``paths``, ``numbers``, ``net_addresses`` and ``json_text`` keep the
same rules.
"""

from __future__ import annotations

from probekit.codegen.context import CodegenContext
from probekit.codegen.reg_alloc import longest_string
from probekit.codegen.runtime.registry import AddressOf, Routine

__all__ = ("ROUTINES", "max_length", "store_character", "string_search_end")


def max_length(context: CodegenContext) -> int:
    """Return the most bytes that a string may have without its NUL."""
    return context.program.string_size - 1


def store_character(context: CodegenContext, char: str) -> str:
    """Store a string of one character at rdi."""
    if not max_length(context):
        return "mov byte ptr [rdi], 0"
    return f"mov byte ptr [rdi], {ord(char):#x}; mov byte ptr [rdi + 1], 0"


def string_search_end(address_of: AddressOf) -> str:
    """End a search: at ``found`` with the string at rsi, at ``nothing`` with the empty string."""
    return f"""
    nothing:
        mov byte ptr [rdi], 0
        ret
    found:
        call {address_of("copy_string"):#x}
        ret
    """


def _strlen(context: CodegenContext, _address_of: AddressOf) -> str:
    return f"""
        xor eax, eax
    next:
        cmp byte ptr [rsi + rax], 0
        je done
        inc eax
        cmp eax, {longest_string(context.program):#x}
        jb next
    done:
        ret
    """


def _store_string(context: CodegenContext, _address_of: AddressOf) -> str:
    return f"""
        cmp rcx, {max_length(context):#x}
        jbe fits
        mov ecx, {max_length(context):#x}
    fits:
        test ecx, ecx
        jz done
    next:
        mov al, byte ptr [rsi]
        mov byte ptr [rdi], al
        inc rsi
        inc rdi
        dec ecx
        jnz next
    done:
        mov byte ptr [rdi], 0
        ret
    """


def _copy_string(context: CodegenContext, _address_of: AddressOf) -> str:
    return f"""
        mov ecx, {max_length(context) + 1:#x}
    next:
        dec ecx
        jz done
        mov al, byte ptr [rsi]
        test al, al
        jz done
        mov byte ptr [rdi], al
        inc rsi
        inc rdi
        jmp next
    done:
        mov byte ptr [rdi], 0
        ret
    """


def _strjoin(context: CodegenContext, _address_of: AddressOf) -> str:
    return f"""
        mov ecx, {max_length(context) + 1:#x}
    first:
        dec ecx
        jz done
        mov al, byte ptr [rsi]
        test al, al
        jz more
        mov byte ptr [rdi], al
        inc rsi
        inc rdi
        jmp first
    second:
        dec ecx
        jz done
    more:
        mov al, byte ptr [rdx]
        test al, al
        jz done
        mov byte ptr [rdi], al
        inc rdx
        inc rdi
        jmp second
    done:
        mov byte ptr [rdi], 0
        ret
    """


def _change_case(first: str, change: str) -> Routine:
    """Return a routine that changes the 26 letters from ``first`` on by the instruction ``change``."""

    def text(context: CodegenContext, _address_of: AddressOf) -> str:
        return f"""
            mov ecx, {max_length(context) + 1:#x}
        next:
            dec ecx
            jz done
            movzx eax, byte ptr [rsi]
            test al, al
            jz done
            lea edx, [rax - {ord(first):#x}]
            cmp edx, 25
            ja keep
            {change}
        keep:
            mov byte ptr [rdi], al
            inc rsi
            inc rdi
            jmp next
        done:
            mov byte ptr [rdi], 0
            ret
        """

    return text


def _strchr(context: CodegenContext, address_of: AddressOf) -> str:
    return f"""
        test dl, dl
        jz nothing
        mov ecx, {longest_string(context.program):#x}
    next:
        mov al, byte ptr [rsi]
        test al, al
        jz nothing
        cmp al, dl
        je found
        inc rsi
        dec ecx
        jnz next
    {string_search_end(address_of)}
    """


def _strrchr(context: CodegenContext, address_of: AddressOf) -> str:
    return f"""
        xor r8d, r8d
        test dl, dl
        jz nothing
        mov ecx, {longest_string(context.program):#x}
    next:
        mov al, byte ptr [rsi]
        test al, al
        jz ended
        cmp al, dl
        jne other
        mov r8, rsi
    other:
        inc rsi
        dec ecx
        jnz next
    ended:
        mov rsi, r8
        test rsi, rsi
        jnz found
    {string_search_end(address_of)}
    """


ROUTINES: dict[str, Routine] = {
    "copy_string": _copy_string,
    "store_string": _store_string,
    "strchr": _strchr,
    "strjoin": _strjoin,
    "strlen": _strlen,
    "strrchr": _strrchr,
    "tolower": _change_case("A", "add al, 32"),
    "toupper": _change_case("a", "sub al, 32"),
}
