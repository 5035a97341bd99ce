"""Write machine code as text for people.

b"\\x0f\\x1f\\x44\\x00\\x00" at 0x1000  ->  "0x1000: 0f1f440000                       nop [rax+rax]"
"""

from __future__ import annotations

from collections.abc import Iterator

from iced_x86 import Decoder, Formatter, FormatterSyntax

__all__ = ("disassemble",)


def disassemble(code: bytes, addr: int) -> Iterator[str]:
    """Yield a line for each instruction; bytes that are no instruction show as ``(bad)``."""
    formatter = Formatter(FormatterSyntax.INTEL)
    formatter.hex_prefix, formatter.hex_suffix = "0x", ""
    for insn in Decoder(64, code, ip=addr):
        raw = code[insn.ip - addr : insn.ip - addr + insn.len]
        yield f"{insn.ip:#x}: {raw.hex():<32} {formatter.format(insn)}"
