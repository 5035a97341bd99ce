"""Check stores of a script, and give out scratch memory.

may_store   rdi, ecx: bytes                   -> carry when a script may not write there; keeps rdi, ecx, rdx, rsi
in_alloca   rdi, rcx: bytes                   -> carry unless it is memory of ``alloca()``; keeps the same
alloca      rsi: bytes                        -> rax: address, zeroed; carry when there is no room
bcopy       rsi: source, rdi: target, rcx: bytes  -> the target is memory of ``alloca()``; they may overlap
"""

from __future__ import annotations

from collections.abc import Iterator

from probekit.buffers.layout import FaultKind
from probekit.buffers.variables import ENTRY_HEAD, THREAD_HEAD
from probekit.codegen.context import CodegenContext
from probekit.codegen.runtime.registry import AddressOf, Routine

__all__ = ("ROUTINES",)


def _within(start: str, size: int, label: str) -> str:
    """Go to ``done`` when [rdi, rdi + ecx) lies in the ``size`` bytes from ``start`` on, else to ``label``."""
    return f"""
        mov rax, rdi
        sub rax, {start}
        cmp rax, {size:#x}
        jae {label}
        add rax, rcx
        cmp rax, {size:#x}
        jbe done
    {label}:
    """


def _may_store(context: CodegenContext, _address_of: AddressOf) -> str:
    """Allow the objects that the script declared, its scratch memory, and values of its threads and arrays."""
    scratch, storage = context.scratch, context.storage
    checks: list[str] = []
    for var in storage.objects:
        extent = storage.globals_[var]
        checks.append(f"mov r8, {context.activity + extent.offset:#x}")
        checks.append(_within("r8", extent.size, f"global_{var}"))
    for var, extent in scratch.local_variables.items():
        checks.append(f"lea r8, {context.in_scratch(extent.offset)}")
        checks.append(_within("r8", extent.size, f"local_{var}"))
    if scratch.strings_size:
        checks.append(f"lea r8, {context.in_scratch(scratch.strings)}")
        checks.append(_within("r8", scratch.strings_size, "strings"))
    if scratch.alloca_size:
        checks.append(f"lea r8, {context.in_scratch(scratch.alloca)}")
        checks.append(f"mov r9, qword ptr {context.in_scratch(scratch.alloca_next)}")
        checks.append(
            "sub r9, r8; mov rax, rdi; sub rax, r8; cmp rax, r9; jae alloca; "
            "add rax, rcx; cmp rax, r9; jbe done\nalloca:"
        )
    checks += _entry_checks(context)
    return "\n".join((*checks, "stc", "ret", "done:", "clc", "ret"))


def _entry_checks(context: CodegenContext) -> Iterator[str]:
    """Allow values of threads and of elements: inside one entry, after its head and the first word of its key."""
    threads, dynamic = context.storage.threads, context.storage.dynamic
    if threads is not None:
        yield _in_entries("thread", context.activity + threads.offset, threads.size, threads.stride, THREAD_HEAD)
    if dynamic is not None:
        start = context.activity + dynamic.entries_offset
        yield _in_entries("element", start, dynamic.capacity * dynamic.stride, dynamic.stride, ENTRY_HEAD + 8)


def _in_entries(label: str, start: int, size: int, stride: int, head: int) -> str:
    """Go to ``done`` when the bytes lie in one entry of a table, ``head`` bytes or more from its start, else on."""
    return f"""
        mov r8, {start:#x}
        mov rax, rdi
        sub rax, r8
        cmp rax, {size:#x}
        jae {label}
        mov r9, rdx
        xor edx, edx
        mov r8d, {stride:#x}
        div r8
        mov rax, rdx
        mov rdx, r9
        cmp rax, {head:#x}
        jb {label}
        add rax, rcx
        cmp rax, {stride:#x}
        jbe done
    {label}:
    """


def _in_alloca(context: CodegenContext, _address_of: AddressOf) -> str:
    scratch = context.scratch
    return f"""
        lea r8, {context.in_scratch(scratch.alloca)}
        mov r9, qword ptr {context.in_scratch(scratch.alloca_next)}
        sub r9, r8
        mov rax, rdi
        sub rax, r8
        cmp rax, r9
        jae outside
        sub r9, rax
        cmp rcx, r9
        ja outside
        clc
        ret
    outside:
        stc
        ret
    """


def _alloca(context: CodegenContext, _address_of: AddressOf) -> str:
    scratch = context.scratch
    return f"""
        mov rax, qword ptr {context.in_scratch(scratch.alloca_next)}
        lea rdx, {context.in_scratch(scratch.alloca + scratch.alloca_size)}
        sub rdx, rax
        cmp rsi, rdx
        ja nothing
        add rsi, 7
        and rsi, -8
        cmp rsi, rdx
        ja nothing
        mov rdi, rax
        add rsi, rax
        mov qword ptr {context.in_scratch(scratch.alloca_next)}, rsi
    next:
        cmp rdi, rsi
        jae done
        mov qword ptr [rdi], 0
        add rdi, 8
        jmp next
    done:
        clc
        ret
    nothing:
        mov edx, {FaultKind.NOSCRATCH}
        xor eax, eax
        stc
        ret
    """


def _bcopy(context: CodegenContext, address_of: AddressOf) -> str:
    """Copy forwards or backwards. An unreadable source is the fault, rather than a target that may not be written."""
    return f"""
        mov rax, rsi
        test rcx, rcx
        js fault
        jz done
        call {address_of("in_alloca"):#x}
        jb target
        cmp rdi, rsi
        jbe forward
        mov rdx, rdi
        sub rdx, rsi
        cmp rdx, rcx
        jae forward
        mov r8, rcx
        mov r9, rsi
    back:
        lea rax, [r9 + r8 - 1]
        call {address_of("load_1"):#x}
        jb source
        mov byte ptr [rdi + r8 - 1], al
        dec r8
        jnz back
    done:
        clc
        ret
    source:
        mov rax, r9
        stc
        ret
    forward:
        call {address_of("load_bytes"):#x}
        ret
    target:
        mov rax, rsi
        call {address_of("load_1"):#x}
        mov rax, rsi
        jb fault
        mov rax, rdi
    fault:
        stc
        ret
    """


ROUTINES: dict[str, Routine] = {
    "alloca": _alloca,
    "bcopy": _bcopy,
    "in_alloca": _in_alloca,
    "may_store": _may_store,
}
