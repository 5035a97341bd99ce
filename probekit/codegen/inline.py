"""A constant-keyed ``count()`` as one increment in the site's own stub.

    50                     push rax
    65 48 8b 04 25 slot    mov rax, qword ptr gs:[slot]
    48 ff 80 offset        inc qword ptr [rax + offset]
    58                     pop rax

Flags are dead at a function's entry and where it leaves. Where a task can be
preempted between the load and the increment, another CPU may count in the same
word: ``lock inc`` then.
"""

from __future__ import annotations

import struct
from functools import lru_cache

from probekit.buffers.layout import DenseStore
from probekit.codegen.context import Context
from probekit.ir.ops import Aggregate, Branch, Clause
from probekit.isa.assemble import assemble

__all__ = ("inline_aggregation", "inline_body", "inline_body_size")

_MARK = 0x11223344


def inline_aggregation(clause: Clause, context: Context) -> int | None:
    """The aggregation that the clause does nothing but count in, or None when it needs a thunk."""
    if clause.record is not None or any(isinstance(block.end, Branch) for block in clause.blocks):
        return None
    match [op for block in clause.blocks for op in block.ops]:  # jumps only go forward, and none is conditional
        case [Aggregate(agg=agg, value=None)] if isinstance(context.store(agg), DenseStore):
            return agg if context.aggregations[agg].func == "count" else None
    return None


@lru_cache(maxsize=8)
def _pieces(slot: int, preemptible: bool) -> tuple[bytes, bytes, bytes]:
    """Head, increment up to its displacement, tail; each assembled and verified once."""
    if -(1 << 31) <= slot < 1 << 31:
        load = f"mov rax, qword ptr gs:[{slot:#x}]" if slot >= 0 else f"mov rax, qword ptr gs:[-{-slot:#x}]"
        head = assemble(f"push rax; {load}", 0)
    else:
        head = assemble(f"push rax; mov rax, {slot & (1 << 64) - 1:#x}; mov rax, qword ptr gs:[rax]", 0)
    lock = "lock " if preemptible else ""
    increment = assemble(f"{lock}inc qword ptr [rax + {_MARK:#x}]", 0)
    if not increment.endswith(struct.pack("<I", _MARK)):
        raise AssertionError("the displacement is not the increment's last four bytes")
    return head, increment[:-4], assemble("pop rax", 0)


def inline_body(aggs: tuple[int, ...], site: int, context: Context) -> bytes:
    """The stub's body for one site: one increment for each aggregation."""
    head, increment, tail = _pieces(context.slot, context.preemptible)
    parts = [head]
    for agg in aggs:
        store = context.store(agg)
        if not isinstance(store, DenseStore):
            raise AssertionError("inline counting needs a dense store")
        offset = store.offset + (0 if store.single else site * store.stride)
        parts += (increment, struct.pack("<I", offset))
    parts.append(tail)
    return b"".join(parts)


def inline_body_size(count: int, context: Context) -> int:
    """Bytes of :func:`inline_body` for ``count`` aggregations."""
    head, increment, tail = _pieces(context.slot, context.preemptible)
    return len(head) + count * (len(increment) + 4) + len(tail)
