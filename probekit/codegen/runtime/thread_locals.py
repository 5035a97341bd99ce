"""Find and store thread-local variables (``self->x``): see :mod:`probekit.buffers.variables` for their table.

    thread_find    -> rax: this thread's entry, or 0; keeps rdx and rdi
    thread_create  -> rax: the same, made if need be, 0 after counting that there is no room; keeps rdx and rdi
    thread_store   rdx: value, edi: offset of the word in the entry
    self_key       -> writes the two words that identify the thread into the key

Only the thread itself uses its entry, with interrupts off, so the entry needs no lock. One compare-and-exchange claims
a free entry.
"""

from __future__ import annotations

from probekit.buffers.layout import MAX_PROBES_PER_LOOKUP, HeaderWord
from probekit.buffers.variables import HASH_MULTIPLIER, THREAD_HEAD, ThreadTable
from probekit.codegen.context import CodegenContext
from probekit.codegen.runtime.core import header
from probekit.codegen.runtime.registry import AddressOf, Routine
from probekit.errors import UnsupportedError, required
from probekit.guest.offsets import TaskOffsets

__all__ = ("ROUTINES",)


def _task(context: CodegenContext) -> tuple[TaskOffsets, int]:
    """Return the offsets of a task's facts, among them when it began: that tells a task from an earlier one."""
    task = context.task
    if task is None or task.start is None:
        raise UnsupportedError(
            "variables of threads need the kernel's type information, which this guest does not have",
            feature="self->",
            hint="its kernel was built without CONFIG_DEBUG_INFO_BTF",
        )
    return task, task.start


def _threads(context: CodegenContext) -> ThreadTable:
    return required(context.storage.threads, "the table of the threads' variables")


_CLAIM = """
        xor eax, eax
        lock cmpxchg qword ptr [r9], rsi
        jz fresh
        jmp next
"""
"""Claim the free entry at r9 for the task in rsi; go on to the next one when another thread was faster."""


def _clear_entry(table: ThreadTable) -> str:
    """Clear the values of the entry at r9, in a loop where there are many."""
    if table.stride <= 256:
        return "\n".join(f"mov qword ptr [r9 + {offset:#x}], 0" for offset in range(THREAD_HEAD, table.stride, 8))
    return f"""
        mov eax, {(table.stride - THREAD_HEAD) // 8}
    clear:
        mov qword ptr [r9 + rax*8 + {THREAD_HEAD - 8}], 0
        dec eax
        jnz clear
    """


def _thread_lookup(context: CodegenContext, *, create: bool) -> str:
    table = _threads(context)
    task, start = _task(context)
    shift = 64 - (table.capacity.bit_length() - 1)
    cached_entry = f"qword ptr {context.in_scratch(context.scratch.thread_entry)}"
    drop = f"inc {header(HeaderWord.DYNAMIC_DROPS)}" if create else ""
    return f"""
        mov rax, {cached_entry}
        test rax, rax
        jnz known
        mov rsi, qword ptr gs:[{task.current:#x}]
        mov rcx, {HASH_MULTIPLIER:#x}
        imul rcx, rsi
        shr rcx, {shift}
        mov r8d, {min(MAX_PROBES_PER_LOOKUP, table.capacity)}
    next:
        imul r9, rcx, {table.stride:#x}
        mov r10, {context.activity + table.offset:#x}
        add r9, r10
        mov r10, qword ptr [r9]
        cmp r10, rsi
        je found
        test r10, r10
        jz free
        inc ecx
        and ecx, {table.capacity - 1:#x}
        dec r8d
        jnz next
        {drop}
        xor eax, eax
        ret
    free:
        {_CLAIM if create else "xor eax, eax; ret"}
    found:
        mov r10, qword ptr [rsi + {start:#x}]
        cmp r10, qword ptr [r9 + 8]
        je keep
    fresh:
        mov r10, qword ptr [rsi + {start:#x}]
        mov qword ptr [r9 + 8], r10
        {_clear_entry(table)}
    keep:
        mov {cached_entry}, r9
        mov rax, r9
    known:
        ret
    """


def _thread_find(context: CodegenContext, _address_of: AddressOf) -> str:
    return _thread_lookup(context, create=False)


def _thread_create(context: CodegenContext, _address_of: AddressOf) -> str:
    return _thread_lookup(context, create=True)


def _thread_store(_context: CodegenContext, address_of: AddressOf) -> str:
    """Store an integer. A thread that has no entry needs none for a 0."""
    return f"""
        call {address_of("thread_find"):#x}
        test rax, rax
        jnz store
        test rdx, rdx
        jz nothing
        call {address_of("thread_create"):#x}
        test rax, rax
        jz nothing
    store:
        mov qword ptr [rax + rdi], rdx
    nothing:
        ret
    """


def _self_key(context: CodegenContext, _address_of: AddressOf) -> str:
    task, start = _task(context)
    key = context.scratch.key
    return f"""
        mov rcx, qword ptr gs:[{task.current:#x}]
        mov qword ptr {context.in_scratch(key + 8)}, rcx
        mov rcx, qword ptr [rcx + {start:#x}]
        mov qword ptr {context.in_scratch(key + 16)}, rcx
        ret
    """


ROUTINES: dict[str, Routine] = {
    "self_key": _self_key,
    "thread_find": _thread_find,
    "thread_create": _thread_create,
    "thread_store": _thread_store,
}
