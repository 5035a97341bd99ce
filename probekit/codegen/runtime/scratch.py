"""Routines on memory that a script may write: its own objects, and what ``alloca()`` gave it.

may_store   rdi, ecx: bytes       -> carry when a script may not write there; keeps rdi, ecx, rdx, rsi
in_memory   rdi, rcx: bytes       -> carry unless it is what alloca() gave; the same
alloca      rsi: bytes            -> rax: address, zeroed; carry when there is no room
bcopy       rsi, rdi: target, rcx: bytes       -> memory copied to what alloca() gave; they may overlap
"""

from __future__ import annotations

from collections.abc import Iterator

from probekit.buffers.layout import FaultKind
from probekit.buffers.variables import ENTRY_HEAD
from probekit.codegen.context import CodegenContext
from probekit.codegen.runtime.registry import AddressOf, Routine

__all__ = ("ROUTINES",)


def _within(start: str, size: int, label: str) -> str:
    """On to ``done`` when [rdi, rdi + ecx) lies in ``size`` bytes from the address in ``start``; else to ``label``."""
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
    """Objects that the script declared, its own scratch memory, and the elements of its arrays."""
    scratch, storage = context.scratch, context.storage
    checks: list[str] = []
    for var in storage.objects:
        place = storage.globals_[var]
        checks.append(f"mov r8, {context.activity + place.offset:#x}")
        checks.append(_within("r8", place.size, f"global_{var}"))
    for var, place in scratch.local_variables.items():
        checks.append(f"lea r8, {context.in_scratch(place.offset)}")
        checks.append(_within("r8", place.size, f"local_{var}"))
    if scratch.strings_size:
        checks.append(f"lea r8, {context.in_scratch(scratch.strings)}")
        checks.append(_within("r8", scratch.strings_size, "texts"))
    if scratch.alloca_size:
        checks.append(f"lea r8, {context.in_scratch(scratch.alloca)}")
        checks.append(f"mov r9, qword ptr {context.in_scratch(scratch.alloca_next)}")
        checks.append(
            "sub r9, r8; mov rax, rdi; sub rax, r8; cmp rax, r9; jae memory; "
            "add rax, rcx; cmp rax, r9; jbe done\nmemory:"
        )
    checks += _entry_checks(context)
    return "\n".join((*checks, "stc", "ret", "done:", "clc", "ret"))


def _entry_checks(context: CodegenContext) -> Iterator[str]:
    """Values of threads and of elements: inside one entry, behind its head."""
    storage = context.storage
    tables = [(storage.threads, "thread", 0)]
    for table, name, _ in tables:
        if table is not None:
            yield _in_entries(name, context.activity + table.offset, table.size, table.stride, 16)
    if storage.dynamic is not None:
        table_ = storage.dynamic
        start = context.activity + table_.entries_offset
        yield _in_entries("element", start, table_.capacity * table_.stride, table_.stride, ENTRY_HEAD + 8)


def _in_entries(name: str, start: int, size: int, stride: int, head: int) -> str:
    return f"""
        mov r8, {start:#x}
        mov rax, rdi
        sub rax, r8
        cmp rax, {size:#x}
        jae {name}
        mov r9, rdx
        xor edx, edx
        mov r8d, {stride:#x}
        div r8
        mov rax, rdx
        mov rdx, r9
        cmp rax, {head:#x}
        jb {name}
        add rax, rcx
        cmp rax, {stride:#x}
        jbe done
    {name}:
    """


def _in_memory(context: CodegenContext, _address_of: AddressOf) -> str:
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
    """A source that cannot be read is the fault before a target that cannot be written."""
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
    "in_alloca": _in_memory,
    "may_store": _may_store,
}
