"""Look-ups in the tables of hashed aggregations, one routine for each aggregation.

agg_find_N      rdi: key              -> rax: address of the value words, or 0 (a drop was counted)

Open addressing in a table of each CPU: the key's words are mixed to a hash, and a bounded number of places is tried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from probekit.buffers.aggs import KeyPart
from probekit.buffers.layout import MAX_PROBES_PER_LOOKUP, HeaderWord, TableStore
from probekit.buffers.variables import HASH_MULTIPLIER
from probekit.codegen.context import CodegenContext
from probekit.codegen.runtime.core import UNROLLED_WORDS, header

__all__ = ("agg_find",)


@dataclass(frozen=True, slots=True)
class _Run:
    """Words of a key one after another. ``ends``: they are a stack's, which is over at its first 0."""

    start: int
    count: int
    ends: bool


def _runs(parts: Sequence[KeyPart]) -> Iterator[_Run]:
    at = 0
    for ends, group in groupby(parts, lambda part: part.kind == "stack"):
        for count in (p.words for p in group) if ends else (sum(p.words for p in group),):
            yield _Run(at, count, ends)
            at += count


def _each(runs: Sequence[_Run], label: str, one: Callable[[str], str]) -> str:
    """``one`` for the place of each word, in a loop where there are many."""
    lines: list[str] = []
    for run in runs:
        done = f"{label}_{run.start}"
        if run.count <= UNROLLED_WORDS:
            for i in range(run.start, run.start + run.count):
                lines.append(one(f"{i * 8:#x}"))
                if run.ends and i < run.start + run.count - 1:
                    lines.append(f"cmp qword ptr [rdi + {i * 8:#x}], 0; je {done}")
        else:
            lines.append(f"mov esi, {run.start}")
            lines.append(f"{done}_more:")
            lines.append(one("rsi*8"))
            if run.ends:
                lines.append(f"cmp qword ptr [rdi + rsi*8], 0; je {done}")
            lines.append(f"inc esi; cmp esi, {run.start + run.count}; jb {done}_more")
        if run.ends:
            lines.append(f"{done}:")
    return "\n".join(lines)


def _mix(at: str) -> str:
    return f"xor rax, qword ptr [rdi + {at}]; imul rax, r8; ror rax, 32"


def _hash(runs: Sequence[_Run]) -> str:
    """rax = the key's words mixed; r8 holds the multiplier."""
    text = _each(runs, "hash", _mix)
    first = "xor rax, qword ptr [rdi + 0x0]"
    return text.replace("xor", "mov", 1) if text.startswith(first) else f"xor eax, eax\n{text}"


def _same(at: str) -> str:
    return f"mov r10, qword ptr [rdi + {at}]; cmp r10, qword ptr [r8 + {at} + 8]; jne next"


def _keep(at: str) -> str:
    return f"mov r10, qword ptr [rdi + {at}]; mov qword ptr [r8 + {at} + 8], r10"


def agg_find(store: TableStore, context: CodegenContext) -> str:
    """Find or make the entry of a key. The tag is stored last, so that a reader never sees half an entry."""
    shift = 64 - (store.capacity.bit_length() - 1)
    value = (1 + store.key_words) * 8
    plan = context.aggregations[store.agg]
    runs, initial = tuple(_runs(plan.keys)), plan.initial
    start = "\n".join(
        f"mov r10, {word & (1 << 64) - 1:#x}; mov qword ptr [r8 + {value + i * 8:#x}], r10"
        for i, word in enumerate(initial)
        if word  # the guest hands out zeroed memory, and an entry is used once
    )
    return f"""
        mov r8, {HASH_MULTIPLIER:#x}
        {_hash(runs)}
        imul rax, r8
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
        {_each(runs, "same", _same)}
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
        {_each(runs, "keep", _keep)}
        {start}
        mov qword ptr [r8], rax
        lea rax, [r8 + {value:#x}]
        ret
    """
