"""The shared routines. They may loop, each with a bound of its own; clauses only move forward.

Every routine keeps ``rbx``, ``rbp`` and ``rsp`` and may use everything else.

    reserve     ecx: bytes            -> rax: address of that much ring, or 0 (a drop was counted)
    copy        rdi, rsi, ecx: size   -> a NUL-terminated string copied and padded with zeros to its size
    compare     rdi, rsi              -> eax: negative, 0 or positive, by unsigned bytes
    find_N      rdi: key, rax: hash   -> rax: address of the value words, or 0 (a drop was counted)
"""

from __future__ import annotations

from probekit.buffers.aggs import AGG_FUNCS
from probekit.buffers.layout import MAX_PROBES_PER_LOOKUP, PAD_CLAUSE, BlockLayout, HeaderWord, TableStore
from probekit.codegen.context import Context

__all__ = ("COMPARE", "COPY", "find", "header", "reserve")

MAX_STRING = 256


def header(word: int) -> str:
    """The operand of a word in the block's header."""
    return f"qword ptr [rbx + {word * 8:#x}]"


def reserve(layout: BlockLayout) -> str:
    """Make room in the ring, writing a pad record first where the room at its end is too small.

    The pad is written also when what lies behind it is not free yet: a large record fits as soon as the reader is
    through. Without a ring everything is a drop.
    """
    size, ring = layout.ring_size, layout.ring_offset
    drop = f"inc {header(HeaderWord.PRINCIPAL_DROPS)}; xor eax, eax; ret"
    if not size:
        return drop
    return f"""
        mov rax, {header(HeaderWord.HEAD)}
        mov rdx, rax
        sub rdx, {header(HeaderWord.TAIL)}
        mov esi, eax
        and esi, {size - 1:#x}
        mov edi, {size:#x}
        sub edi, esi
        cmp edi, ecx
        jae fits
        add rdx, rdi
        cmp rdx, {size:#x}
        ja drop
        lea rsi, [rbx + rsi + {ring:#x}]
        mov dword ptr [rsi], edi
        mov dword ptr [rsi + 4], {PAD_CLAUSE:#x}
        add rax, rdi
        mov {header(HeaderWord.HEAD)}, rax
        xor esi, esi
    fits:
        add rdx, rcx
        cmp rdx, {size:#x}
        ja drop
        lea rax, [rbx + rsi + {ring:#x}]
        ret
    drop:
        {drop}
    """


COPY = """
    next:
        mov al, byte ptr [rsi]
        mov byte ptr [rdi], al
        inc rdi
        dec ecx
        jz done
        cmp al, 1
        sbb rsi, -1
        jmp next
    done:
        ret
"""
# `cmp al, 1; sbb rsi, -1` steps on unless the byte was the NUL, so that the NUL is what fills the rest.

COMPARE = f"""
        mov ecx, {MAX_STRING}
    next:
        movzx eax, byte ptr [rdi]
        movzx edx, byte ptr [rsi]
        sub eax, edx
        jnz done
        test edx, edx
        jz done
        inc rdi
        inc rsi
        dec ecx
        jnz next
    done:
        ret
"""


def find(store: TableStore, context: Context) -> str:
    """Find or make the entry of a key. The tag is stored last, so that a reader never sees half an entry."""
    shift = 64 - (store.capacity.bit_length() - 1)
    value = (1 + store.key_words) * 8
    compare = "\n".join(
        f"mov r10, qword ptr [rdi + {i * 8:#x}]; cmp r10, qword ptr [r8 + {8 + i * 8:#x}]; jne next"
        for i in range(store.key_words)
    )
    copy = "\n".join(
        f"mov r10, qword ptr [rdi + {i * 8:#x}]; mov qword ptr [r8 + {8 + i * 8:#x}], r10"
        for i in range(store.key_words)
    )
    initial = AGG_FUNCS[context.aggregations[store.agg].func].initial
    start = "\n".join(
        f"mov r10, {word & (1 << 64) - 1:#x}; mov qword ptr [r8 + {value + i * 8:#x}], r10"
        for i, word in enumerate(initial)
        if word  # the guest hands out zeroed memory, and an entry is used once
    )
    return f"""
        or rax, 1
        mov rcx, rax
        shr rcx, {shift}
        mov edx, {min(MAX_PROBES_PER_LOOKUP, store.capacity)}
    visit:
        imul r8, rcx, {store.stride:#x}
        lea r8, [rbx + r8 + {store.offset:#x}]
        mov r9, qword ptr [r8]
        test r9, r9
        jz free
        cmp r9, rax
        jne next
        {compare}
        lea rax, [r8 + {value:#x}]
        ret
    next:
        inc ecx
        and ecx, {store.capacity - 1:#x}
        dec edx
        jnz visit
        inc {header(HeaderWord.AGG_DROPS + store.agg)}
        xor eax, eax
        ret
    free:
        {copy}
        {start}
        mov qword ptr [r8], rax
        lea rax, [r8 + {value:#x}]
        ret
    """
