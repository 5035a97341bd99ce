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
from collections.abc import Callable
from functools import lru_cache

from probekit.buffers.layout import DenseStore
from probekit.codegen.context import Context
from probekit.errors import InternalError
from probekit.ir.ops import Aggregate, Branch, Clause
from probekit.isa.assemble import assemble

__all__ = ("inline_aggregation", "inline_bodies", "inline_body_size", "inline_increment")

_MARK = 0x11223344
_U32 = struct.Struct("<I")


def inline_aggregation(clause: Clause, context: Context) -> int | None:
    """The aggregation that the clause does nothing but count in, or None when it needs a thunk."""
    if clause.record is not None or any(isinstance(block.end, Branch) for block in clause.blocks):
        return None
    match [op for block in clause.blocks for op in block.ops]:  # jumps only go forward, and none is conditional
        case [Aggregate(agg=agg, value=None)] if isinstance(context.store(agg), DenseStore):
            return agg if context.aggregations[agg].func == "count" else None
    return None


def _load(slot: int) -> str:
    """rax = this CPU's block."""
    if -(1 << 31) <= slot < 1 << 31:
        return f"mov rax, qword ptr gs:[{slot:#x}]" if slot >= 0 else f"mov rax, qword ptr gs:[-{-slot:#x}]"
    return f"mov rax, {slot & (1 << 64) - 1:#x}; mov rax, qword ptr gs:[rax]"


def _increment(offset: int, *, preemptible: bool) -> str:
    return f"{'lock ' if preemptible else ''}inc qword ptr [rax + {offset:#x}]"


@lru_cache(maxsize=8)
def _pieces(slot: int, preemptible: bool) -> tuple[bytes, bytes, bytes]:
    """Head, increment up to its displacement, tail; each assembled and verified once."""
    head = assemble(f"push rax; {_load(slot)}", 0)
    increment = assemble(_increment(_MARK, preemptible=preemptible), 0)
    if not increment.endswith(struct.pack("<I", _MARK)):
        raise InternalError("the displacement is not the increment's last four bytes")
    return head, increment[:-4], assemble("pop rax", 0)


def inline_bodies(aggs: tuple[int, ...], context: Context) -> Callable[[int], bytes]:
    """Site number to the body of its stub: one increment for each aggregation."""
    head, increment, tail = _pieces(context.slot, context.preemptible)
    places: list[tuple[int, int]] = []  # of the first site's word, and from one site's to the next one's
    for agg in aggs:
        store = context.store(agg)
        if not isinstance(store, DenseStore):
            raise InternalError("inline counting needs a dense store")
        places.append((store.offset, 0 if store.single else store.stride))
    if len(places) == 1:  # "every function" is 35,000 of these
        ((offset, stride),) = places
        before = head + increment
        return lambda site: before + _U32.pack(offset + site * stride) + tail
    return lambda site: b"".join(
        [head, *(increment + _U32.pack(offset + site * stride) for offset, stride in places), tail]
    )


def inline_increment(offset: int, context: Context) -> str:
    """The text of a body that increments one word of the block, for its time to be taken."""
    return f"push rax; {_load(context.slot)}; {_increment(offset, preemptible=context.preemptible)}; pop rax"


def inline_body_size(count: int, context: Context) -> int:
    """Bytes of a body for ``count`` aggregations."""
    head, increment, tail = _pieces(context.slot, context.preemptible)
    return len(head) + count * (len(increment) + 4) + len(tail)
