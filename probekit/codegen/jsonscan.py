"""Going through a JSON document, for ``jsontext``: rsi only moves forward, and no further than r8, where it ends.

json_blank    -> behind blanks; al: the byte there, 0 at the end
json_string   -> behind a string's closing quote; carry when none is here
json_value    -> behind a value of any kind; carry when none is here
json_comma    -> behind a value, a comma and blanks; carry when they are not here

There is no stack of what is open, only a count of brackets.
"""

from __future__ import annotations

from probekit.codegen.context import Context
from probekit.codegen.routines import At, Routine

__all__ = ("JSON_SCAN", "char")

_DEEPEST = 64  # brackets that are open
_QUOTE, _BACKSLASH = 0x22, 0x5C


def char(text: str) -> str:
    """A character as an operand."""
    return f"{ord(text):#x}"


def _word(text: bytes) -> str:
    """The first four letters as they stand in memory."""
    return f"{int.from_bytes(text[:4], 'little'):#x}"


def _blank(_context: Context, _at: At) -> str:
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


def _string(_context: Context, _at: At) -> str:
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


def _value(_context: Context, at: At) -> str:
    """Uses rax, rcx and r11. Of what is in brackets only brackets and strings are looked at."""
    return f"""
        cmp rsi, r8
        jae bad
        mov al, byte ptr [rsi]
        cmp al, {_QUOTE:#x}
        je string
        xor ecx, ecx
        or al, 0x20
        cmp al, {char("{")}
        je inside
        mov r11, rsi
    number:
        cmp rsi, r8
        jae plain
        movzx eax, byte ptr [rsi]
        cmp al, {char("-")}
        je digit
        cmp al, {char("+")}
        je digit
        cmp al, {char(".")}
        je digit
        lea ecx, [rax - {char("0")}]
        cmp ecx, 9
        jbe digit
        or al, 0x20
        cmp al, {char("e")}
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
        cmp byte ptr [rsi + 4], {char("e")}
        jne bad
        inc rsi
    four:
        add rsi, 4
        jmp done
    string:
        call {at("json_string"):#x}
        ret
    inside:
        cmp rsi, r8
        jae bad
        mov al, byte ptr [rsi]
        cmp al, {_QUOTE:#x}
        jne bracket
        call {at("json_string"):#x}
        jae inside
        ret
    bracket:
        inc rsi
        or al, 0x20
        cmp al, {char("{")}
        je opening
        cmp al, {char("}")}
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


def _comma(_context: Context, at: At) -> str:
    return f"""
        call {at("json_value"):#x}
        jb out
        call {at("json_blank"):#x}
        cmp al, {char(",")}
        jne bad
        inc rsi
        call {at("json_blank"):#x}
        clc
        ret
    bad:
        stc
    out:
        ret
    """


JSON_SCAN: dict[str, Routine] = {
    "json_blank": _blank,
    "json_comma": _comma,
    "json_string": _string,
    "json_value": _value,
}
