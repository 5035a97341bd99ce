"""Take and end speculations. Speculative records go through the ring like all others; the host keeps them apart.

speculation         -> rax: the number of a speculation that was free, or 0 after counting that there was none
speculation_active  rax: number   -> zero flag when that speculation is active
speculation_end     rax: number   -> eax: 1 when that speculation was active and is ended now, else 0

The guest only knows of each speculation whether it is free, active, or ended but not yet processed by the host: a word
of the data memory each, changed by compare-and-exchange.
"""

from __future__ import annotations

from probekit.buffers.layout import HeaderWord
from probekit.buffers.variables import SPECULATION_ACTIVE, SPECULATION_ENDED
from probekit.codegen.context import CodegenContext
from probekit.codegen.runtime.core import header
from probekit.codegen.runtime.registry import AddressOf, Routine
from probekit.errors import required

__all__ = ("ROUTINES",)


def _words(context: CodegenContext) -> tuple[int, int]:
    """Return the address of the first word, and the number of words."""
    words = required(context.storage.speculations, "the words of speculations in guest memory")
    return context.activity + words.offset, words.size // 8


def _acquire(context: CodegenContext, _address_of: AddressOf) -> str:
    """Take the first free word. r10d: 1 when the host has yet to process an ended speculation."""
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
