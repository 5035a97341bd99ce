"""Write the code of aggregation updates: find the address of the value, then add the datum to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from probekit.buffers.aggs import AGG_FUNCS, AggPlan, KeyPart
from probekit.buffers.layout import DenseStore, TableStore
from probekit.buffers.quantize import ZERO_BUCKET, Linear, LogLinear
from probekit.codegen.emit_context import EmitContext
from probekit.codegen.frame import FRAME_SITE
from probekit.codegen.runtime.registry import agg_find_name
from probekit.errors import InternalError
from probekit.ir.ops import Reg, UpdateAgg

__all__ = ("llquantize_bounds", "update_agg")

_MASK = (1 << 64) - 1
_WORD = 8
_MAX_VALUE = (1 << 63) - 1

_Update = Callable[[AggPlan, EmitContext], Iterator[str]]


def _min(_plan: AggPlan, emit: EmitContext) -> Iterator[str]:
    label = emit.new_label()
    yield from ("cmp rax, qword ptr [rdi]", f"jge {label}_same", "mov qword ptr [rdi], rax", f"{label}_same:")


def _max(_plan: AggPlan, emit: EmitContext) -> Iterator[str]:
    label = emit.new_label()
    yield from ("cmp rax, qword ptr [rdi]", f"jle {label}_same", "mov qword ptr [rdi], rax", f"{label}_same:")


def _quantize(_plan: AggPlan, emit: EmitContext) -> Iterator[str]:
    """Set rcx to the bucket of rax: ZERO_BUCKET plus or minus the bit length of its magnitude."""
    label = emit.new_label()
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
    """Set rcx to the bucket: 0 below the base, else 1 + how many steps above it, at most 1 + all of them."""
    linear, label = Linear(*plan.params), emit.new_label()
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


def llquantize_bounds(plan: AggPlan) -> tuple[int, ...]:
    """Return the magnitudes of 63 bits at which the buckets of an ``llquantize()`` begin, ascending."""
    return tuple(start for start in LogLinear(*plan.params).starts if start <= _MAX_VALUE)


def _llquantize(plan: AggPlan, emit: EmitContext) -> Iterator[str]:
    """Set rcx to the bucket: the middle one plus, or for a negative value minus, how many bounds are not above it."""
    label, middle = emit.new_label(), LogLinear(*plan.params).middle
    yield f"mov r9, {emit.context.llquantize_bounds[plan.index]:#x}"
    yield f"mov ecx, {len(llquantize_bounds(plan)):#x}"
    yield "test rax, rax"
    yield f"js {label}_negative"
    yield emit.call_routine("llquantize_bucket")
    yield f"add ecx, {middle:#x}"
    yield f"jmp {label}_bucket"
    yield f"{label}_negative:"
    yield "neg rax"
    yield emit.call_routine("llquantize_bucket")
    yield "neg ecx"
    yield f"add ecx, {middle:#x}"
    yield f"{label}_bucket:"


def _plain(*lines: str) -> _Update:
    return lambda _plan, _emit: iter(lines)


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
"""The code that adds the datum in rax to the value whose words are at rdi. It keeps rsi."""

_HISTOGRAMS = frozenset(("quantize", "lquantize", "llquantize"))


def _find_dense(store: DenseStore, plan: AggPlan, emit: EmitContext) -> Iterator[str]:
    """Load rdi with the address of the site's value, and initialize a value that has had no datum. It keeps rax."""
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
        label = emit.new_label()
        yield f"cmp {_presence_word(store)}, 0"
        yield f"jne {label}_present"
        for i, word in enumerate(initial):
            yield f"mov rcx, {word & _MASK:#x}"
            yield f"mov qword ptr [rdi + {i * _WORD}], rcx"
        yield f"{label}_present:"


def _presence_word(store: DenseStore) -> str:
    return f"qword ptr [rdi + {store.words * _WORD:#x}]"


def _store_key_part(part: KeyPart, reg: Reg | None, offset: int, emit: EmitContext, *, first: bool) -> Iterator[str]:
    """Store one part of the key in the scratch memory. ``offset``: where in it."""
    operands = emit.operands
    if part.kind == "probe":
        yield f"mov eax, dword ptr [rbp + {FRAME_SITE}]"
        yield f"mov qword ptr {emit.scratch_operand(offset)}, rax"
        return
    if reg is None:
        raise InternalError("a part of a key that the probe does not decide has no register")
    if not first:
        operands.in_rax = None
    match part.kind:
        case "int" | "uint":
            yield from operands.store_to(emit.scratch_operand(offset), reg)
        case "stack":
            yield from operands.load_first("rsi", reg)
            yield f"lea rdi, {emit.scratch_operand(offset)}"
            yield f"mov ecx, {part.words:#x}"
            yield emit.call_routine("copy_frames")
        case _ if part.size == 16 and reg in operands.allocation.padded:
            yield from operands.load_first("rsi", reg)
            for word in (0, 8):
                yield f"mov rax, qword ptr [rsi + {word}]"
                yield f"mov qword ptr {emit.scratch_operand(offset + word)}, rax"
        case _:
            yield from operands.load_first("rsi", reg)
            yield f"lea rdi, {emit.scratch_operand(offset)}"
            yield f"mov qword ptr {emit.scratch_operand(offset + (part.words - 1) * _WORD)}, 0"
            yield f"mov ecx, {part.size:#x}"
            yield emit.call_routine("copy_padded")


def _find_in_table(store: TableStore, plan: AggPlan, op: UpdateAgg, emit: EmitContext, label: str) -> Iterator[str]:
    """Load rdi with the address of the key's value, or go to ``label_end`` when the table is full."""
    offset = key = emit.context.scratch.key
    for number, (part, reg) in enumerate(zip(plan.keys, op.keys, strict=True)):
        yield from _store_key_part(part, reg, offset, emit, first=number == 0)
        offset += part.words * _WORD
    yield f"lea rdi, {emit.scratch_operand(key)}"
    yield emit.call_routine(agg_find_name(store.agg))
    yield "test rax, rax"
    yield f"jz {label}_end"
    yield "mov rdi, rax"


def update_agg(op: UpdateAgg, emit: EmitContext) -> Iterator[str]:
    """Write the code of one update."""
    plan = emit.context.aggregations[op.agg]
    store = emit.context.store(op.agg)
    operands, label = emit.operands, emit.new_label()
    if isinstance(store, TableStore):
        yield from _find_in_table(store, plan, op, emit, label)
        operands.in_rax = None
    if op.value is not None:
        yield from operands.load_first("rax", op.value)
    if isinstance(store, DenseStore):
        yield from _find_dense(store, plan, emit)
    if plan.func == "count" and isinstance(store, DenseStore) and emit.context.preemptible:
        yield "lock inc qword ptr [rdi]"  # another CPU's inline increment may hit the same word
    else:
        if op.weight is not None:
            yield from operands.load("rsi", op.weight)
        yield from _UPDATES[plan.func](plan, emit)
        if plan.func in _HISTOGRAMS:
            yield "inc qword ptr [rdi + rcx*8]" if op.weight is None else "add qword ptr [rdi + rcx*8], rsi"
    if isinstance(store, DenseStore) and store.presence:
        yield f"mov {_presence_word(store)}, 1"  # last, so that the reader never sees a value without a datum
    yield f"{label}_end:"
