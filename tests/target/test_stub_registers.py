"""Registers through a stub: only those that differ are written."""

from __future__ import annotations

import pytest
from scripted_stub import Connect

from probekit.errors import TargetError


def test_only_changed_registers_are_written(connect: Connect) -> None:
    target, stub = connect()
    regs = target.regs(1)
    del stub.packets[:]
    target.set_regs(1, regs.replace(rax=0x1122334455667788))
    assert [p for p in stub.packets if p[:1] in b"PG"] == [b"P0=8877665544332211"]
    del stub.packets[:]
    # Before several, one is written as it is: only that is lost if somebody lets the machine run at that moment.
    target.set_regs(1, regs.replace(rbx=1, eflags=0x246))
    written = [p for p in stub.packets if p[:1] in b"PG"]
    assert written == [b"P0=8877665544332211", b"P0=0000000000000000", b"P1=0100000000000000", b"P11=46020000"]
    with pytest.raises(OverflowError):
        target.set_regs(1, regs.replace(rax=1 << 64))


def test_nothing_is_written_when_nothing_differs(connect: Connect) -> None:
    target, stub = connect()
    regs = target.regs(1)
    del stub.packets[:]
    target.set_regs(1, regs)
    assert stub.packets == [b"g"]


def test_a_stub_that_does_not_know_p_gets_all_registers(connect: Connect) -> None:
    target, stub = connect()
    regs = target.regs(1)
    stub.faults.answers[b"P"] = b""
    stub.faults.answers[b"G"] = b"OK"
    target.set_regs(1, regs.replace(rax=0x11))
    assert stub.packets[-1] == b"G" + b"11" + b"0" * (2 * 608 - 2)


def test_a_refused_register_is_a_target_error(connect: Connect) -> None:
    target, stub = connect()
    regs = target.regs(1)
    stub.faults.answers[b"P"] = b"E01"
    with pytest.raises(TargetError, match="refused to write registers"):
        target.set_regs(1, regs.replace(rax=0x11))


def test_a_register_that_the_stub_cannot_read_counts_as_zero(connect: Connect) -> None:
    target, stub = connect()
    raw = bytearray(b"ff" * 608)
    raw[:16] = b"x" * 16
    stub.faults.answers[b"g"] = bytes(raw)
    regs = target.regs(1)
    assert (regs["rax"], regs["rbx"]) == (0, (1 << 64) - 1)


def test_registers_of_each_vcpu_are_its_own(connect: Connect) -> None:
    target, stub = connect()
    stub.registers[2][:8] = (0x22).to_bytes(8, "little")
    assert (target.regs(1)["rax"], target.regs(2)["rax"], target.regs(1)["rax"]) == (0, 0x22, 0)
