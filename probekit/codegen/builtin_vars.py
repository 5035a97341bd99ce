"""The code of built-in variables: what a firing knows of its probe, its task, the time and the stack.

Facts of the current task that are one load away are :meth:`probekit.codegen.operands.Operands.fact`.
"""

from __future__ import annotations

from collections.abc import Iterator

from probekit.buffers.layout import FaultKind
from probekit.codegen.context import MAX_ERRNO, SITE_ENTRY_SIZE, SITE_FIELDS
from probekit.codegen.emit_context import EmitContext
from probekit.codegen.frame import FRAME_RAX, FRAME_SITE
from probekit.codegen.reg_alloc import RETURNS
from probekit.codegen.storage import MOST_FRAMES
from probekit.errors import UnsupportedError
from probekit.ir.names import BUILTINS
from probekit.ir.ops import Arg, Builtin, Reg

__all__ = ("TASK_TEXTS", "argument", "builtin")

TASK_TEXTS = ("cwd", "execargs", "root")
"""The built-in strings that a routine makes."""

_TSC_SHIFT = 46  # leaves 18 bits of 64 for nanoseconds a tick, and is as exact as years need


def argument(op: Arg, emit: EmitContext) -> Iterator[str]:
    """Load argN. At a return (FBT), arg0 is the exit's offset in the function."""
    if emit.kind == "return" and op.index == 0:
        yield from _site_field("offset", emit)
    else:
        yield from emit.operands.argument(op.index)
    yield from emit.operands.set(op.dst)


def builtin(op: Builtin, clause: int, emit: EmitContext) -> Iterator[str]:
    """Load a built-in variable. ``clause``: the index of the clause that names it."""
    if op.name in TASK_TEXTS:
        yield from _task_text(op.name, op.dst, emit)
        return
    yield from _value(op.name, clause, emit)
    yield from emit.operands.set(op.dst)


def _value(name: str, clause: int, emit: EmitContext) -> Iterator[str]:
    """rax = the variable."""
    context = emit.context
    if name == "id":
        yield from _site_field("id", emit)
    elif BUILTINS[name].per_probe:
        yield from _site_field(name, emit)
        yield f"mov rcx, {context.strings:#x}"
        yield "add rax, rcx"
    elif name == "epid":
        yield f"mov eax, {clause + 1:#x}"
    elif name == "timestamp":
        yield from _timestamp(emit)
    elif name == "walltimestamp":
        if context.kernel.wall is None:
            raise UnsupportedError("this kernel has no wall clock that a probe may read", feature=name)
        yield f"call {context.kernel.wall:#x}"
    elif name == "vtimestamp":
        yield emit.call("run_time")
    elif name == "errno":
        yield from _error(emit)
    elif name == "stackdepth":
        yield from _unwind(MOST_FRAMES, emit)
    elif name == "caller" and emit.kind == "instruction":
        yield from _unwind(1, emit)
        yield f"mov rax, qword ptr {emit.scratch(context.scratch.bounce)}"
    else:
        yield from emit.operands.fact(name)


def _task_text(name: str, dst: Reg, emit: EmitContext) -> Iterator[str]:
    """The code of one of :data:`TASK_TEXTS`."""
    yield from emit.string_place(dst)
    yield emit.call(name)
    yield f"jb {emit.fault(FaultKind.BADADDR)}"
    yield from emit.string_made(dst)


def _site_field(field: str, emit: EmitContext) -> Iterator[str]:
    """eax = a field of this site's entry in the site table."""
    yield f"mov eax, dword ptr [rbp + {FRAME_SITE}]"
    yield f"imul rax, rax, {SITE_ENTRY_SIZE}"
    yield f"mov rcx, {emit.context.sites + SITE_FIELDS[field]:#x}"
    yield "mov eax, dword ptr [rcx + rax]"


def _timestamp(emit: EmitContext) -> Iterator[str]:
    """rax = nanoseconds: by the time stamp counter where all CPUs share it, else by the kernel's clock."""
    context = emit.context
    if context.tsc_khz:
        scale = (1_000_000 << _TSC_SHIFT) // context.tsc_khz
        yield from ("rdtsc", "shl rdx, 32", "or rax, rdx", f"mov rcx, {scale:#x}", "mul rcx")
        yield f"shrd rax, rdx, {_TSC_SHIFT}"
    elif context.clock is not None:
        yield f"call {context.clock:#x}"
    else:
        raise UnsupportedError("this kernel has no clock that a probe may read", feature="timestamp")


def _error(emit: EmitContext) -> Iterator[str]:
    """rax = the error that the function returns, as a number above 0; 0 for any other value, and at other probes."""
    if emit.kind not in RETURNS:
        yield "xor eax, eax"
        return
    label = emit.unique()
    yield f"mov eax, dword ptr [rbp + {FRAME_RAX}]"
    yield "neg eax"
    yield f"cmp eax, {MAX_ERRNO:#x}"
    yield f"jbe {label}"
    yield "xor eax, eax"
    yield f"{label}:"


def _unwind(frames: int, emit: EmitContext) -> Iterator[str]:
    """rax = how many callers were found, at most ``frames``; the bounce buffer has their addresses."""
    yield f"lea rdi, {emit.scratch(emit.context.scratch.bounce)}"
    yield f"mov ecx, {frames:#x}"
    yield emit.call(emit.unwinder)
