"""Registers through a stub: only those that differ are written."""

from __future__ import annotations

import pytest
from scripted_stub import Connect


def test_only_changed_registers_are_written(connect: Connect) -> None:
    target, stub = connect()
    regs = target.regs(1)
    del stub.packets[:]
    target.set_regs(1, regs.replace(rax=0x1122334455667788, eflags=0x246))
    assert [p for p in stub.packets if p[:1] in b"PG"] == [b"P0=8877665544332211", b"P11=46020000"]
    with pytest.raises(OverflowError):
        target.set_regs(1, regs.replace(rax=1 << 64))
