"""Take paths apart: ``basename()``, ``dirname()``, ``cleanpath()``.

The path is at rsi. The rules are those of :mod:`probekit.codegen.runtime.strings`.
"""

from __future__ import annotations

from probekit.codegen.context import CodegenContext
from probekit.codegen.reg_alloc import longest_string
from probekit.codegen.runtime.registry import AddressOf, Routine
from probekit.codegen.runtime.strings import store_character

__all__ = ("ROUTINES",)

_SLASH, _DOT = "0x2f", "0x2e"


def _basename(context: CodegenContext, address_of: AddressOf) -> str:
    return f"""
        call {address_of("strlen"):#x}
        test eax, eax
        jz dot
    strip:
        cmp byte ptr [rsi + rax - 1], {_SLASH}
        jne name
        dec eax
        jnz strip
        {store_character(context, "/")}
        ret
    dot:
        {store_character(context, ".")}
        ret
    name:
        mov ecx, eax
    back:
        cmp byte ptr [rsi + rcx - 1], {_SLASH}
        je found
        dec ecx
        jnz back
    found:
        sub eax, ecx
        add rsi, rcx
        mov ecx, eax
        call {address_of("store_string"):#x}
        ret
    """


def _dirname(context: CodegenContext, address_of: AddressOf) -> str:
    return f"""
        call {address_of("strlen"):#x}
        mov ecx, eax
        test ecx, ecx
        jz dot
    strip:
        cmp byte ptr [rsi + rcx - 1], {_SLASH}
        jne name
        dec ecx
        jnz strip
    root:
        {store_character(context, "/")}
        ret
    dot:
        {store_character(context, ".")}
        ret
    name:
        cmp byte ptr [rsi + rcx - 1], {_SLASH}
        je head
        dec ecx
        jnz name
        jmp dot
    head:
        cmp byte ptr [rsi + rcx - 1], {_SLASH}
        jne found
        dec ecx
        jnz head
        jmp root
    found:
        call {address_of("store_string"):#x}
        ret
    """


def _cleanpath(context: CodegenContext, address_of: AddressOf) -> str:
    """Build the path in the bounce buffer, which is long enough. r8: its start; r9: its end so far."""
    return f"""
        lea r8, {context.in_scratch(context.scratch.bounce)}
        mov r9, r8
        mov ecx, {longest_string(context.program):#x}
    next:
        dec ecx
        jz end
        mov al, byte ptr [rsi]
        test al, al
        jz end
        cmp al, {_SLASH}
        je slash
    plain:
        mov byte ptr [r9], al
        inc r9
        inc rsi
        jmp next
        {_clean_slash()}
    end:
        mov rsi, r8
        mov rcx, r9
        sub rcx, r8
        call {address_of("store_string"):#x}
        ret
    """


def _clean_slash() -> str:
    """Skip ``/`` before another one, and ``/.`` before a slash; take the last name off for ``/..``; else copy it."""
    return f"""
    slash:
        mov dl, byte ptr [rsi + 1]
        cmp dl, {_SLASH}
        je one
        cmp dl, {_DOT}
        jne plain
        mov dl, byte ptr [rsi + 2]
        cmp dl, {_SLASH}
        je two
        cmp dl, {_DOT}
        jne plain
        mov dl, byte ptr [rsi + 3]
        test dl, dl
        jz up
        cmp dl, {_SLASH}
        jne plain
    up:
        add rsi, 3
    back:
        cmp r9, r8
        je gone
        dec r9
        cmp byte ptr [r9], {_SLASH}
        jne back
    gone:
        test dl, dl
        jnz next
        mov byte ptr [r9], {_SLASH}
        inc r9
        jmp next
    one:
        inc rsi
        jmp next
    two:
        add rsi, 2
        jmp next
    """


ROUTINES: dict[str, Routine] = {
    "basename": _basename,
    "cleanpath": _cleanpath,
    "dirname": _dirname,
}
