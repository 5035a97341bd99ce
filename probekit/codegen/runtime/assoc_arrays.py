"""Find, read and store the elements of associative arrays: see :mod:`probekit.buffers.variables` for their table.

The key is in the scratch memory; ecx always says how many words it has.

    element_find                              -> locks the bucket; rdx: entry or 0, r8: address of the link to it,
                                                 r10: bucket, rax: hash, r11d: 0 when the chain is too long;
                                                 carry when another CPU kept the lock too long
    element_load                              -> rax: the integer, 0 when there is none
    element_load_string   rdi: target, edx: bytes of the value  -> the string at the target, empty when there is none
    element_store         rdx: value          -> 0 frees the element
    element_store_string  rsi: string, edi: bytes of the value  -> the empty string frees the element
    element_address                           -> rax: address of the value, or 0
    element_create        edi: bytes of the value  -> the same, made if need be

Inside, with the bucket locked:

    element_allocate                          -> edi: number of a free entry + 1, or 0; rdx: its address
    element_free          rdx: entry, r8: the link to it
    element_insert        after element_find  -> rdx: address of a new entry, or 0 after counting a drop

Elements belong to all CPUs. Each bucket has a lock, which is held for some tens of instructions with interrupts off.
A CPU that cannot get the lock after many tries gives up, and counts that.
"""

from __future__ import annotations

from probekit.buffers.layout import HeaderWord
from probekit.buffers.variables import ENTRY_HEAD, HASH_MULTIPLIER, DynamicTable
from probekit.codegen.context import CodegenContext
from probekit.codegen.runtime.core import header
from probekit.codegen.runtime.registry import AddressOf, Routine
from probekit.errors import required

__all__ = ("ROUTINES",)

_SPINS = 1_000_000  # about ten milliseconds: a virtual CPU that holds a lock may lose its own CPU meanwhile
_MAX_CHAIN = 512
_RETRIES = 1000


def _table(context: CodegenContext) -> DynamicTable:
    return required(context.storage.dynamic, "the table of the arrays' elements")


def _element_find(context: CodegenContext, _address_of: AddressOf) -> str:
    return f"""
        push rdi
        push rsi
        push rdx
        {_hash_key(context)}
        {_lock_bucket()}
        {_walk_chain(context)}
        add rsp, 8
        pop rsi
        pop rdi
        clc
        ret
    """


def _hash_key(context: CodegenContext) -> str:
    """Set rax to the hash of the key (:func:`probekit.buffers.variables.hash_words`) and r10 to its bucket."""
    table = _table(context)
    shift = 64 - (table.buckets.bit_length() - 1)
    add_bucket = f"mov r9, rax; shr r9, {shift}; lea r10, [r10 + r9*8]" if table.buckets > 1 else ""
    return f"""
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
        {add_bucket}
    """


def _lock_bucket() -> str:
    """Take the lock of the bucket at r10, or return with the carry flag."""
    return f"""
        mov esi, {_SPINS}
    spin:
        cmp dword ptr [r10], 0
        jne taken
        mov edx, 1
        xchg dword ptr [r10], edx
        test edx, edx
        jz locked
    taken:
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
    """


def _walk_chain(context: CodegenContext) -> str:
    """Set rdx to the entry that has the hash in rax and the key, or to 0; r8 to the address of the last link."""
    table = _table(context)
    return f"""
        lea r8, [r10 + 4]
        mov r11d, {_MAX_CHAIN}
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
    """


_UNLOCK = "mov dword ptr [r10], 0"
_LOAD_VALUE_ADDRESS = f"lea rdx, [rdx + rcx*8 + {ENTRY_HEAD}]"


def _element_load(_context: CodegenContext, address_of: AddressOf) -> str:
    return f"""
        call {address_of("element_find"):#x}
        jb nothing
        xor eax, eax
        test rdx, rdx
        jz unlock
        {_LOAD_VALUE_ADDRESS}
        mov rax, qword ptr [rdx]
    unlock:
        {_UNLOCK}
        ret
    nothing:
        xor eax, eax
        ret
    """


def _element_load_string(context: CodegenContext, address_of: AddressOf) -> str:
    return f"""
        push rdx
        call {address_of("element_find"):#x}
        mov rsi, rdx
        pop rdx
        jb nothing
        test rsi, rsi
        jz absent
        lea rsi, [rsi + rcx*8 + {ENTRY_HEAD}]
        push r10
        mov ecx, edx
        call {address_of("copy_padded"):#x}
        pop r10
        {_UNLOCK}
        ret
    absent:
        {_UNLOCK}
    nothing:
        mov byte ptr [rdi], 0
        ret
    """


def _element_allocate(context: CodegenContext, _address_of: AddressOf) -> str:
    """Take an entry off the free list, or a fresh one. It keeps rax, rcx, rsi, r8 and r10."""
    table = _table(context)
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


def _element_free(context: CodegenContext, _address_of: AddressOf) -> str:
    """Take the entry out of its chain and put it on the free list."""
    table = _table(context)
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


def _element_insert(context: CodegenContext, address_of: AddressOf) -> str:
    """Append an entry for the key to the chain of the locked bucket. It keeps rcx and r10."""
    return f"""
        test r11d, r11d
        jz nothing
        call {address_of("element_allocate"):#x}
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


def _element_store(_context: CodegenContext, address_of: AddressOf) -> str:
    return f"""
        push rdx
        call {address_of("element_find"):#x}
        jb out
        cmp qword ptr [rsp], 0
        je free
        test rdx, rdx
        jnz there
        call {address_of("element_insert"):#x}
        test rdx, rdx
        jz unlock
    there:
        {_LOAD_VALUE_ADDRESS}
        mov rax, qword ptr [rsp]
        mov qword ptr [rdx], rax
        jmp unlock
    free:
        test rdx, rdx
        jz unlock
        call {address_of("element_free"):#x}
    unlock:
        {_UNLOCK}
    out:
        pop rdx
        ret
    """


def _element_store_string(_context: CodegenContext, address_of: AddressOf) -> str:
    return f"""
        push rsi
        push rdi
        call {address_of("element_find"):#x}
        jb out
        mov rsi, qword ptr [rsp + 8]
        cmp byte ptr [rsi], 0
        je free
        test rdx, rdx
        jnz there
        call {address_of("element_insert"):#x}
        test rdx, rdx
        jz unlock
    there:
        {_LOAD_VALUE_ADDRESS}
        mov rdi, rdx
        mov rsi, qword ptr [rsp + 8]
        mov ecx, dword ptr [rsp]
        push r10
        call {address_of("copy_padded"):#x}
        pop r10
        jmp unlock
    free:
        test rdx, rdx
        jz unlock
        call {address_of("element_free"):#x}
    unlock:
        {_UNLOCK}
    out:
        pop rdi
        pop rsi
        ret
    """


def _element_address(_context: CodegenContext, address_of: AddressOf) -> str:
    return f"""
        call {address_of("element_find"):#x}
        jb nothing
        xor eax, eax
        test rdx, rdx
        jz unlock
        {_LOAD_VALUE_ADDRESS}
        mov rax, rdx
    unlock:
        {_UNLOCK}
        ret
    nothing:
        xor eax, eax
        ret
    """


def _element_create(_context: CodegenContext, address_of: AddressOf) -> str:
    """Clear a new object before the bucket is unlocked, so that no other CPU sees anything but zeros."""
    return f"""
        push rdi
        call {address_of("element_find"):#x}
        jb nothing
        test rdx, rdx
        jnz there
        call {address_of("element_insert"):#x}
        test rdx, rdx
        jz unlock
        {_LOAD_VALUE_ADDRESS}
        mov rax, rdx
        mov ecx, dword ptr [rsp]
        mov rdi, rdx
        add ecx, 7
        shr ecx, 3
        call {address_of("clear_words"):#x}
        jmp unlock
    there:
        {_LOAD_VALUE_ADDRESS}
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


ROUTINES: dict[str, Routine] = {
    "element_address": _element_address,
    "element_allocate": _element_allocate,
    "element_create": _element_create,
    "element_find": _element_find,
    "element_free": _element_free,
    "element_insert": _element_insert,
    "element_load": _element_load,
    "element_load_string": _element_load_string,
    "element_store": _element_store,
    "element_store_string": _element_store_string,
}
