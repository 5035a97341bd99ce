"""Breakpoints in a stub: its own, and INT3 bytes of ours where it has none."""

from __future__ import annotations

from scripted_stub import Connect


def test_resume_steps_off_a_breakpoint_of_ours(connect: Connect) -> None:
    target, stub = connect()
    target.set_breakpoint(0x1010)
    stub.registers[1][128:136] = (0x1010).to_bytes(8, "little")
    del stub.packets[:]
    target.resume()
    assert [p for p in stub.packets if p[:1] in b"zZv"] == [b"z0,1010,1", b"vCont;s:p01.01", b"Z0,1010,1", b"vCont;c"]
