"""Search for one string in another, and cut strings: see :mod:`probekit.codegen.runtime.strings` for the rules.

starts_with    rsi, rdx: strings     -> zero flag when the first starts with the second; changes rax, r9, r10, r11
is_delimiter   al, rdx: string       -> zero flag when the character is in the string; changes r9, r10
strstr         rsi: string, rdx: part
index, rindex  rsi: string, rdx: part, rcx: where to start  -> rax: the place, -1 when there is none
substr         rsi: string, rdx: start, rcx: length, r8d: not 0 when there is no length
strtok         rsi: string, rdx: delimiters
strtok_more    rsi: delimiters       -> the next token of the string that strtok was called with
"""

from __future__ import annotations

from probekit.codegen.context import CodegenContext
from probekit.codegen.reg_alloc import longest_string
from probekit.codegen.runtime.registry import AddressOf, Routine
from probekit.codegen.runtime.strings import string_search_end

__all__ = ("ROUTINES",)


def _starts_with(context: CodegenContext, _address_of: AddressOf) -> str:
    return f"""
        mov r9, rdx
        mov r10, rsi
        mov r11d, {longest_string(context.program):#x}
    next:
        mov al, byte ptr [r9]
        test al, al
        jz done
        cmp al, byte ptr [r10]
        jne done
        inc r9
        inc r10
        dec r11d
        jnz next
    done:
        ret
    """


def _strstr(context: CodegenContext, address_of: AddressOf) -> str:
    return f"""
        mov ecx, {longest_string(context.program):#x}
    next:
        call {address_of("starts_with"):#x}
        je found
        cmp byte ptr [rsi], 0
        je nothing
        inc rsi
        dec ecx
        jnz next
    {string_search_end(address_of)}
    """


_INDEX_END = """
    nothing:
        mov rax, -1
        ret
    found:
        mov rax, rsi
        sub rax, r8
        ret
"""
"""The end of a search whose result is the distance from r8 to rsi, or -1."""


def _index(_context: CodegenContext, address_of: AddressOf) -> str:
    return f"""
        call {address_of("strlen"):#x}
        test rcx, rcx
        jns below
        xor ecx, ecx
    below:
        cmp rcx, rax
        jle from
        mov rcx, rax
    from:
        mov r8, rsi
        lea rdi, [rsi + rax]
        add rsi, rcx
    next:
        call {address_of("starts_with"):#x}
        je found
        cmp rsi, rdi
        jae nothing
        inc rsi
        jmp next
    {_INDEX_END}
    """


def _rindex(_context: CodegenContext, address_of: AddressOf) -> str:
    return f"""
        test rcx, rcx
        jns go
        xor eax, eax
        cmp byte ptr [rdx], 0
        je out
        mov rax, -1
    out:
        ret
    go:
        call {address_of("strlen"):#x}
        cmp rcx, rax
        jle from
        mov rcx, rax
    from:
        mov r8, rsi
        add rsi, rcx
    next:
        call {address_of("starts_with"):#x}
        je found
        cmp rsi, r8
        je nothing
        dec rsi
        jmp next
    {_INDEX_END}
    """


def _substr(_context: CodegenContext, address_of: AddressOf) -> str:
    return f"""
        call {address_of("strlen"):#x}
        test r8d, r8d
        jz given
        mov rcx, {1 << 62:#x}
    given:
        test rdx, rdx
        jns placed
        add rdx, rax
        jns placed
        mov r9, rdx
        add r9, rcx
        jle placed
        mov rcx, r9
        xor edx, edx
    placed:
        test rdx, rdx
        js empty
        cmp rdx, rax
        jge empty
        mov r9, rax
        sub r9, rdx
        test rcx, rcx
        jns counted
        add rcx, r9
    counted:
        test rcx, rcx
        jle empty
        cmp rcx, r9
        jle copy
        mov rcx, r9
    copy:
        add rsi, rdx
        call {address_of("store_string"):#x}
        ret
    empty:
        mov byte ptr [rdi], 0
        ret
    """


def _is_delimiter(context: CodegenContext, _address_of: AddressOf) -> str:
    return f"""
        mov r9, rdx
        mov r10d, {longest_string(context.program):#x}
    next:
        cmp byte ptr [r9], 0
        je nothing
        cmp al, byte ptr [r9]
        je done
        inc r9
        dec r10d
        jnz next
    nothing:
        test r9, r9
    done:
        ret
    """


def _strtok(context: CodegenContext, address_of: AddressOf) -> str:
    """Store the token, and save the rest of the string: a word that is 1 when there is any, then the rest itself."""
    state = context.scratch.strtok_state
    return f"""
        mov r11d, {longest_string(context.program):#x}
    skip:
        mov al, byte ptr [rsi]
        test al, al
        jz nothing
        call {address_of("is_delimiter"):#x}
        jne token
        inc rsi
        dec r11d
        jnz skip
    nothing:
        mov qword ptr {context.in_scratch(state)}, 0
        mov byte ptr [rdi], 0
        ret
    token:
        mov r8, rsi
    scan:
        mov al, byte ptr [rsi]
        test al, al
        jz last
        call {address_of("is_delimiter"):#x}
        je cut
        inc rsi
        dec r11d
        jnz scan
    last:
        mov qword ptr {context.in_scratch(state)}, 0
        mov rcx, rsi
        sub rcx, r8
        mov rsi, r8
        call {address_of("store_string"):#x}
        ret
    cut:
        push rsi
        mov rcx, rsi
        sub rcx, r8
        mov rsi, r8
        call {address_of("store_string"):#x}
        pop rsi
        inc rsi
        mov qword ptr {context.in_scratch(state)}, 1
        lea rdi, {context.in_scratch(state + 8)}
        mov ecx, {longest_string(context.program):#x}
    rest:
        mov al, byte ptr [rsi]
        mov byte ptr [rdi], al
        test al, al
        jz done
        inc rsi
        inc rdi
        dec ecx
        jnz rest
        mov byte ptr [rdi - 1], 0
    done:
        ret
    """


def _strtok_more(context: CodegenContext, address_of: AddressOf) -> str:
    state = context.scratch.strtok_state
    return f"""
        mov rdx, rsi
        lea rsi, {context.in_scratch(state + 8)}
        cmp qword ptr {context.in_scratch(state)}, 0
        jne go
        mov byte ptr [rdi], 0
        ret
    go:
        call {address_of("strtok"):#x}
        ret
    """


ROUTINES: dict[str, Routine] = {
    "index": _index,
    "is_delimiter": _is_delimiter,
    "rindex": _rindex,
    "starts_with": _starts_with,
    "strstr": _strstr,
    "strtok": _strtok,
    "strtok_more": _strtok_more,
    "substr": _substr,
}
