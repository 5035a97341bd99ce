"""Routines that load from memory that may not be mapped, and that ask the kernel about tasks.

    load_N      rax: address          -> rax: N bytes of kernel memory, zero-extended
    load_text   rsi, rdi: target, ecx: most bytes  -> the string at an address, with its NUL
    load_bytes  rsi, rdi: target, ecx: bytes       -> kernel memory copied
    user_bytes  rsi, rdi: target, rcx: bytes       -> user memory copied
    user_text   rsi, rdi: target, ecx: most bytes  -> a string from user memory
    progenyof   rsi: process          -> rax: 1 when the task descends from it

Loads go through the kernel's own ``__get_user_nocheck_N``: one instruction with an entry in the exception table, so
that a page fault is an error and nothing more. What it lacks is the check that the address is one of the kernel's
half and canonical, which is made here as ``copy_from_kernel_nofault_allowed()`` makes it.
"""

from __future__ import annotations

from probekit.codegen.context import CodegenContext
from probekit.codegen.runtime.registry import AddressOf, Routine, kernel_function
from probekit.codegen.runtime.stack import spill
from probekit.errors import UnsupportedError

__all__ = ("ROUTINES",)

_LIMIT = 0xFFFFFFFFFF5FFFF8
"""Above it there is only the vsyscall page, whose faults are not like others."""


_GENERATIONS = 512


def _load(size: int) -> Routine:
    def text(context: CodegenContext, _address_of: AddressOf) -> str:
        start = context.kernel.start
        function = kernel_function(context.kernel.load.get(size), f"__get_user_nocheck_{size}")
        widened = {1: "movzx eax, dl", 2: "movzx eax, dx", 4: "mov eax, edx", 8: "mov rax, rdx"}[size]
        return f"""
            mov rcx, {start:#x}
            mov rdx, rax
            sub rdx, rcx
            mov rcx, {_LIMIT - start:#x}
            cmp rdx, rcx
            ja bad
            mov rcx, rax
            call {function:#x}
            test eax, eax
            jnz fault
            {widened}
            ret
        fault:
            mov rax, rcx
        bad:
            stc
            ret
        """

    return text


def _load_text(_context: CodegenContext, address_of: AddressOf) -> str:
    """Bytewise: a string may end at the last byte that is there. r8 what is left; the fault is at the missing byte."""
    return f"""
        mov r8d, ecx
    next:
        mov rax, rsi
        call {address_of("load_1"):#x}
        jc fault
        mov byte ptr [rdi], al
        test al, al
        jz done
        inc rdi
        inc rsi
        dec r8d
        jnz next
        mov byte ptr [rdi], 0
    done:
        clc
        ret
    fault:
        mov byte ptr [rdi], 0
        mov rax, rsi
        stc
        ret
    """


def _load_bytes(_context: CodegenContext, address_of: AddressOf) -> str:
    return f"""
        mov r9, rsi
        mov r8d, ecx
    next:
        cmp r8d, 8
        jb bytes
        mov rax, rsi
        call {address_of("load_8"):#x}
        jc fault
        mov qword ptr [rdi], rax
        add rsi, 8
        add rdi, 8
        sub r8d, 8
        jmp next
    bytes:
        test r8d, r8d
        jz done
        mov rax, rsi
        call {address_of("load_1"):#x}
        jc fault
        mov byte ptr [rdi], al
        inc rsi
        inc rdi
        dec r8d
        jmp bytes
    done:
        clc
        ret
    fault:
        mov rax, r9
        stc
        ret
    """


def _user_bytes(context: CodegenContext, _address_of: AddressOf) -> str:
    function = kernel_function(context.kernel.user_copy, "copy_from_user_nofault")
    return f"""
        mov {spill(context)}, rsi
        mov rdx, rcx
        sub rsp, 8
        call {function:#x}
        add rsp, 8
        test rax, rax
        jnz fault
        clc
        ret
    fault:
        mov rax, {spill(context)}
        stc
        ret
    """


def _user_text(context: CodegenContext, _address_of: AddressOf) -> str:
    """ecx: bytes with the NUL. The kernel's function ends what it cut with a NUL."""
    function = kernel_function(context.kernel.user_text, "strncpy_from_user_nofault")
    return f"""
        mov {spill(context)}, rsi
        mov rdx, rcx
        sub rsp, 8
        call {function:#x}
        add rsp, 8
        test rax, rax
        jle fault
        clc
        ret
    fault:
        mov rax, {spill(context)}
        stc
        ret
    """


def _progenyof(context: CodegenContext, _address_of: AddressOf) -> str:
    task = context.task
    if task is None or task.parent is None:
        raise UnsupportedError("progenyof() needs the kernel's type information", feature="progenyof")
    return f"""
        mov rdx, qword ptr gs:[{task.current:#x}]
        mov ecx, {_GENERATIONS}
    next:
        movsxd rax, dword ptr [rdx + {task.tgid:#x}]
        cmp rax, rsi
        je yes
        mov rax, rdx
        mov rdx, qword ptr [rdx + {task.parent:#x}]
        cmp rax, rdx
        je no
        dec ecx
        jnz next
    no:
        xor eax, eax
        ret
    yes:
        mov eax, 1
        ret
    """


ROUTINES: dict[str, Routine] = {
    **{f"load_{size}": _load(size) for size in (1, 2, 4, 8)},
    "load_bytes": _load_bytes,
    "load_string": _load_text,
    "progenyof": _progenyof,
    "copy_from_user": _user_bytes,
    "string_from_user": _user_text,
}
