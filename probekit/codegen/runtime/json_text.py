"""``json()`` as routines, equal to :mod:`probekit.interp.jsontext` byte for byte: see ``strings`` for their rules.

json          rsi: document, rdx: path   -> what is there, or nothing
json_member   r10, rdx: start and end of a name  -> at that member's value; carry when there is none
json_element  r10d: number               -> at that element; carry when there is none

json_blank    -> after blanks; al: the byte there, 0 at the end
json_string   -> after a string's closing quote; carry when none is here
json_value    -> after a value of any kind; carry when none is here
json_comma    -> after a value, a comma and blanks; carry when they are not here

rsi only moves forward, and no further than r8, where the document ends. There is no stack of what is open, only a
count of brackets.

Time is bounded by the lengths of the document and of the path, and by nothing else: both are gone through once.
"""

from __future__ import annotations

from probekit.codegen.context import CodegenContext
from probekit.codegen.runtime.registry import AddressOf, Routine

__all__ = ("ROUTINES",)

_DEEPEST = 64  # brackets that are open
_QUOTE, _BACKSLASH = 0x22, 0x5C


_LONGEST_NUMBER = 9  # digits of an element's number


def _member(_context: CodegenContext, address_of: AddressOf) -> str:
    """Names are compared as they are written. r11: the key's start, rcx: its end, then its length."""
    return f"""
        call {address_of("json_skip_blanks"):#x}
        cmp al, {_char("{")}
        jne bad
        inc rsi
        call {address_of("json_skip_blanks"):#x}
    next:
        lea r11, [rsi + 1]
        call {address_of("json_skip_string"):#x}
        jb out
        lea rcx, [rsi - 1]
        call {address_of("json_skip_blanks"):#x}
        cmp al, {_char(":")}
        jne bad
        inc rsi
        call {address_of("json_skip_blanks"):#x}
        sub rcx, r11
        mov rax, rdx
        sub rax, r10
        cmp rax, rcx
        jne other
    same:
        mov al, byte ptr [r11 + rcx - 1]
        cmp al, byte ptr [r10 + rcx - 1]
        jne other
        dec rcx
        jnz same
        clc
        ret
    other:
        call {address_of("json_next_item"):#x}
        jae next
        ret
    bad:
        stc
    out:
        ret
    """


def _element(_context: CodegenContext, address_of: AddressOf) -> str:
    return f"""
        call {address_of("json_skip_blanks"):#x}
        cmp al, {_char("[")}
        jne bad
        inc rsi
        call {address_of("json_skip_blanks"):#x}
    next:
        test r10d, r10d
        jz there
        dec r10d
        call {address_of("json_next_item"):#x}
        jae next
        ret
    there:
        call {address_of("json_skip_blanks"):#x}
        test al, al
        jz bad
        cmp al, {_char("]")}
        je bad
        clc
        ret
    bad:
        stc
        ret
    """


def _json(_context: CodegenContext, address_of: AddressOf) -> str:
    """rdx goes through the path, which ends at r9."""
    return f"""
        call {address_of("strlen"):#x}
        lea r8, [rsi + rax]
        xchg rsi, rdx
        call {address_of("strlen"):#x}
        xchg rsi, rdx
        lea r9, [rdx + rax]
        test rax, rax
        jz nothing
    step:
        cmp rdx, r9
        jae value
        mov al, byte ptr [rdx]
        cmp al, {_char("[")}
        je element
        cmp al, {_char(".")}
        jne name
        inc rdx
    name:
        mov r10, rdx
    letter:
        cmp rdx, r9
        jae named
        mov al, byte ptr [rdx]
        cmp al, {_char(".")}
        je named
        cmp al, {_char("[")}
        je named
        cmp al, {_char("]")}
        je named
        inc rdx
        jmp letter
    named:
        cmp rdx, r10
        je nothing
        call {address_of("json_member"):#x}
        jae step
        jmp nothing
    element:
        xor r10d, r10d
        xor ecx, ecx
    digit:
        inc rdx
        cmp rdx, r9
        jae nothing
        movzx eax, byte ptr [rdx]
        cmp al, {_char("]")}
        je numbered
        sub eax, {_char("0")}
        cmp eax, 9
        ja nothing
        imul r10d, r10d, 10
        add r10d, eax
        inc ecx
        cmp ecx, {_LONGEST_NUMBER}
        jbe digit
        jmp nothing
    numbered:
        inc rdx
        test ecx, ecx
        jz nothing
        call {address_of("json_element"):#x}
        jae step
    nothing:
        mov byte ptr [rdi], 0
        ret
    value:
        call {address_of("json_skip_blanks"):#x}
        mov r10, rsi
        call {address_of("json_skip_string"):#x}
        lea rcx, [rsi - 1]
        jb other
        inc r10
        jmp found
    other:
        mov rsi, r10
        call {address_of("json_skip_value"):#x}
        jb nothing
        mov rcx, rsi
    found:
        mov rsi, r10
        sub rcx, r10
        call {address_of("store_string"):#x}
        ret
    """


def _char(text: str) -> str:
    """A character as an operand."""
    return f"{ord(text):#x}"


def _word(text: bytes) -> str:
    """The first four letters as they stand in memory."""
    return f"{int.from_bytes(text[:4], 'little'):#x}"


def _blank(_context: CodegenContext, _address_of: AddressOf) -> str:
    return """
    next:
        xor eax, eax
        cmp rsi, r8
        jae done
        mov al, byte ptr [rsi]
        cmp al, 0x20
        je more
        cmp al, 0x9
        je more
        cmp al, 0xa
        je more
        cmp al, 0xd
        jne done
    more:
        inc rsi
        jmp next
    done:
        ret
    """


def _string(_context: CodegenContext, _address_of: AddressOf) -> str:
    return f"""
        cmp rsi, r8
        jae bad
        cmp byte ptr [rsi], {_QUOTE:#x}
        jne bad
    next:
        inc rsi
        cmp rsi, r8
        jae bad
        mov al, byte ptr [rsi]
        cmp al, {_QUOTE:#x}
        je done
        cmp al, {_BACKSLASH:#x}
        jne next
        inc rsi
        jmp next
    done:
        inc rsi
        clc
        ret
    bad:
        stc
        ret
    """


def _value(_context: CodegenContext, address_of: AddressOf) -> str:
    """Uses rax, rcx and r11. Of what is in brackets only brackets and strings are looked at."""
    return f"""
        cmp rsi, r8
        jae bad
        mov al, byte ptr [rsi]
        cmp al, {_QUOTE:#x}
        je string
        xor ecx, ecx
        or al, 0x20
        cmp al, {_char("{")}
        je inside
        mov r11, rsi
    number:
        cmp rsi, r8
        jae plain
        movzx eax, byte ptr [rsi]
        cmp al, {_char("-")}
        je digit
        cmp al, {_char("+")}
        je digit
        cmp al, {_char(".")}
        je digit
        lea ecx, [rax - {_char("0")}]
        cmp ecx, 9
        jbe digit
        or al, 0x20
        cmp al, {_char("e")}
        jne plain
    digit:
        inc rsi
        jmp number
    plain:
        cmp rsi, r11
        jne done
        mov rcx, r8
        sub rcx, rsi
        cmp rcx, 4
        jb bad
        mov eax, dword ptr [rsi]
        cmp eax, {_word(b"true")}
        je four
        cmp eax, {_word(b"null")}
        je four
        cmp rcx, 5
        jb bad
        cmp eax, {_word(b"false")}
        jne bad
        cmp byte ptr [rsi + 4], {_char("e")}
        jne bad
        inc rsi
    four:
        add rsi, 4
        jmp done
    string:
        call {address_of("json_skip_string"):#x}
        ret
    inside:
        cmp rsi, r8
        jae bad
        mov al, byte ptr [rsi]
        cmp al, {_QUOTE:#x}
        jne bracket
        call {address_of("json_skip_string"):#x}
        jae inside
        ret
    bracket:
        inc rsi
        or al, 0x20
        cmp al, {_char("{")}
        je opening
        cmp al, {_char("}")}
        jne inside
        dec ecx
        jnz inside
    done:
        clc
        ret
    opening:
        inc ecx
        cmp ecx, {_DEEPEST}
        jbe inside
    bad:
        stc
        ret
    """


def _comma(_context: CodegenContext, address_of: AddressOf) -> str:
    return f"""
        call {address_of("json_skip_value"):#x}
        jb out
        call {address_of("json_skip_blanks"):#x}
        cmp al, {_char(",")}
        jne bad
        inc rsi
        call {address_of("json_skip_blanks"):#x}
        clc
        ret
    bad:
        stc
    out:
        ret
    """


ROUTINES: dict[str, Routine] = {
    "json": _json,
    "json_skip_blanks": _blank,
    "json_next_item": _comma,
    "json_element": _element,
    "json_member": _member,
    "json_skip_string": _string,
    "json_skip_value": _value,
}
