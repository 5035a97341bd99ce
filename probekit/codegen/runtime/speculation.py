"""Take and end speculations. Speculative records go through the ring like all others; the host keeps them apart.

speculation         -> rax: the number of a speculation that was free, or 0 after counting that there was none
speculation_active  rax: number   -> zero flag when that speculation is active; it notes that this CPU has a record
speculation_end     rax: number   -> rax: what the host has to know: 0 when that speculation was not active, the
                    number when it is ended now, the number negated when it is ended and free already

The guest only knows of each speculation who has speculated (:data:`probekit.buffers.variables.SPECULATION_FREE` and
after it): a word of the data memory each, changed by compare-and-exchange. Where only this CPU has, all its records are
in this CPU's ring before the one that ends it, and the host cannot confuse them with those of the next use.
"""

from __future__ import annotations

from probekit.buffers.layout import HeaderWord
from probekit.buffers.variables import SPECULATION_ACTIVE, SPECULATION_ENDED, SPECULATION_FREE, SPECULATION_MANY
from probekit.codegen.context import CodegenContext
from probekit.codegen.runtime.core import header
from probekit.codegen.runtime.registry import AddressOf, Routine
from probekit.errors import required

__all__ = ("ROUTINES",)

_TRIES = 64  # a try fails when another CPU has changed the word in the few nanoseconds since it was read


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
    """End an active speculation. r10: the result."""
    first, count = _words(context)
    return f"""
        mov r9, rax
        dec rax
        cmp rax, {count:#x}
        jae never
        mov rdx, {first:#x}
        lea rdx, [rdx + rax*8]
        mov rax, qword ptr [rdx]
        mov r8d, {_TRIES}
    next:
        mov r10, r9
        neg r10
        mov ecx, {SPECULATION_FREE}
        cmp rax, {SPECULATION_ACTIVE}
        je change
        cmp rax, rbx
        je change
        cmp rax, {SPECULATION_ENDED}
        jbe never
        mov r10, r9
        mov ecx, {SPECULATION_ENDED}
    change:
        lock cmpxchg qword ptr [rdx], rcx
        je done
        dec r8d
        jnz next
    never:
        xor r10d, r10d
    done:
        mov rax, r10
        ret
    """


def _active(context: CodegenContext, _address_of: AddressOf) -> str:
    """Note that this CPU has a record, in a word that says that nobody has, or that somebody else has."""
    first, count = _words(context)
    return f"""
        dec rax
        cmp rax, {count:#x}
        jae never
        mov rdx, {first:#x}
        lea rdx, [rdx + rax*8]
        mov rax, qword ptr [rdx]
        mov r8d, {_TRIES}
    next:
        cmp rax, rbx
        je active
        cmp rax, {SPECULATION_MANY}
        je active
        mov rcx, rbx
        cmp rax, {SPECULATION_ACTIVE}
        je change
        cmp rax, {SPECULATION_ENDED}
        jbe never
        mov ecx, {SPECULATION_MANY}
    change:
        lock cmpxchg qword ptr [rdx], rcx
        je active
        dec r8d
        jnz next
    never:
        test rsp, rsp
        ret
    active:
        xor eax, eax
        ret
    """


ROUTINES: dict[str, Routine] = {
    "speculation": _acquire,
    "speculation_active": _active,
    "speculation_end": _end,
}
