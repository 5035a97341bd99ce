"""Load from memory that may not be mapped, of the kernel and of processes, and follow a task's ancestors.

    load_N            rax: address     -> rax: N bytes of kernel memory, zero-extended
    load_string       rsi: address, rdi: target, ecx: most bytes  -> the string, with a NUL after these bytes
    load_bytes        rsi: address, rdi: target, ecx: bytes       -> kernel memory
    copy_from_user    rsi: address, rdi: target, rcx: bytes       -> user memory
    string_from_user  rsi: address, rdi: target, ecx: bytes with the NUL  -> a string in user memory
    progenyof         rsi: process     -> rax: 1 when the current task descends from it, else 0

Loads go through the kernel's own ``__get_user_nocheck_N``: one instruction with an entry in the exception table, so
that a page fault is an error and nothing more. It does not check that the address is canonical and in the kernel's
half. The routines check that as ``copy_from_kernel_nofault_allowed()`` does (arch/x86/mm/maccess.c).
"""

from __future__ import annotations

from probekit.codegen.context import CodegenContext
from probekit.codegen.runtime.registry import AddressOf, Routine, kernel_function
from probekit.codegen.runtime.stack import spill
from probekit.errors import UnsupportedError

__all__ = ("ROUTINES",)

_HIGHEST_ADDRESS = 0xFFFFFFFFFF5FFFF8
"""The highest address that is loaded from. Above it is only the vsyscall page, whose faults differ from others."""

_MAX_GENERATIONS = 512


def _load(size: int) -> Routine:
    def text(context: CodegenContext, _address_of: AddressOf) -> str:
        start = context.kernel.start
        function = kernel_function(context.kernel.load.get(size), f"__get_user_nocheck_{size}")
        widened = {1: "movzx eax, dl", 2: "movzx eax, dx", 4: "mov eax, edx", 8: "mov rax, rdx"}[size]
        return f"""
            mov rcx, {start:#x}
            mov rdx, rax
            sub rdx, rcx
            mov rcx, {_HIGHEST_ADDRESS - start:#x}
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


def _load_string(_context: CodegenContext, address_of: AddressOf) -> str:
    """Copy byte by byte, as a string may end at the last mapped byte. A fault is at the first missing byte."""
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


def _copy_from_user(context: CodegenContext, _address_of: AddressOf) -> str:
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


def _string_from_user(context: CodegenContext, _address_of: AddressOf) -> str:
    """Copy by the kernel's function, which ends a string that it cuts with a NUL, and returns the bytes with the NUL.

    For an empty string some kernels return 1 and others 0. A fault is below 0. Where the byte after the last one that
    is wanted cannot be read, these bytes are copied without it: they may be the last ones of a page.
    """
    function = kernel_function(context.kernel.user_text, "strncpy_from_user_nofault")
    return f"""
        mov {spill(context)}, rsi
        mov {spill(context, 1)}, rdi
        mov {spill(context, 2)}, rcx
        mov rdx, rcx
        sub rsp, 8
        call {function:#x}
        add rsp, 8
        test rax, rax
        js fault
        jnz done
        mov rdi, {spill(context, 1)}
        mov byte ptr [rdi], 0
    done:
        clc
        ret
    fault:
        {_copy_without_the_end(context)}
        mov rax, {spill(context)}
        stc
        ret
    """


def _copy_without_the_end(context: CodegenContext) -> str:
    """Write the second try of ``string_from_user``, which does not read the last byte but writes a NUL for it."""
    function = context.kernel.user_copy
    if function is None:
        return ""
    return f"""
        mov rdx, {spill(context, 2)}
        dec rdx
        jz missing
        mov rsi, {spill(context)}
        mov rdi, {spill(context, 1)}
        sub rsp, 8
        call {function:#x}
        add rsp, 8
        test rax, rax
        jnz missing
        mov rdi, {spill(context, 1)}
        mov rcx, {spill(context, 2)}
        mov byte ptr [rdi + rcx - 1], 0
        clc
        ret
    missing:
    """


def _progenyof(context: CodegenContext, _address_of: AddressOf) -> str:
    task = context.task
    if task is None or task.parent is None:
        raise UnsupportedError("progenyof() needs the kernel's type information", feature="progenyof")
    return f"""
        mov rdx, qword ptr gs:[{task.current:#x}]
        mov ecx, {_MAX_GENERATIONS}
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
    "copy_from_user": _copy_from_user,
    "load_bytes": _load_bytes,
    "load_string": _load_string,
    "progenyof": _progenyof,
    "string_from_user": _string_from_user,
}
