"""Reserve room in the ring, copy, clear and compare: what nearly every clause needs.

reserve            ecx: bytes         -> rax: address of that much room in the ring, or 0 after counting a drop
copy_padded        rdi: target, rsi: string, ecx: size   -> the string, cut to the size and padded with zeros to it
copy_words         rdi: target, rsi: source, ecx: words  -> both pointers after the words
copy_frames        rdi: target, rsi: source, ecx: words  -> stops after the first word that is 0
clear_words        rdi: target, ecx: words
compare_strings    rdi, rsi           -> eax: negative, 0 or positive, by unsigned bytes
llquantize_bucket  r9: bounds, ecx: how many, rax: value  -> rcx: how many are not above it; keeps rdi and rsi
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
"""The most words that are moved one by one; more of them are moved in a loop."""


def header(word: int) -> str:
    """Return the operand of a word in the block's header."""
    return f"qword ptr [rbx + {word * 8:#x}]"


def _reserve(context: CodegenContext, _address_of: AddressOf) -> str:
    """Make room in the ring, after a pad record where the room at the ring's end is too small.

    It writes the pad even when the room after the pad is not free yet, so that a large record fits as soon as the host
    has read the others. Without a ring every record is a drop.
    """
    size, ring = context.layout.ring_size, context.layout.ring_offset
    drop = f"inc {header(HeaderWord.PRINCIPAL_DROPS)}; xor eax, eax; ret"
    if not size:
        return drop
    no_room, check_size = drop, ""
    match context.layout.policy:
        case "fill":
            no_room = f"""
        mov {header(HeaderWord.FILLED)}, 1
        mov rdx, {context.activity:#x}
        mov qword ptr [rdx], 1
        xor eax, eax
        ret
            """
        case "ring":
            check_size = f"cmp ecx, {size:#x}; ja drop"
        case "switch":
            pass
    return f"""
        {check_size}
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
        {no_room}
    """


def _evict(context: CodegenContext, label: str) -> str:
    """Go on when rdx bytes fit into the ring; the policy ``ring`` drops the oldest records until they do."""
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


def _copy_padded(_context: CodegenContext, _address_of: AddressOf) -> str:
    """Copy by words up to the one with the NUL in it. Every source has a spare word after it to be read too far."""
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


def _copy_words(_context: CodegenContext, _address_of: AddressOf) -> str:
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


def _copy_frames(_context: CodegenContext, _address_of: AddressOf) -> str:
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


def _clear_words(_context: CodegenContext, _address_of: AddressOf) -> str:
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


def _compare_strings(context: CodegenContext, _address_of: AddressOf) -> str:
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


def _llquantize_bucket(_context: CodegenContext, _address_of: AddressOf) -> str:
    """Search by halves: edx is the lowest possible result, ecx the highest."""
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
    "clear_words": _clear_words,
    "compare_strings": _compare_strings,
    "copy_frames": _copy_frames,
    "copy_padded": _copy_padded,
    "copy_words": _copy_words,
    "llquantize_bucket": _llquantize_bucket,
    "reserve": _reserve,
}
