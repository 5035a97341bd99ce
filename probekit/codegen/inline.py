"""Find clauses that are a single increment, and make that increment for the site's own stub.

A constant-keyed ``count()`` is such a clause:

    50                     push rax
    65 48 8b 04 25 slot    mov rax, qword ptr gs:[slot]
    48 ff 80 offset        inc qword ptr [rax + offset]
    58                     pop rax

Flags are dead at a function's entry and where it leaves. Where a task can be preempted between the load and the
increment, another CPU may count in the same word, so the increment has a ``lock``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache

from probekit.buffers.layout import DenseStore
from probekit.codegen.context import CodegenContext
from probekit.errors import InternalError
from probekit.ir.ops import Branch, Clause, UpdateAgg
from probekit.isa.assemble import assemble

__all__ = ("inline_aggregation", "inline_bodies", "inline_body_size", "inline_increment")

_MARKER = 0x11223344
_U32 = struct.Struct("<I")


def inline_aggregation(clause: Clause, context: CodegenContext) -> int | None:
    """Return the aggregation that the clause does nothing but count in, or None when it needs a thunk."""
    if clause.record is not None or any(isinstance(block.end, Branch) for block in clause.blocks):
        return None
    match [op for block in clause.blocks for op in block.ops]:  # jumps only go forward, and none is conditional
        case [UpdateAgg(agg=agg, value=None)] if isinstance(context.store(agg), DenseStore):
            return agg if context.aggregations[agg].func == "count" else None
    return None


def _load_block(slot: int) -> str:
    """Load ``rax`` with the address of this CPU's block."""
    if -(1 << 31) <= slot < 1 << 31:
        return f"mov rax, qword ptr gs:[{slot:#x}]" if slot >= 0 else f"mov rax, qword ptr gs:[-{-slot:#x}]"
    return f"mov rax, {slot & (1 << 64) - 1:#x}; mov rax, qword ptr gs:[rax]"


def _increment(offset: int, *, preemptible: bool) -> str:
    return f"{'lock ' if preemptible else ''}inc qword ptr [rax + {offset:#x}]"


@lru_cache(maxsize=8)
def _pieces(slot: int, preemptible: bool) -> tuple[bytes, bytes, bytes]:
    """Assemble the head of a body, an increment up to its displacement, and the tail."""
    head = assemble(f"push rax; {_load_block(slot)}", 0)
    increment = assemble(_increment(_MARKER, preemptible=preemptible), 0)
    if not increment.endswith(struct.pack("<I", _MARKER)):
        raise InternalError("the displacement of an inline increment is not its last four bytes")
    return head, increment[:-4], assemble("pop rax", 0)


def inline_bodies(aggs: tuple[int, ...], context: CodegenContext) -> Callable[[int], bytes]:
    """Return a function that maps a site number to the body of its stub: one increment for each aggregation."""
    head, increment, tail = _pieces(context.percpu_slot, context.preemptible)
    words: list[tuple[int, int]] = []  # offset of the first site's word, bytes from one site's to the next one's
    for agg in aggs:
        store = context.store(agg)
        if not isinstance(store, DenseStore):
            raise InternalError("an aggregation that is counted inline has no dense store")
        words.append((store.offset, 0 if store.single else store.stride))
    if len(words) == 1:  # "every function" is 35,000 of these
        ((offset, stride),) = words
        before = head + increment
        return lambda site: before + _U32.pack(offset + site * stride) + tail
    return lambda site: b"".join(
        [head, *(increment + _U32.pack(offset + site * stride) for offset, stride in words), tail]
    )


def inline_increment(offset: int, context: CodegenContext) -> str:
    """Return the text of a body that increments one word of the block, so that its time can be taken."""
    return (
        f"push rax; {_load_block(context.percpu_slot)}; {_increment(offset, preemptible=context.preemptible)}; pop rax"
    )


def inline_body_size(count: int, context: CodegenContext) -> int:
    """Return the bytes of a body for ``count`` aggregations."""
    head, increment, tail = _pieces(context.percpu_slot, context.preemptible)
    return len(head) + count * (len(increment) + 4) + len(tail)
