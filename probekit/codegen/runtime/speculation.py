"""Speculations as assembly. What is speculated goes through the ring like any record; the host keeps it apart.

The guest knows of each speculation only whether it is free, active, or ended but not yet seen to by the host: a word
each in the data memory, changed by compare-and-exchange.
"""

from __future__ import annotations

from probekit.buffers.layout import HeaderWord
from probekit.buffers.variables import SPECULATION_ACTIVE, SPECULATION_ENDED
from probekit.codegen.context import CodegenContext
from probekit.codegen.runtime.core import header
from probekit.codegen.runtime.registry import AddressOf, Routine
from probekit.errors import InternalError

__all__ = ("ROUTINES",)


def _words(context: CodegenContext) -> tuple[int, int]:
    """Address of the first word, and how many there are."""
    place = context.storage.speculations
    if place is None:
        raise InternalError("speculations have no words in guest memory")
    return context.activity + place.offset, place.size // 8


def _acquire(context: CodegenContext, _address_of: AddressOf) -> str:
    """-> rax: the number of a speculation that was free, or 0 (which is counted). r10d: one is being seen to."""
    first, count = _words(context)
    return f"""
        mov r9, {first:#x}
        xor edx, edx
        xor r10d, r10d
        mov r8d, {SPECULATION_ACTIVE}
    next:
        mov rax, qword ptr [r9 + rdx*8]
        test rax, rax
        jnz taken
        lock cmpxchg qword ptr [r9 + rdx*8], r8
        jnz taken
        lea eax, [rdx + 1]
        ret
    taken:
        cmp rax, {SPECULATION_ENDED}
        jne active
        mov r10d, 1
    active:
        inc edx
        cmp edx, {count:#x}
        jb next
        xor eax, eax
        test r10d, r10d
        jnz busy
        inc {header(HeaderWord.SPEC_UNAVAILABLE)}
        ret
    busy:
        inc {header(HeaderWord.SPEC_BUSY)}
        ret
    """


def _end(context: CodegenContext, _address_of: AddressOf) -> str:
    """rax: a number -> 0 in eax unless that speculation was active and is ended now."""
    first, count = _words(context)
    return f"""
        dec rax
        cmp rax, {count:#x}
        jae never
        mov rdx, {first:#x}
        lea rdx, [rdx + rax*8]
        mov eax, {SPECULATION_ACTIVE}
        mov ecx, {SPECULATION_ENDED}
        lock cmpxchg qword ptr [rdx], rcx
        jnz never
        mov eax, 1
        ret
    never:
        xor eax, eax
        ret
    """


def _active(context: CodegenContext, _address_of: AddressOf) -> str:
    """rax: a number -> zero flag when that speculation is active."""
    first, count = _words(context)
    return f"""
        dec rax
        cmp rax, {count:#x}
        jae never
        mov rdx, {first:#x}
        cmp qword ptr [rdx + rax*8], {SPECULATION_ACTIVE}
        ret
    never:
        test rsp, rsp
        ret
    """


ROUTINES: dict[str, Routine] = {
    "speculation": _acquire,
    "speculation_active": _active,
    "speculation_end": _end,
}
