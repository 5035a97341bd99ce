"""Aggregation updates as assembly: find the value's address, then fold the datum in."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from probekit.buffers.aggs import AGG_FUNCS, AggPlan, KeyPart
from probekit.buffers.layout import DenseStore, TableStore
from probekit.buffers.quantize import ZERO_BUCKET
from probekit.codegen.context import FRAME_SITE, Context
from probekit.codegen.frame import Frame
from probekit.codegen.operands import Operands
from probekit.codegen.routines import Routines
from probekit.ir.ops import Aggregate

__all__ = ("aggregate",)

_HASH_MULTIPLIER = 0x9E3779B97F4A7C15  # 2**64 / golden ratio, odd: Knuth's multiplicative hashing
_WORD = 8


def _min(label: str) -> Iterator[str]:
    yield from ("cmp rax, qword ptr [rdi]", f"jge {label}_same", "mov qword ptr [rdi], rax", f"{label}_same:")


def _max(label: str) -> Iterator[str]:
    yield from ("cmp rax, qword ptr [rdi]", f"jle {label}_same", "mov qword ptr [rdi], rax", f"{label}_same:")


def _quantize(label: str) -> Iterator[str]:
    """rcx = the bucket of rax: ZERO_BUCKET plus or minus the bit length of its magnitude."""
    yield from (
        f"mov ecx, {ZERO_BUCKET}",
        "test rax, rax",
        f"jz {label}_bucket",
        f"js {label}_negative",
        "bsr rcx, rax",
        f"add ecx, {ZERO_BUCKET + 1}",
        f"jmp {label}_bucket",
        f"{label}_negative:",
        "neg rax",
        "bsr rdx, rax",
        f"mov ecx, {ZERO_BUCKET - 1}",
        "sub ecx, edx",
        f"jns {label}_bucket",
        "xor ecx, ecx",  # only -2**63, whose bit length would be one bucket too low
        f"{label}_bucket:",
        "inc qword ptr [rdi + rcx*8]",
    )


def _plain(*lines: str) -> Callable[[str], Iterator[str]]:
    return lambda label: iter(lines)


_UPDATES: dict[str, Callable[[str], Iterator[str]]] = {
    "count": _plain("inc qword ptr [rdi]"),
    "sum": _plain("add qword ptr [rdi], rax"),
    "avg": _plain("add qword ptr [rdi], rax", "inc qword ptr [rdi + 8]"),
    "min": _min,
    "max": _max,
    "quantize": _quantize,
}
"""rdi: the value's words; rax: the datum."""


def _dense(store: DenseStore, plan: AggPlan, label: str) -> Iterator[str]:
    """rdi = the site's value; one that has had no datum yet is started. Keeps rax."""
    if store.single:
        yield f"lea rdi, [rbx + {store.offset:#x}]"
    else:
        yield f"mov ecx, dword ptr [rbp + {FRAME_SITE}]"
        if store.stride == _WORD:
            yield f"lea rdi, [rbx + rcx*8 + {store.offset:#x}]"
        else:
            yield f"imul rcx, rcx, {store.stride:#x}"
            yield f"lea rdi, [rbx + rcx + {store.offset:#x}]"
    initial = AGG_FUNCS[plan.func].initial
    if any(initial):
        yield f"cmp {_flag(store)}, 0"
        yield f"jne {label}_present"
        for i, word in enumerate(initial):
            yield f"mov rcx, {word & (1 << 64) - 1:#x}"
            yield f"mov qword ptr [rdi + {i * _WORD}], rcx"
        yield f"{label}_present:"


def _flag(store: DenseStore) -> str:
    return f"qword ptr [rdi + {store.words * _WORD:#x}]"


def _key_part(
    part: KeyPart, reg: int | None, at: int, operands: Operands, routines: Routines, *, first: bool
) -> Iterator[str]:
    """Store one part of the key at ``rsp + at``."""
    if part.kind == "probe":
        yield f"mov eax, dword ptr [rbp + {FRAME_SITE}]"
        yield f"mov qword ptr [rsp + {at:#x}], rax"
        return
    if reg is None:
        raise AssertionError("only a probe key has no register")
    if not first:
        operands.held = None
    if part.kind != "string":
        yield from operands.store(f"[rsp + {at:#x}]", reg)
        return
    yield from operands.take("rsi", reg)
    if part.size == 16:  # a task's name: two words of a buffer that is that long
        for offset in (0, 8):
            yield f"mov rax, qword ptr [rsi + {offset}]"
            yield f"mov qword ptr [rsp + {at + offset:#x}], rax"
    else:
        yield f"lea rdi, [rsp + {at:#x}]"
        yield f"mov ecx, {part.words * _WORD:#x}"
        yield f"call {routines.copy:#x}"


def _table(
    store: TableStore, plan: AggPlan, op: Aggregate, frame: Frame, operands: Operands, routines: Routines, label: str
) -> Iterator[str]:
    """rdi = the value of the key, or on to ``label_end`` when the table is full."""
    at = frame.key
    for number, (part, reg) in enumerate(zip(plan.keys, op.keys, strict=True)):
        yield from _key_part(part, reg, at, operands, routines, first=number == 0)
        at += part.words * _WORD
    yield f"mov rax, qword ptr [rsp + {frame.key:#x}]"
    yield f"mov r8, {_HASH_MULTIPLIER:#x}"
    for word in range(1, plan.key_words):
        yield "imul rax, r8"
        yield "ror rax, 32"
        yield f"xor rax, qword ptr [rsp + {frame.key + word * _WORD:#x}]"
    yield "imul rax, r8"
    yield "ror rax, 32"
    yield "imul rax, r8"
    yield f"lea rdi, [rsp + {frame.key:#x}]"
    yield f"call {routines.find[store.agg]:#x}"
    yield "test rax, rax"
    yield f"jz {label}_end"
    yield "mov rdi, rax"


def aggregate(
    op: Aggregate, context: Context, frame: Frame, operands: Operands, routines: Routines, label: str
) -> Iterator[str]:
    """Assembly for one :class:`Aggregate`; ``label`` makes its labels unique."""
    plan = context.aggregations[op.agg]
    store = context.store(op.agg)
    if isinstance(store, TableStore):
        yield from _table(store, plan, op, frame, operands, routines, label)
        operands.held = None
    if op.value is not None:
        yield from operands.take("rax", op.value)
    if isinstance(store, DenseStore):
        yield from _dense(store, plan, label)
    if plan.func == "count" and isinstance(store, DenseStore) and context.preemptible:
        yield "lock inc qword ptr [rdi]"  # another CPU's inline increment may hit the same word
    else:
        yield from _UPDATES[plan.func](label)
    if isinstance(store, DenseStore) and store.presence:
        yield f"mov {_flag(store)}, 1"  # last: a reader meets no value that has had no datum
    yield f"{label}_end:"
