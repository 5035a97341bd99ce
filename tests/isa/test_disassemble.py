"""Machine code as text."""

from __future__ import annotations

from probekit.isa.disassemble import disassemble


def test_a_listing() -> None:
    assert list(disassemble(b"\x0f\x1f\x44\x00\x00\xc3", 0xFFFFFFFF81000000)) == [
        "0xffffffff81000000: 0f1f440000                       nop [rax+rax]",
        "0xffffffff81000005: c3                               ret",
    ]
