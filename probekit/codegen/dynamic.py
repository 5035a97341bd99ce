"""Routines on the variables of threads and on associative arrays: see :mod:`probekit.buffers.variables`.

    thread_find   -> rax: this thread's entry, or 0; keeps rdx and rdi
    thread_make   -> rax: the same, made if need be, 0 when there is no room; keeps rdx and rdi
    thread_store  rdx: value, edi: offset of the word in the entry
    self_key      -> the two words that say which thread, in the key
    element_find  ecx: words of the key  -> the bucket locked; rdx: entry or 0, r8: the link to it, r10: the bucket,
                  rax: hash, r11d: 0 when the chain is too long; carry when another CPU held it too long
    element_load  ecx                    -> rax: the integer, 0 when there is none
    element_text  ecx, rdi: target       -> the string
    element_store ecx, rdx: value        -> 0 frees it
    element_keep  ecx, rsi: string       -> the same for a string, of edi bytes
    element_at    ecx                    -> rax: address of the value, or 0
    element_make  ecx, edi: bytes        -> the same, made if need be

A thread's entry is only ever used by the thread itself, with interrupts off, so it needs no lock; its place is
claimed by one compare-and-exchange. Elements belong to all CPUs: each bucket has a lock, held for some tens of
instructions with interrupts off. Who cannot get it after many tries gives up, which is counted.
"""

from __future__ import annotations

from probekit.buffers.layout import MAX_PROBES_PER_LOOKUP, HeaderWord
from probekit.buffers.variables import ENTRY_HEAD, HASH_MULTIPLIER, THREAD_HEAD, DynamicTable, ThreadTable
from probekit.codegen.context import Context, TaskOffsets
from probekit.codegen.routines import At, Routine
from probekit.codegen.runtime import header
from probekit.errors import UnsupportedError

__all__ = ("DYNAMIC",)

_SPINS = 1_000_000  # some ten milliseconds: a virtual CPU that holds a lock may lose its own CPU meanwhile
_CHAIN = 512
_RETRIES = 1000


def _task(context: Context) -> tuple[TaskOffsets, int]:
    task = context.task
    if task is None or task.start is None:
        raise UnsupportedError(
            "variables of threads need the kernel's type information, which this guest does not have",
            feature="self->",
            hint="its kernel was built without CONFIG_DEBUG_INFO_BTF",
        )
    return task, task.start


def _threads(context: Context) -> ThreadTable:
    assert context.storage.threads is not None
    return context.storage.threads


def _dynamic(context: Context) -> DynamicTable:
    assert context.storage.dynamic is not None
    return context.storage.dynamic


def _thread_lookup(context: Context, *, create: bool) -> str:
    table = _threads(context)
    task, start = _task(context)
    shift = 64 - (table.capacity.bit_length() - 1)
    cache = f"qword ptr {context.in_scratch(context.scratch.thread)}"
    zero = "\n".join(f"mov qword ptr [r9 + {at:#x}], 0" for at in range(THREAD_HEAD, table.stride, 8))
    if table.stride > 256:
        zero = f"""
        mov eax, {(table.stride - THREAD_HEAD) // 8}
    zero:
        mov qword ptr [r9 + rax*8 + {THREAD_HEAD - 8}], 0
        dec eax
        jnz zero
        """
    claim = (
        """
        xor eax, eax
        lock cmpxchg qword ptr [r9], rsi
        jz fresh
        jmp next
        """
        if create
        else """
        xor eax, eax
        ret
        """
    )
    drop = f"inc {header(HeaderWord.DYNAMIC_DROPS)}" if create else ""
    return f"""
        mov rax, {cache}
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
        {claim}
    found:
        mov r10, qword ptr [rsi + {start:#x}]
        cmp r10, qword ptr [r9 + 8]
        je keep
    fresh:
        mov r10, qword ptr [rsi + {start:#x}]
        mov qword ptr [r9 + 8], r10
        {zero}
    keep:
        mov {cache}, r9
        mov rax, r9
    known:
        ret
    """


def _thread_find(context: Context, _at: At) -> str:
    return _thread_lookup(context, create=False)


def _thread_make(context: Context, _at: At) -> str:
    return _thread_lookup(context, create=True)


def _thread_store(_context: Context, at: At) -> str:
    """A thread that has nothing needs no entry to hold a 0."""
    return f"""
        call {at("thread_find"):#x}
        test rax, rax
        jnz store
        test rdx, rdx
        jz nothing
        call {at("thread_make"):#x}
        test rax, rax
        jz nothing
    store:
        mov qword ptr [rax + rdi], rdx
    nothing:
        ret
    """


def _self_key(context: Context, _at: At) -> str:
    task, start = _task(context)
    key = context.scratch.key
    return f"""
        mov rcx, qword ptr gs:[{task.current:#x}]
        mov qword ptr {context.in_scratch(key + 8)}, rcx
        mov rcx, qword ptr [rcx + {start:#x}]
        mov qword ptr {context.in_scratch(key + 16)}, rcx
        ret
    """


def _element_find(context: Context, _at: At) -> str:
    table = _dynamic(context)
    shift = 64 - (table.buckets.bit_length() - 1)
    bucket = f"mov r9, rax; shr r9, {shift}; lea r10, [r10 + r9*8]" if table.buckets > 1 else ""
    return f"""
        push rdi
        push rsi
        push rdx
        lea rsi, {context.in_scratch(context.scratch.key)}
        mov r8, {HASH_MULTIPLIER:#x}
        xor eax, eax
        mov edx, ecx
    hash:
        xor rax, qword ptr [rsi]
        imul rax, r8
        ror rax, 32
        add rsi, 8
        dec edx
        jnz hash
        imul rax, r8
        mov r10, {context.activity + table.buckets_offset:#x}
        {bucket}
        mov esi, {_SPINS}
    spin:
        cmp dword ptr [r10], 0
        jne held
        mov edx, 1
        xchg dword ptr [r10], edx
        test edx, edx
        jz locked
    held:
        pause
        dec esi
        jnz spin
        inc {header(HeaderWord.BUSY_DROPS)}
        add rsp, 8
        pop rsi
        pop rdi
        stc
        ret
    locked:
        lea r8, [r10 + 4]
        mov r11d, {_CHAIN}
    walk:
        mov edx, dword ptr [r8]
        test edx, edx
        jz out
        dec edx
        imul rdx, rdx, {table.stride:#x}
        mov rdi, {context.activity + table.entries_offset:#x}
        add rdx, rdi
        cmp qword ptr [rdx + 8], rax
        jne step
        lea rsi, {context.in_scratch(context.scratch.key)}
        xor edi, edi
    same:
        mov r9, qword ptr [rsi + rdi*8]
        cmp r9, qword ptr [rdx + rdi*8 + {ENTRY_HEAD}]
        jne step
        inc edi
        cmp edi, ecx
        jb same
        jmp out
    step:
        mov r8, rdx
        dec r11d
        jnz walk
        xor edx, edx
    out:
        add rsp, 8
        pop rsi
        pop rdi
        clc
        ret
    """


_UNLOCK = "mov dword ptr [r10], 0"
_VALUE = f"lea rdx, [rdx + rcx*8 + {ENTRY_HEAD}]"


def _element_load(_context: Context, at: At) -> str:
    return f"""
        call {at("element_find"):#x}
        jb nothing
        xor eax, eax
        test rdx, rdx
        jz unlock
        {_VALUE}
        mov rax, qword ptr [rdx]
    unlock:
        {_UNLOCK}
        ret
    nothing:
        xor eax, eax
        ret
    """


def _element_text(context: Context, at: At) -> str:
    """edx: bytes of the value."""
    return f"""
        push rdx
        call {at("element_find"):#x}
        mov rsi, rdx
        pop rdx
        jb nothing
        test rsi, rsi
        jz absent
        lea rsi, [rsi + rcx*8 + {ENTRY_HEAD}]
        push r10
        mov ecx, edx
        call {at("copy"):#x}
        pop r10
        {_UNLOCK}
        ret
    absent:
        {_UNLOCK}
    nothing:
        mov byte ptr [rdi], 0
        ret
    """


def _take(context: Context, _at: At) -> str:
    """A free entry. -> edi: its number + 1, or 0; rdx: its address. Keeps rax, rcx, rsi, r8, r10."""
    table = _dynamic(context)
    entries = context.activity + table.entries_offset
    return f"""
        push rax
        push rcx
        push rsi
        mov r9, {context.activity + table.offset:#x}
        mov rax, qword ptr [r9]
        mov ecx, {_RETRIES}
    again:
        test eax, eax
        jz fresh
        mov edi, eax
        lea edx, [rdi - 1]
        imul rdx, rdx, {table.stride:#x}
        mov rsi, {entries:#x}
        add rdx, rsi
        mov r11, rax
        shr r11, 32
        inc r11d
        shl r11, 32
        mov esi, dword ptr [rdx]
        or r11, rsi
        lock cmpxchg qword ptr [r9], r11
        jz out
        dec ecx
        jnz again
    nothing:
        xor edi, edi
        jmp out
    fresh:
        mov edi, 1
        lock xadd qword ptr [r9 + 8], rdi
        cmp rdi, {table.capacity:#x}
        jae full
        mov rdx, rdi
        inc edi
        imul rdx, rdx, {table.stride:#x}
        mov rsi, {entries:#x}
        add rdx, rsi
        jmp out
    full:
        lock dec qword ptr [r9 + 8]
        jmp nothing
    out:
        pop rsi
        pop rcx
        pop rax
        ret
    """


def _give(context: Context, _at: At) -> str:
    """Take the entry rdx, which r8 links to, out of its chain and make it free."""
    table = _dynamic(context)
    return f"""
        mov eax, dword ptr [rdx]
        mov dword ptr [r8], eax
        mov r8, rdx
        mov rax, {context.activity + table.entries_offset:#x}
        sub rdx, rax
        mov rax, rdx
        xor edx, edx
        mov ecx, {table.stride:#x}
        div rcx
        lea edi, [rax + 1]
        mov r9, {context.activity + table.offset:#x}
        mov rax, qword ptr [r9]
        mov ecx, {_RETRIES}
    again:
        mov dword ptr [r8], eax
        mov r11, rax
        shr r11, 32
        inc r11d
        shl r11, 32
        or r11, rdi
        lock cmpxchg qword ptr [r9], r11
        jz done
        dec ecx
        jnz again
    done:
        ret
    """


def _join(context: Context, at: At) -> str:
    """A new entry for the key in the locked bucket. -> rdx: its address, or 0 (a drop was counted); keeps rcx, r10."""
    return f"""
        test r11d, r11d
        jz nothing
        call {at("element_take"):#x}
        test edi, edi
        jz nothing
        mov qword ptr [rdx + 8], rax
        mov dword ptr [rdx], 0
        lea rsi, {context.in_scratch(context.scratch.key)}
        xor eax, eax
    next:
        mov r9, qword ptr [rsi + rax*8]
        mov qword ptr [rdx + rax*8 + {ENTRY_HEAD}], r9
        inc eax
        cmp eax, ecx
        jb next
        mov dword ptr [r8], edi
        ret
    nothing:
        inc {header(HeaderWord.DYNAMIC_DROPS)}
        xor edx, edx
        ret
    """


def _element_store(_context: Context, at: At) -> str:
    return f"""
        push rdx
        call {at("element_find"):#x}
        jb out
        cmp qword ptr [rsp], 0
        je free
        test rdx, rdx
        jnz there
        call {at("element_join"):#x}
        test rdx, rdx
        jz unlock
    there:
        {_VALUE}
        mov rax, qword ptr [rsp]
        mov qword ptr [rdx], rax
        jmp unlock
    free:
        test rdx, rdx
        jz unlock
        call {at("element_give"):#x}
    unlock:
        {_UNLOCK}
    out:
        pop rdx
        ret
    """


def _element_keep(_context: Context, at: At) -> str:
    return f"""
        push rsi
        push rdi
        call {at("element_find"):#x}
        jb out
        mov rsi, qword ptr [rsp + 8]
        cmp byte ptr [rsi], 0
        je free
        test rdx, rdx
        jnz there
        call {at("element_join"):#x}
        test rdx, rdx
        jz unlock
    there:
        {_VALUE}
        mov rdi, rdx
        mov rsi, qword ptr [rsp + 8]
        mov ecx, dword ptr [rsp]
        push r10
        call {at("copy"):#x}
        pop r10
        jmp unlock
    free:
        test rdx, rdx
        jz unlock
        call {at("element_give"):#x}
    unlock:
        {_UNLOCK}
    out:
        pop rdi
        pop rsi
        ret
    """


def _element_at(_context: Context, at: At) -> str:
    return f"""
        call {at("element_find"):#x}
        jb nothing
        xor eax, eax
        test rdx, rdx
        jz unlock
        {_VALUE}
        mov rax, rdx
    unlock:
        {_UNLOCK}
        ret
    nothing:
        xor eax, eax
        ret
    """


def _element_make(_context: Context, at: At) -> str:
    """A new object is all zero before anybody else can see it."""
    return f"""
        push rdi
        call {at("element_find"):#x}
        jb nothing
        test rdx, rdx
        jnz there
        call {at("element_join"):#x}
        test rdx, rdx
        jz unlock
        {_VALUE}
        mov rax, rdx
        mov ecx, dword ptr [rsp]
        mov rdi, rdx
        add ecx, 7
        shr ecx, 3
        call {at("clear"):#x}
        jmp unlock
    there:
        {_VALUE}
        mov rax, rdx
        jmp found
    unlock:
        test rdx, rdx
        jnz found
        xor eax, eax
    found:
        {_UNLOCK}
        pop rdi
        ret
    nothing:
        pop rdi
        xor eax, eax
        ret
    """


DYNAMIC: dict[str, Routine] = {
    "element_at": _element_at,
    "element_find": _element_find,
    "element_give": _give,
    "element_join": _join,
    "element_keep": _element_keep,
    "element_load": _element_load,
    "element_make": _element_make,
    "element_store": _element_store,
    "element_take": _take,
    "element_text": _element_text,
    "self_key": _self_key,
    "thread_find": _thread_find,
    "thread_make": _thread_make,
    "thread_store": _thread_store,
}
