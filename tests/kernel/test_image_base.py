"""Interrupt tables: where they are in the monitor's text, and the handlers in their gates."""

from __future__ import annotations

import struct

from probekit.kernel.image_base import gate_handlers, idt_bases


def test_idt_bases_and_gate_handlers_are_read_and_absent_ones_skipped() -> None:
    assert idt_bases("GDT=  00 00\nIDT=     fffffe0000000000 00000fff\nIDT=     fffffe0000000000 00000fff") == (
        0xFFFFFE0000000000,
    )
    assert idt_bases("") == ()
    handler = 0xFFFFFFFF81A2B3C4
    gate = struct.pack("<HHBBHII", handler & 0xFFFF, 0x10, 0, 0x8E, handler >> 16 & 0xFFFF, handler >> 32, 0)
    absent = bytearray(gate)
    absent[5] &= 0x7F
    assert gate_handlers(gate + bytes(absent) + b"\x01") == (handler,)
