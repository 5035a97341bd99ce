"""Aggregation updates as assembly: find the value's address, then fold the datum in."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from probekit.buffers.aggs import AGG_FUNCS, AggPlan, KeyPart
from probekit.buffers.layout import DenseStore, TableStore
from probekit.buffers.quantize import ZERO_BUCKET, Linear, LogLinear
from probekit.codegen.emit_context import EmitContext
from probekit.codegen.frame import FRAME_SITE
from probekit.codegen.runtime.registry import find_name
from probekit.errors import InternalError
from probekit.ir.ops import Aggregate

__all__ = ("aggregate", "ladder_of")

_MASK = (1 << 64) - 1
_WORD = 8
_LAST = (1 << 63) - 1

_Update = Callable[[AggPlan, EmitContext], Iterator[str]]


def _min(_plan: AggPlan, emit: EmitContext) -> Iterator[str]:
    label = emit.unique()
    yield from ("cmp rax, qword ptr [rdi]", f"jge {label}_same", "mov qword ptr [rdi], rax", f"{label}_same:")


def _max(_plan: AggPlan, emit: EmitContext) -> Iterator[str]:
    label = emit.unique()
    yield from ("cmp rax, qword ptr [rdi]", f"jle {label}_same", "mov qword ptr [rdi], rax", f"{label}_same:")


def _quantize(_plan: AggPlan, emit: EmitContext) -> Iterator[str]:
    """rcx = the bucket of rax: ZERO_BUCKET plus or minus the bit length of its magnitude."""
    label = emit.unique()
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
    )


def _lquantize(plan: AggPlan, emit: EmitContext) -> Iterator[str]:
    """rcx = 0 below the base, else 1 + how many steps above it, at most as many as there are."""
    linear, label = Linear(*plan.params), emit.unique()
    yield from (
        f"mov rcx, {linear.base & _MASK:#x}",
        "cmp rax, rcx",
        "mov edx, 0",
        f"jl {label}_below",
        "sub rax, rcx",
        f"mov rcx, {linear.step & _MASK:#x}",
        "div rcx",
        f"mov ecx, {linear.levels:#x}",
        "cmp rax, rcx",
        f"jae {label}_above",
        "mov ecx, eax",
        f"{label}_above:",
        "inc ecx",
        f"jmp {label}_bucket",
        f"{label}_below:",
        "xor ecx, ecx",
        f"{label}_bucket:",
    )


def ladder_of(plan: AggPlan) -> tuple[int, ...]:
    """The bounds of an ``llquantize()`` that a value can reach."""
    return tuple(start for start in LogLinear(*plan.params).starts if start <= _LAST)


def _llquantize(plan: AggPlan, emit: EmitContext) -> Iterator[str]:
    """rcx = how many bounds are not above the value."""
    yield f"mov r9, {emit.context.ladders[plan.index]:#x}"
    yield f"mov ecx, {len(ladder_of(plan)):#x}"
    yield emit.call("ladder")


def _plain(*lines: str) -> _Update:
    return lambda plan, here: iter(lines)


_UPDATES: dict[str, _Update] = {
    "count": _plain("inc qword ptr [rdi]"),
    "sum": _plain("add qword ptr [rdi], rax"),
    "avg": _plain("add qword ptr [rdi], rax", "inc qword ptr [rdi + 8]"),
    "stddev": _plain(
        "inc qword ptr [rdi]",
        "add qword ptr [rdi + 8], rax",
        "imul rax",
        "add qword ptr [rdi + 16], rax",
        "adc qword ptr [rdi + 24], rdx",
    ),
    "min": _min,
    "max": _max,
    "quantize": _quantize,
    "lquantize": _lquantize,
    "llquantize": _llquantize,
}
"""rdi: the value's words; rax: the datum; rsi is kept."""

_HISTOGRAMS = frozenset(("quantize", "lquantize", "llquantize"))


def _dense(store: DenseStore, plan: AggPlan, emit: EmitContext) -> Iterator[str]:
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
        label = emit.unique()
        yield f"cmp {_flag(store)}, 0"
        yield f"jne {label}_present"
        for i, word in enumerate(initial):
            yield f"mov rcx, {word & _MASK:#x}"
            yield f"mov qword ptr [rdi + {i * _WORD}], rcx"
        yield f"{label}_present:"


def _flag(store: DenseStore) -> str:
    return f"qword ptr [rdi + {store.words * _WORD:#x}]"


def _key_part(part: KeyPart, reg: int | None, at: int, emit: EmitContext, *, first: bool) -> Iterator[str]:
    """Store one part of the key at its place in the scratch memory."""
    operands = emit.operands
    if part.kind == "probe":
        yield f"mov eax, dword ptr [rbp + {FRAME_SITE}]"
        yield f"mov qword ptr {emit.scratch(at)}, rax"
        return
    if reg is None:
        raise InternalError("only a probe key has no register")
    if not first:
        operands.held = None
    match part.kind:
        case "int" | "uint":
            yield from operands.store(emit.scratch(at), reg)
        case "stack":
            yield from operands.take("rsi", reg)
            yield f"lea rdi, {emit.scratch(at)}"
            yield f"mov ecx, {part.words:#x}"
            yield emit.call("frames")
        case _ if part.size == 16 and reg in operands.values.padded:
            yield from operands.take("rsi", reg)
            for offset in (0, 8):
                yield f"mov rax, qword ptr [rsi + {offset}]"
                yield f"mov qword ptr {emit.scratch(at + offset)}, rax"
        case _:
            yield from operands.take("rsi", reg)
            yield f"lea rdi, {emit.scratch(at)}"
            yield f"mov qword ptr {emit.scratch(at + (part.words - 1) * _WORD)}, 0"
            yield f"mov ecx, {part.size:#x}"
            yield emit.call("copy")


def _table(store: TableStore, plan: AggPlan, op: Aggregate, emit: EmitContext, label: str) -> Iterator[str]:
    """rdi = the value of the key, or on to ``label_end`` when the table is full."""
    at = key = emit.context.scratch.key
    for number, (part, reg) in enumerate(zip(plan.keys, op.keys, strict=True)):
        yield from _key_part(part, reg, at, emit, first=number == 0)
        at += part.words * _WORD
    yield f"lea rdi, {emit.scratch(key)}"
    yield emit.call(find_name(store.agg))
    yield "test rax, rax"
    yield f"jz {label}_end"
    yield "mov rdi, rax"


def aggregate(op: Aggregate, emit: EmitContext) -> Iterator[str]:
    """Assembly for one :class:`Aggregate`."""
    plan = emit.context.aggregations[op.agg]
    store = emit.context.store(op.agg)
    operands, label = emit.operands, emit.unique()
    if isinstance(store, TableStore):
        yield from _table(store, plan, op, emit, label)
        operands.held = None
    if op.value is not None:
        yield from operands.take("rax", op.value)
    if isinstance(store, DenseStore):
        yield from _dense(store, plan, emit)
    if plan.func == "count" and isinstance(store, DenseStore) and emit.context.preemptible:
        yield "lock inc qword ptr [rdi]"  # another CPU's inline increment may hit the same word
    else:
        if op.weight is not None:
            yield from operands.load("rsi", op.weight)
        yield from _UPDATES[plan.func](plan, emit)
        if plan.func in _HISTOGRAMS:
            yield "inc qword ptr [rdi + rcx*8]" if op.weight is None else "add qword ptr [rdi + rcx*8], rsi"
    if isinstance(store, DenseStore) and store.presence:
        yield f"mov {_flag(store)}, 1"  # last: a reader meets no value that has had no datum
    yield f"{label}_end:"
