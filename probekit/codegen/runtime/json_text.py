"""Find a value in a JSON document: ``json()``, equal to :mod:`probekit.interp.json_text` byte for byte.

json              rsi: document, rdx: path, rdi: target  -> the value as it is written, or the empty string
json_member       r10, rdx: start and end of a name  -> rsi: at that member's value; carry when there is none
json_element      r10d: number                       -> rsi: at that element; carry when there is none

json_skip_blanks  -> rsi: after blanks; al: the byte there, 0 at the end
json_skip_string  -> rsi: after a string's closing quote; carry when no string is here
json_skip_value   -> rsi: after a value of any kind; carry when no value is here
json_next_item    -> rsi: after a value, a comma and blanks; carry when they are not here

The rules for arguments are those of :mod:`probekit.codegen.runtime.strings`. rsi only moves forward, and no further
than r8, where the document ends. There is no stack of open brackets, only their count.

The time is bounded by the lengths of the document and of the path: the code goes through each of them once.
"""

from __future__ import annotations

from probekit.codegen.context import CodegenContext
from probekit.codegen.runtime.registry import AddressOf, Routine

__all__ = ("ROUTINES",)

_MAX_DEPTH = 64  # open brackets
_MAX_DIGITS = 9  # of an element's number
_QUOTE, _BACKSLASH = 0x22, 0x5C


def _member(_context: CodegenContext, address_of: AddressOf) -> str:
    """Compare names as they are written. r11: start of the member's name; rcx: its end, then its length."""
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
    """Follow the path step by step: rdx goes through it, and r9 is its end."""
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
        {_take_name(address_of)}
        {_take_number(address_of)}
    nothing:
        mov byte ptr [rdi], 0
        ret
        {_store_value(address_of)}
    """


def _take_name(address_of: AddressOf) -> str:
    """Read a name off the path, and go to its member; then on to ``step``, or to ``nothing``."""
    return f"""
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
    """


def _take_number(address_of: AddressOf) -> str:
    """Read a number in brackets off the path, and go to its element; then on to ``step``, or to ``nothing``."""
    return f"""
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
        cmp ecx, {_MAX_DIGITS}
        jbe digit
        jmp nothing
    numbered:
        inc rdx
        test ecx, ecx
        jz nothing
        call {address_of("json_element"):#x}
        jae step
    """


def _store_value(address_of: AddressOf) -> str:
    """Store the value that the path leads to: a string without its quotes, anything else as it is written."""
    return f"""
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
    """Return a character as an operand."""
    return f"{ord(text):#x}"


def _word(text: bytes) -> str:
    """Return the first four letters as a word in memory."""
    return f"{int.from_bytes(text[:4], 'little'):#x}"


def _skip_blanks(_context: CodegenContext, _address_of: AddressOf) -> str:
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


def _skip_string(_context: CodegenContext, _address_of: AddressOf) -> str:
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


def _skip_value(_context: CodegenContext, address_of: AddressOf) -> str:
    """Skip a string, a number, a word, or everything up to the closing bracket; it changes rax, rcx and r11."""
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
        {_skip_number()}
        {_skip_word()}
    string:
        call {address_of("json_skip_string"):#x}
        ret
        {_skip_brackets(address_of)}
    """


def _skip_number() -> str:
    """Skip the characters of a number, and go to ``done`` when there is any."""
    return f"""
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
    """


def _skip_word() -> str:
    """Skip ``true``, ``null`` or ``false`` and go to ``done``; go to ``bad`` for anything else."""
    return f"""
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
    """


def _skip_brackets(address_of: AddressOf) -> str:
    """Count brackets until the first one is closed, and skip strings; nothing else in them is looked at.

    Both kinds of bracket count alike: with the bit 0x20 set, ``[`` is ``{`` and ``]`` is ``}``.
    """
    return f"""
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
        cmp ecx, {_MAX_DEPTH}
        jbe inside
    bad:
        stc
        ret
    """


def _next_item(_context: CodegenContext, address_of: AddressOf) -> str:
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
    "json_element": _element,
    "json_member": _member,
    "json_next_item": _next_item,
    "json_skip_blanks": _skip_blanks,
    "json_skip_string": _skip_string,
    "json_skip_value": _skip_value,
}
