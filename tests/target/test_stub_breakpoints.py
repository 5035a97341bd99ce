"""Breakpoints in a stub: its own, and INT3 bytes of ours where it has none."""

from __future__ import annotations

import pytest
from scripted_stub import Connect

from probekit.errors import TargetError, UnsupportedError
from probekit.target.api import Regs, StopReason
from probekit.target.stub_breakpoints import BreakpointTable

CODE = b"\x0f\x1f\x44\x00\x00\xc3"


class FakeStub:
    """``answers``: by packet; others are answered by OK, or by nothing when the stub knows no ``Z``."""

    def __init__(self, *, knows: bool = True) -> None:
        self.knows = knows
        self.answers: dict[bytes, bytes] = {}
        self.sent: list[bytes] = []
        self.memory = bytearray(CODE)
        self.rip = 0

    def request(self, payload: bytes) -> bytes:
        self.sent.append(payload)
        return self.answers.get(payload, b"OK" if self.knows else b"")

    def read(self, addr: int, size: int) -> bytes:
        return bytes(self.memory[addr : addr + size])

    def write(self, addr: int, data: bytes) -> None:
        self.memory[addr : addr + len(data)] = data

    def regs(self, vcpu: int) -> Regs:
        return Regs({"rip": self.rip}, b"")

    def set_regs(self, vcpu: int, regs: Regs) -> None:
        self.rip = regs["rip"]


STOP = StopReason("breakpoint", 4, 1, "T04")


def test_a_breakpoint_is_set_once_and_cleared_once() -> None:
    stub, table = FakeStub(), BreakpointTable()
    for _ in range(2):
        table.set(stub, 0x1000, "hardware", 1)
    assert table.code_addresses() == {0x1000}
    for _ in range(2):
        table.clear(stub, 0x1000, "hardware", 1)
    assert stub.sent == [b"Z1,1000,1", b"z1,1000,1"]
    assert table.code_addresses() == frozenset()


def test_a_stub_without_breakpoints_has_an_int3_written_and_the_byte_put_back() -> None:
    stub, table = FakeStub(knows=False), BreakpointTable()
    table.set(stub, 2, "software", 1)
    assert bytes(stub.memory) == CODE[:2] + b"\xcc" + CODE[3:]
    with table.lifted(stub, 2):
        assert bytes(stub.memory) == CODE
    assert stub.memory[2] == 0xCC
    table.clear_all(stub)
    assert bytes(stub.memory) == CODE


def test_a_breakpoint_is_set_again_after_it_was_lifted_even_when_the_step_failed() -> None:
    stub, table = FakeStub(knows=False), BreakpointTable()
    table.set(stub, 2, "software", 1)
    with pytest.raises(RuntimeError), table.lifted(stub, 2):
        raise RuntimeError
    assert stub.memory[2] == 0xCC


def test_a_watchpoint_is_not_lifted_with_the_code_at_its_address() -> None:
    stub, table = FakeStub(), BreakpointTable()
    table.set(stub, 0x1000, "watch_write", 8)
    with table.lifted(stub, 0x1000):
        pass
    assert stub.sent == [b"Z2,1000,8"] and table.code_addresses() == frozenset()


@pytest.mark.parametrize("kind", ["hardware", "watch_write", "watch_read", "watch_access"])
def test_what_an_int3_cannot_do_is_not_supported(kind: str) -> None:
    stub, table = FakeStub(knows=False), BreakpointTable()
    with pytest.raises(UnsupportedError, match=kind):
        table.set(stub, 2, kind, 1)
    assert bytes(stub.memory) == CODE and table.code_addresses() == frozenset()


def test_a_refused_breakpoint_is_an_error_and_is_not_listed() -> None:
    stub, table = FakeStub(), BreakpointTable()
    stub.answers[b"Z1,1000,1"] = b"E22"
    with pytest.raises(TargetError, match="E22") as caught:
        table.set(stub, 0x1000, "hardware", 1)
    assert "four hardware breakpoints" in caught.value.hint
    table.clear_all(stub)
    assert stub.sent == [b"Z1,1000,1"]


def test_one_that_cannot_be_cleared_stays_listed_and_the_others_are_cleared() -> None:
    stub, table = FakeStub(), BreakpointTable()
    for addr in (0x1000, 0x2000, 0x3000):
        table.set(stub, addr, "software", 1)
    stub.answers[b"z0,1000,1"] = b"E01"
    with pytest.raises(TargetError):
        table.clear_all(stub)
    assert table.code_addresses() == {0x1000}
    assert stub.sent[-3:] == [b"z0,1000,1", b"z0,2000,1", b"z0,3000,1"]


def test_a_stop_at_an_int3_of_ours_is_put_back_onto_its_address() -> None:
    stub, table = FakeStub(knows=False), BreakpointTable()
    table.set(stub, 2, "software", 1)
    stub.rip = 3
    assert table.explain(stub, STOP).signal == 5
    assert stub.rip == 2
    stub.rip = 5  # an INT3 of somebody else's
    table.explain(stub, STOP)
    assert stub.rip == 5


def test_a_stop_that_the_stub_itself_made_is_not_changed() -> None:
    stub, table = FakeStub(), BreakpointTable()
    table.set(stub, 2, "software", 1)
    stub.rip = 3
    assert table.explain(stub, STOP) is STOP
    assert stub.rip == 3


def test_resuming_steps_off_a_breakpoint_of_ours(connect: Connect) -> None:
    target, stub = connect()
    target.set_breakpoint(0x1010)
    stub.registers[1][128:136] = (0x1010).to_bytes(8, "little")
    del stub.packets[:]
    target.resume()
    assert [p for p in stub.packets if p[:1] in b"zZv"] == [b"z0,1010,1", b"vCont;s:p01.01", b"Z0,1010,1", b"vCont;c"]
