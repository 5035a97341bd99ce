"""Routines on strings: D's subroutines, equal to :mod:`probekit.interp.text` byte for byte.

Arguments come in rsi, rdx, rcx; a string is put at rdi, cut to the size that strings have; an integer is in rax.
What can go wrong is the carry flag, with the kind of fault in edx and the word at fault in rax. Every loop ends at
a NUL, or after as many bytes as the longest string has.

The simple ones are here; ``searches``, ``paths`` and ``numbers`` keep the same rules.
"""

from __future__ import annotations

from probekit.codegen.context import CodegenContext
from probekit.codegen.reg_alloc import longest_string
from probekit.codegen.runtime.registry import AddressOf, Routine

__all__ = ("ROUTINES", "constant", "room", "string_search_end")


def room(context: CodegenContext) -> int:
    """Bytes of a string without its NUL."""
    return context.program.string_size - 1


def constant(context: CodegenContext, char: str) -> str:
    """A string of one character at rdi."""
    if not room(context):
        return "mov byte ptr [rdi], 0"
    return f"mov byte ptr [rdi], {ord(char):#x}; mov byte ptr [rdi + 1], 0"


def string_search_end(address_of: AddressOf) -> str:
    """How a search ends: at ``found`` with the string at rsi, at ``nothing`` with the empty one."""
    return f"""
    nothing:
        mov byte ptr [rdi], 0
        ret
    found:
        call {address_of("copy_string"):#x}
        ret
    """


def _strlen(context: CodegenContext, _address_of: AddressOf) -> str:
    """Keeps everything but rax."""
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


def _put(context: CodegenContext, _address_of: AddressOf) -> str:
    """rcx bytes from rsi."""
    return f"""
        cmp rcx, {room(context):#x}
        jbe fits
        mov ecx, {room(context):#x}
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


def _text(context: CodegenContext, _address_of: AddressOf) -> str:
    """The string at rsi."""
    return f"""
        mov ecx, {room(context) + 1:#x}
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
        mov ecx, {room(context) + 1:#x}
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


def _case(first: str, change: str) -> Routine:
    def text(context: CodegenContext, _address_of: AddressOf) -> str:
        return f"""
            mov ecx, {room(context) + 1:#x}
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
    "store_string": _put,
    "strchr": _strchr,
    "strjoin": _strjoin,
    "strlen": _strlen,
    "strrchr": _strrchr,
    "copy_string": _text,
    "tolower": _case("A", "add al, 32"),
    "toupper": _case("a", "sub al, 32"),
}
