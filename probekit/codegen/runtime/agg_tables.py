"""Look up keys in the tables of hashed aggregations, by one routine for each aggregation.

agg_find_N      rdi: key              -> rax: address of the value's words, or 0 after counting a drop

Each CPU has its own table, with open addressing: the words of the key are mixed to a hash, and a bounded number of
entries is visited.
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
class _WordRun:
    """Words of a key, one after another, that are treated alike."""

    start: int
    """Index of the first word."""
    count: int
    """How many there are."""
    ends_at_zero: bool
    """True for a stack, which ends at its first 0."""


def _word_runs(parts: Sequence[KeyPart]) -> Iterator[_WordRun]:
    """Yield the runs of a key: each stack by itself, everything else joined."""
    start = 0
    for is_stack, group in groupby(parts, lambda part: part.kind == "stack"):
        for count in (p.words for p in group) if is_stack else (sum(p.words for p in group),):
            yield _WordRun(start, count, is_stack)
            start += count


def _for_each_word(runs: Sequence[_WordRun], label: str, one: Callable[[str], str]) -> str:
    """Repeat ``one`` for the offset of each word in the key at rdi, in a loop where there are many; it changes esi."""
    lines: list[str] = []
    for run in runs:
        done = f"{label}_{run.start}"
        if run.count <= UNROLLED_WORDS:
            for i in range(run.start, run.start + run.count):
                lines.append(one(f"{i * 8:#x}"))
                if run.ends_at_zero and i < run.start + run.count - 1:
                    lines.append(f"cmp qword ptr [rdi + {i * 8:#x}], 0; je {done}")
        else:
            lines.append(f"mov esi, {run.start}")
            lines.append(f"{done}_more:")
            lines.append(one("rsi*8"))
            if run.ends_at_zero:
                lines.append(f"cmp qword ptr [rdi + rsi*8], 0; je {done}")
            lines.append(f"inc esi; cmp esi, {run.start + run.count}; jb {done}_more")
        if run.ends_at_zero:
            lines.append(f"{done}:")
    return "\n".join(lines)


def _mix_word(offset: str) -> str:
    return f"xor rax, qword ptr [rdi + {offset}]; imul rax, r8; ror rax, 32"


def _hash_key(runs: Sequence[_WordRun]) -> str:
    """Set rax to the mix of the key's words; r8 holds the multiplier."""
    text = _for_each_word(runs, "hash", _mix_word)
    first = "xor rax, qword ptr [rdi + 0x0]"
    return text.replace("xor", "mov", 1) if text.startswith(first) else f"xor eax, eax\n{text}"


def _compare_word(offset: str) -> str:
    return f"mov r10, qword ptr [rdi + {offset}]; cmp r10, qword ptr [r8 + {offset} + 8]; jne next"


def _store_word(offset: str) -> str:
    return f"mov r10, qword ptr [rdi + {offset}]; mov qword ptr [r8 + {offset} + 8], r10"


def agg_find(store: TableStore, context: CodegenContext) -> str:
    """Return the routine that finds or makes the entry of a key in one aggregation's table.

    It stores the tag of a new entry last, so that the reader never sees half an entry.
    """
    shift = 64 - (store.capacity.bit_length() - 1)
    value = (1 + store.key_words) * 8
    plan = context.aggregations[store.agg]
    runs, initial = tuple(_word_runs(plan.keys)), plan.initial
    initialize = "\n".join(
        f"mov r10, {word & (1 << 64) - 1:#x}; mov qword ptr [r8 + {value + i * 8:#x}], r10"
        for i, word in enumerate(initial)
        if word  # the guest hands out zeroed memory, and an entry is used once
    )
    return f"""
        mov r8, {HASH_MULTIPLIER:#x}
        {_hash_key(runs)}
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
        {_for_each_word(runs, "same", _compare_word)}
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
        {_for_each_word(runs, "keep", _store_word)}
        {initialize}
        mov qword ptr [r8], rax
        lea rax, [r8 + {value:#x}]
        ret
    """
