"""The routines that nearly every clause needs: room in the ring, tables, copying and comparing.

reserve     ecx: bytes            -> rax: address of that much ring, or 0 (a drop was counted)
copy        rdi, rsi, ecx: size   -> a string copied, cut to its size and padded with zeros to it
words       rdi, rsi, ecx: words  -> words copied
frames      rdi, rsi, ecx: words  -> words copied, up to the first that is 0
clear       rdi, ecx: words       -> words set to 0
compare     rdi, rsi              -> eax: negative, 0 or positive, by unsigned bytes
ladder      r9: bounds, ecx: how many, rax: value  -> rcx: how many are not above it; keeps rdi and rsi
"""

from __future__ import annotations

from probekit.buffers.layout import PAD_CLAUSE, HeaderWord
from probekit.codegen.context import CodegenContext
from probekit.codegen.reg_alloc import longest_string
from probekit.codegen.runtime.registry import AddressOf, Routine

__all__ = (
    "ROUTINES",
    "header",
)

UNROLLED_WORDS = 40
"""Words that are moved one by one; more of them are walked in loops."""


def header(word: int) -> str:
    """The operand of a word in the block's header."""
    return f"qword ptr [rbx + {word * 8:#x}]"


def _reserve(context: CodegenContext, _address_of: AddressOf) -> str:
    """Make room in the ring, writing a pad record first where the room at its end is too small.

    The pad is written also when what lies behind it is not free yet: a large record fits as soon as the reader is
    through. Without a ring everything is a drop.
    """
    size, ring = context.layout.ring_size, context.layout.ring_offset
    drop = f"inc {header(HeaderWord.PRINCIPAL_DROPS)}; xor eax, eax; ret"
    if not size:
        return drop
    none, room = drop, ""
    match context.layout.policy:
        case "fill":
            none = f"""
        mov {header(HeaderWord.FILLED)}, 1
        mov rdx, {context.activity:#x}
        mov qword ptr [rdx], 1
        xor eax, eax
        ret
            """
        case "ring":
            room = f"cmp ecx, {size:#x}; ja drop"
        case "switch":
            pass
    return f"""
        {room}
        mov rax, {header(HeaderWord.HEAD)}
        mov rdx, rax
        sub rdx, {header(HeaderWord.TAIL)}
        mov esi, eax
        and esi, {size - 1:#x}
        mov edi, {size:#x}
        sub edi, esi
        cmp edi, ecx
        jae fits
        add rdx, rdi
        {_evict(context, "pad")}
        lea rsi, [rbx + rsi + {ring:#x}]
        mov dword ptr [rsi], edi
        mov dword ptr [rsi + 4], {PAD_CLAUSE:#x}
        add rax, rdi
        mov {header(HeaderWord.HEAD)}, rax
        xor esi, esi
    fits:
        add rdx, rcx
        {_evict(context, "record")}
        lea rax, [rbx + rsi + {ring:#x}]
        ret
    drop:
        {none}
    """


def _evict(context: CodegenContext, label: str) -> str:
    """Room for what makes rdx bytes in use; where the oldest records go, they go until there is."""
    size, ring = context.layout.ring_size, context.layout.ring_offset
    if context.layout.policy != "ring":
        return f"cmp rdx, {size:#x}; ja drop"
    return f"""
        push rdi
    {label}_more:
        cmp rdx, {size:#x}
        jbe {label}_enough
        mov rdi, {header(HeaderWord.TAIL)}
        and edi, {size - 1:#x}
        mov edi, dword ptr [rbx + rdi + {ring:#x}]
        add {header(HeaderWord.TAIL)}, rdi
        sub rdx, rdi
        test edi, edi
        jnz {label}_more
        pop rdi
        jmp drop
    {label}_enough:
        pop rdi
    """


def _copy(_context: CodegenContext, _address_of: AddressOf) -> str:
    """By words up to the one with the NUL in it. A source always has a word of room behind it."""
    return """
        mov r8, 0x0101010101010101
        mov r9, 0x8080808080808080
    next:
        cmp ecx, 8
        jbe bytes
        mov rax, qword ptr [rsi]
        mov r10, rax
        sub r10, r8
        mov r11, rax
        not r11
        and r10, r11
        and r10, r9
        jnz bytes
        mov qword ptr [rdi], rax
        add rsi, 8
        add rdi, 8
        sub ecx, 8
        jmp next
    bytes:
        mov al, byte ptr [rsi]
        test al, al
        jz pad
        dec ecx
        jz last
        mov byte ptr [rdi], al
        inc rsi
        inc rdi
        jmp bytes
    last:
        mov byte ptr [rdi], 0
        ret
    pad:
        cmp ecx, 8
        jb rest
        mov qword ptr [rdi], 0
        add rdi, 8
        sub ecx, 8
        jmp pad
    rest:
        test ecx, ecx
        jz done
        mov byte ptr [rdi], 0
        inc rdi
        dec ecx
        jmp rest
    done:
        ret
    """


def _words(_context: CodegenContext, _address_of: AddressOf) -> str:
    return """
        test ecx, ecx
        jz done
    next:
        mov rax, qword ptr [rsi]
        mov qword ptr [rdi], rax
        add rsi, 8
        add rdi, 8
        dec ecx
        jnz next
    done:
        ret
    """


def _frames(_context: CodegenContext, _address_of: AddressOf) -> str:
    return """
    next:
        mov rax, qword ptr [rsi]
        mov qword ptr [rdi], rax
        test rax, rax
        jz done
        add rsi, 8
        add rdi, 8
        dec ecx
        jnz next
    done:
        ret
    """


def _clear(_context: CodegenContext, _address_of: AddressOf) -> str:
    return """
        test ecx, ecx
        jz done
    next:
        mov qword ptr [rdi], 0
        add rdi, 8
        dec ecx
        jnz next
    done:
        ret
    """


def _compare(context: CodegenContext, _address_of: AddressOf) -> str:
    return f"""
        mov ecx, {longest_string(context.program):#x}
    next:
        movzx eax, byte ptr [rdi]
        movzx edx, byte ptr [rsi]
        sub eax, edx
        jnz done
        test edx, edx
        jz done
        inc rdi
        inc rsi
        dec ecx
        jnz next
    done:
        ret
    """


def _ladder(_context: CodegenContext, _address_of: AddressOf) -> str:
    """A binary search: edx low, ecx high."""
    return """
        xor edx, edx
    next:
        cmp edx, ecx
        jae done
        lea r8, [rdx + rcx]
        shr r8, 1
        cmp qword ptr [r9 + r8*8], rax
        jg above
        lea edx, [r8 + 1]
        jmp next
    above:
        mov ecx, r8d
        jmp next
    done:
        ret
    """


ROUTINES: dict[str, Routine] = {
    "clear_words": _clear,
    "compare_strings": _compare,
    "copy_padded": _copy,
    "copy_frames": _frames,
    "llquantize_bucket": _ladder,
    "reserve": _reserve,
    "copy_words": _words,
}
