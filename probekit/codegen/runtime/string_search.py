"""Routines that look for one string in another, and cut strings: see ``texts`` for their rules."""

from __future__ import annotations

from probekit.codegen.context import Context
from probekit.codegen.reg_alloc import longest_text
from probekit.codegen.runtime.registry import At, Routine
from probekit.codegen.runtime.strings import found_text

__all__ = ("ROUTINES",)


def _starts(context: Context, _at: At) -> str:
    """Zero flag: the string at rsi starts with the one at rdx. Uses rax, r9, r10 and r11."""
    return f"""
        mov r9, rdx
        mov r10, rsi
        mov r11d, {longest_text(context.program):#x}
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


def _strstr(context: Context, at: At) -> str:
    return f"""
        mov ecx, {longest_text(context.program):#x}
    next:
        call {at("starts"):#x}
        je found
        cmp byte ptr [rsi], 0
        je nothing
        inc rsi
        dec ecx
        jnz next
    {found_text(at)}
    """


_FOUND_PLACE = """
    nothing:
        mov rax, -1
        ret
    found:
        mov rax, rsi
        sub rax, r8
        ret
"""
"""How a search ends whose result is how far rsi is from r8."""


def _index(_context: Context, at: At) -> str:
    return f"""
        call {at("strlen"):#x}
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
        call {at("starts"):#x}
        je found
        cmp rsi, rdi
        jae nothing
        inc rsi
        jmp next
    {_FOUND_PLACE}
    """


def _rindex(_context: Context, at: At) -> str:
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
        call {at("strlen"):#x}
        cmp rcx, rax
        jle from
        mov rcx, rax
    from:
        mov r8, rsi
        add rsi, rcx
    next:
        call {at("starts"):#x}
        je found
        cmp rsi, r8
        je nothing
        dec rsi
        jmp next
    {_FOUND_PLACE}
    """


def _substr(_context: Context, at: At) -> str:
    """r8d: not 0 when there is no length."""
    return f"""
        call {at("strlen"):#x}
        test r8d, r8d
        jz given
        mov rcx, rax
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
        call {at("put"):#x}
        ret
    empty:
        mov byte ptr [rdi], 0
        ret
    """


def _member(context: Context, _at: At) -> str:
    """Zero flag: al is one of the characters of the string at rdx. Uses r9 and r10."""
    return f"""
        mov r9, rdx
        mov r10d, {longest_text(context.program):#x}
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


def _strtok(context: Context, at: At) -> str:
    """What follows the token is kept: a word that says so, then the string."""
    kept = context.scratch.token
    return f"""
        mov r11d, {longest_text(context.program):#x}
    skip:
        mov al, byte ptr [rsi]
        test al, al
        jz nothing
        call {at("member"):#x}
        jne token
        inc rsi
        dec r11d
        jnz skip
    nothing:
        mov qword ptr {context.in_scratch(kept)}, 0
        mov byte ptr [rdi], 0
        ret
    token:
        mov r8, rsi
    scan:
        mov al, byte ptr [rsi]
        test al, al
        jz last
        call {at("member"):#x}
        je cut
        inc rsi
        dec r11d
        jnz scan
    last:
        mov qword ptr {context.in_scratch(kept)}, 0
        mov rcx, rsi
        sub rcx, r8
        mov rsi, r8
        call {at("put"):#x}
        ret
    cut:
        push rsi
        mov rcx, rsi
        sub rcx, r8
        mov rsi, r8
        call {at("put"):#x}
        pop rsi
        inc rsi
        mov qword ptr {context.in_scratch(kept)}, 1
        lea rdi, {context.in_scratch(kept + 8)}
        mov ecx, {longest_text(context.program):#x}
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


def _strtok_more(context: Context, at: At) -> str:
    """The delimiters alone, in rsi."""
    kept = context.scratch.token
    return f"""
        mov rdx, rsi
        lea rsi, {context.in_scratch(kept + 8)}
        cmp qword ptr {context.in_scratch(kept)}, 0
        jne go
        mov byte ptr [rdi], 0
        ret
    go:
        call {at("strtok"):#x}
        ret
    """


ROUTINES: dict[str, Routine] = {
    "index": _index,
    "member": _member,
    "rindex": _rindex,
    "starts": _starts,
    "strstr": _strstr,
    "strtok": _strtok,
    "strtok_more": _strtok_more,
    "substr": _substr,
}
