"""``json()`` as routines, equal to :mod:`probekit.interp.jsontext` byte for byte: see ``texts`` for their rules.

json          rsi: document, rdx: path   -> what is there, or nothing
json_member   r10, rdx: start and end of a name  -> at that member's value; carry when there is none
json_element  r10d: number               -> at that element; carry when there is none

Time is bounded by the lengths of the document and of the path, and by nothing else: both are gone through once.
"""

from __future__ import annotations

from probekit.codegen.context import Context
from probekit.codegen.jsonscan import JSON_SCAN, char
from probekit.codegen.routines import At, Routine

__all__ = ("JSON",)

_LONGEST_NUMBER = 9  # digits of an element's number


def _member(_context: Context, at: At) -> str:
    """Names are compared as they are written. r11: the key's start, rcx: its end, then its length."""
    return f"""
        call {at("json_blank"):#x}
        cmp al, {char("{")}
        jne bad
        inc rsi
        call {at("json_blank"):#x}
    next:
        lea r11, [rsi + 1]
        call {at("json_string"):#x}
        jb out
        lea rcx, [rsi - 1]
        call {at("json_blank"):#x}
        cmp al, {char(":")}
        jne bad
        inc rsi
        call {at("json_blank"):#x}
        sub rcx, r11
        mov rax, rdx
        sub rax, r10
        cmp rax, rcx
        jne other
    same:
        mov al, byte ptr [r11 + rcx - 1]
        cmp al, byte ptr [r10 + rcx - 1]
        jne other
        dec rcx
        jnz same
        clc
        ret
    other:
        call {at("json_comma"):#x}
        jae next
        ret
    bad:
        stc
    out:
        ret
    """


def _element(_context: Context, at: At) -> str:
    return f"""
        call {at("json_blank"):#x}
        cmp al, {char("[")}
        jne bad
        inc rsi
        call {at("json_blank"):#x}
    next:
        test r10d, r10d
        jz there
        dec r10d
        call {at("json_comma"):#x}
        jae next
        ret
    there:
        call {at("json_blank"):#x}
        test al, al
        jz bad
        cmp al, {char("]")}
        je bad
        clc
        ret
    bad:
        stc
        ret
    """


def _json(_context: Context, at: At) -> str:
    """rdx goes through the path, which ends at r9."""
    return f"""
        call {at("strlen"):#x}
        lea r8, [rsi + rax]
        xchg rsi, rdx
        call {at("strlen"):#x}
        xchg rsi, rdx
        lea r9, [rdx + rax]
        test rax, rax
        jz nothing
    step:
        cmp rdx, r9
        jae value
        mov al, byte ptr [rdx]
        cmp al, {char("[")}
        je element
        cmp al, {char(".")}
        jne name
        inc rdx
    name:
        mov r10, rdx
    letter:
        cmp rdx, r9
        jae named
        mov al, byte ptr [rdx]
        cmp al, {char(".")}
        je named
        cmp al, {char("[")}
        je named
        cmp al, {char("]")}
        je named
        inc rdx
        jmp letter
    named:
        cmp rdx, r10
        je nothing
        call {at("json_member"):#x}
        jae step
        jmp nothing
    element:
        xor r10d, r10d
        xor ecx, ecx
    digit:
        inc rdx
        cmp rdx, r9
        jae nothing
        movzx eax, byte ptr [rdx]
        cmp al, {char("]")}
        je numbered
        sub eax, {char("0")}
        cmp eax, 9
        ja nothing
        imul r10d, r10d, 10
        add r10d, eax
        inc ecx
        cmp ecx, {_LONGEST_NUMBER}
        jbe digit
        jmp nothing
    numbered:
        inc rdx
        test ecx, ecx
        jz nothing
        call {at("json_element"):#x}
        jae step
    nothing:
        mov byte ptr [rdi], 0
        ret
    value:
        call {at("json_blank"):#x}
        mov r10, rsi
        call {at("json_string"):#x}
        lea rcx, [rsi - 1]
        jb other
        inc r10
        jmp found
    other:
        mov rsi, r10
        call {at("json_value"):#x}
        jb nothing
        mov rcx, rsi
    found:
        mov rsi, r10
        sub rcx, r10
        call {at("put"):#x}
        ret
    """


JSON: dict[str, Routine] = {
    **JSON_SCAN,
    "json": _json,
    "json_element": _element,
    "json_member": _member,
}
