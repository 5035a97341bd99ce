"""Write the code of built-in variables: what a firing knows of its probe, its task, the time and the stack.

Facts of the current task that are one load away are :meth:`probekit.codegen.operands.OperandEmitter.load_fact`.
"""

from __future__ import annotations

from collections.abc import Iterator

from probekit.buffers.layout import FaultKind
from probekit.codegen.context import MAX_ERRNO, SITE_ENTRY_SIZE, SITE_FIELDS
from probekit.codegen.emit_context import EmitContext
from probekit.codegen.frame import FRAME_RAX, FRAME_SITE
from probekit.codegen.reg_alloc import RETURNS
from probekit.codegen.storage import MAX_STACK_DEPTH
from probekit.errors import UnsupportedError
from probekit.ir.names import BUILTINS
from probekit.ir.ops import LoadArg, LoadBuiltin, Reg
from probekit.kernel.syscalls import ABI_NAMES, CALL_NUMBER, TS_COMPAT, X32_BIT, X32_MASK

__all__ = ("TASK_STRINGS", "argument", "builtin")

TASK_STRINGS = ("cwd", "execargs", "root")
"""The built-in strings that a routine makes."""

_TSC_SHIFT = 46  # leaves 18 bits of 64 for nanoseconds a tick, and is as exact as years need


def argument(op: LoadArg, emit: EmitContext) -> Iterator[str]:
    """Load ``argN``. At a function's return (FBT), ``arg0`` is the offset of the exit in the function."""
    if emit.kind == "return" and op.index == 0:
        yield from _load_site_field("offset", emit)
    else:
        yield from emit.operands.load_argument(op.index)
    yield from emit.operands.set_from_rax(op.dst)


def builtin(op: LoadBuiltin, clause: int, emit: EmitContext) -> Iterator[str]:
    """Load a built-in variable. ``clause``: the index of the clause that names it.

    Raises :class:`UnsupportedError` where this kernel does not have what the variable needs.
    """
    if op.name in TASK_STRINGS:
        yield from _task_string(op.name, op.dst, emit)
        return
    yield from _load_value(op.name, clause, emit)
    yield from emit.operands.set_from_rax(op.dst)


def _load_value(name: str, clause: int, emit: EmitContext) -> Iterator[str]:
    """Load ``rax`` with the variable."""
    context = emit.context
    if name == "id":
        yield from _load_site_field("id", emit)
    elif BUILTINS[name].per_probe:
        yield from _load_site_field(name, emit)
        yield f"mov rcx, {context.string_pool:#x}"
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
        yield emit.call_routine("run_time")
    elif name == "errno":
        yield from _errno(emit)
    elif name == "curabi":
        yield from _abi(emit)
    elif name == "stackdepth":
        yield from _unwind(MAX_STACK_DEPTH, emit)
    elif name == "caller" and emit.kind == "instruction":
        yield from _unwind(1, emit)
        yield f"mov rax, qword ptr {emit.scratch_operand(context.scratch.bounce)}"
    else:
        yield from emit.operands.load_fact(name)


def _task_string(name: str, dst: Reg, emit: EmitContext) -> Iterator[str]:
    """Make one of :data:`TASK_STRINGS` by its routine."""
    yield from emit.load_string_destination(dst)
    yield emit.call_routine(name)
    yield f"jb {emit.fault_label(FaultKind.BADADDR)}"
    yield from emit.set_string_result(dst)


def _load_site_field(field: str, emit: EmitContext) -> Iterator[str]:
    """Load ``eax`` with a field of this site's entry in the site table."""
    yield f"mov eax, dword ptr [rbp + {FRAME_SITE}]"
    yield f"imul rax, rax, {SITE_ENTRY_SIZE}"
    yield f"mov rcx, {emit.context.site_table + SITE_FIELDS[field]:#x}"
    yield "mov eax, dword ptr [rcx + rax]"


def _timestamp(emit: EmitContext) -> Iterator[str]:
    """Load ``rax`` with nanoseconds: by the time stamp counter where all CPUs share it, else by the kernel's clock."""
    context = emit.context
    if context.shared_tsc_khz:
        scale = (1_000_000 << _TSC_SHIFT) // context.shared_tsc_khz
        yield from ("rdtsc", "shl rdx, 32", "or rax, rdx", f"mov rcx, {scale:#x}", "mul rcx")
        yield f"shrd rax, rdx, {_TSC_SHIFT}"
    elif context.clock is not None:
        yield f"call {context.clock:#x}"
    else:
        raise UnsupportedError("this kernel has no clock that a probe may read", feature="timestamp")


def _errno(emit: EmitContext) -> Iterator[str]:
    """Load ``rax`` with the error that the function returns, above 0; with 0 for another value or another probe."""
    if emit.kind not in RETURNS:
        yield "xor eax, eax"
        return
    label = emit.new_label()
    yield f"mov eax, dword ptr [rbp + {FRAME_RAX}]"
    yield "neg eax"
    yield f"cmp eax, {MAX_ERRNO:#x}"
    yield f"jbe {label}"
    yield "xor eax, eax"
    yield f"{label}:"


def _abi(emit: EmitContext) -> Iterator[str]:
    """Load ``rax`` with the address of the name of the ABI by which the task is in its system call."""
    context, entry = emit.context, emit.context.kernel.syscalls
    task = context.task
    if task is None or task.status is None:
        raise UnsupportedError("curabi needs the kernel's type information (thread_info.status)", feature="curabi")
    names = {abi: context.string_pool + context.pool_offsets[name] for abi, name in ABI_NAMES.items()}
    label = emit.new_label()
    yield f"mov rcx, qword ptr gs:[{task.current:#x}]"
    yield f"mov ecx, dword ptr [rcx + {task.status:#x}]"
    yield f"mov rax, {names['32-bit']:#x}"
    yield f"test ecx, {TS_COMPAT:#x}"
    yield f"jnz {label}"
    if entry.x32 and entry.stack_top is not None:
        yield f"mov rcx, qword ptr gs:[{entry.stack_top:#x}]"
        yield f"mov ecx, dword ptr [rcx - {-CALL_NUMBER}]"
        yield f"and ecx, {X32_MASK:#x}"
        yield f"mov rax, {names['x32']:#x}"
        yield f"cmp ecx, {X32_BIT:#x}"
        yield f"je {label}"
    yield f"mov rax, {names['64-bit']:#x}"
    yield f"{label}:"


def _unwind(frames: int, emit: EmitContext) -> Iterator[str]:
    """Load ``rax`` with the number of callers, at most ``frames``, and the bounce buffer with their addresses."""
    yield f"lea rdi, {emit.scratch_operand(emit.context.scratch.bounce)}"
    yield f"mov ecx, {frames:#x}"
    yield emit.call_routine(emit.unwind_routine)
