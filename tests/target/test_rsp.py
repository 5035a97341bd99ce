"""The direct transport against a scripted stub: the protocol's corners, and stubs that misbehave."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from scripted_stub import Faults, ScriptedStub

from probekit.errors import (
    MemoryAccessError,
    ProtocolError,
    TargetError,
    TargetLost,
    TargetTimeout,
    UnsupportedError,
)
from probekit.target.rsp import RspTarget

Connect = Callable[..., tuple[RspTarget, ScriptedStub]]


@pytest.fixture
def connect(stubs: Callable[..., ScriptedStub]) -> Connect:
    def make(*, timeout: float = 3.0, **options: object) -> tuple[RspTarget, ScriptedStub]:
        stub = stubs(**options)
        target = RspTarget(stub.stream, name="stub", timeout=timeout)
        target._session.link.timeout = timeout
        return target, stub

    return make


def _read_physical(target: RspTarget, addr: int, size: int) -> bytes:
    with target.physical_memory():
        return target.read(addr, size)


def test_handshake_with_qemu(connect: Connect) -> None:
    target, stub = connect()
    assert target.features.qemu and target.features.vcont and target.features.multiprocess
    assert target.features.read_size == 2048
    assert target.vcpus() == (1, 2)
    # Once to be told the state, and once for each vCPU: QEMU removes a dead client's breakpoints vCPU by vCPU.
    asked = [at for at, packet in enumerate(stub.packets) if packet == b"?"]
    assert [stub.packets[at - 1][:2] for at in asked[1:]] == [b"Hc", b"Hc"]
    assert len({stub.packets[at - 1] for at in asked[1:]}) == 2
    assert not any(p.startswith((b"k", b"vKill")) for p in stub.packets)


def test_a_stop_packet_on_connect_is_not_an_answer(connect: Connect) -> None:
    target, _ = connect(faults=Faults(greeting=b"$T02thread:01;#04"))
    assert target.features.qemu
    assert target._session.link.stale == 1


def test_a_bare_stub(connect: Connect) -> None:
    """gdbsx: no qSupported, 164 bytes of registers, every reply acknowledged, breakpoints written by us."""
    target, stub = connect(qemu=False)
    assert (target.features.read_size, target.features.qemu, target._session.link.window) == (0x7FF, False, 1)
    assert target.vcpus() == (1, 2)
    regs = target.regs(2)
    assert "cr3" not in regs.values
    target.set_regs(2, regs.replace(rip=0x1011))
    assert target.regs(2)["rip"] == 0x1011
    target.set_breakpoint(0x1010)
    assert stub.memory[0x1000][0x10] == 0xCC
    target.resume()
    stub.push(b"T05thread:2;")
    reason = target.wait(2)
    assert reason is not None and reason.kind == "breakpoint"
    assert target.regs(2)["rip"] == 0x1010
    with pytest.raises(UnsupportedError):
        target.set_breakpoint(0x1010, "watch_write", 8)
    with pytest.raises(UnsupportedError):
        target.monitor("info status")
    with pytest.raises(UnsupportedError):
        _read_physical(target, 0, 8)
    target.detach()
    assert stub.memory[0x1000][0x10] == 0
    replies = len(stub.packets) - 1  # the resume has none; "D" is acknowledged too
    assert stub.acks >= replies - 1


def test_memory(connect: Connect) -> None:
    target, stub = connect()
    data = bytes(range(256)) * 32
    target.write(0x1000, data)
    assert target.read(0x1000, len(data)) == data
    assert bytes(stub.memory[0x2000][:256]) == data[:256]
    assert target.read(0x1000, 0) == b""
    assert target.read_many([(0x1001, 3), (0x9000, 1), (0x2FFE, 4), (0x2000, 2)]) == [data[1:4], None, None, data[:2]]
    with pytest.raises(MemoryAccessError) as caught:
        target.read(0x9000, 16)
    assert (caught.value.addr, caught.value.size) == (0x9000, 16)


def test_many_writes_raise_after_all_replies_are_in(connect: Connect) -> None:
    target, stub = connect()
    edits = [(0x1000 + 3 * i, b"\x11\x22") for i in range(1000)] + [(0x9000, b"\x33"), (0x2F00, b"\x44")]
    with pytest.raises(MemoryAccessError) as caught:
        target.write_many(edits)
    assert caught.value.addr == 0x9000
    assert stub.memory[0x2000][0xF00] == 0x44
    assert target.read(0x1000, 4) == b"\x11\x22\x00\x11"


def test_only_touching_edits_share_a_packet(connect: Connect) -> None:
    target, stub = connect()
    target.write_many([(0x1000, b"\x01\x02"), (0x1002, b"\x03"), (0x1004, b"\x05"), (0x1003, b"\x04")])
    assert [p for p in stub.packets if p[:1] == b"M"] == [b"M1000,3:010203", b"M1004,1:05", b"M1003,1:04"]


def test_damaged_requests_are_sent_again(connect: Connect) -> None:
    target, stub = connect()
    stub.faults.nak_first = 2
    assert target.read(0x1000, 4) == bytes(4)
    stub.faults.nak_first = 1
    target.write_many([(0x1000 + 8 * i, bytes([i])) for i in range(200)])
    assert [stub.memory[0x1000][8 * i] for i in range(200)] == list(range(200))


def test_a_stub_that_refuses_for_ever(connect: Connect) -> None:
    target, stub = connect()
    stub.faults.nak_first = 10**9
    with pytest.raises(ProtocolError, match="damaged"):
        target.regs(1)


def test_damaged_replies_are_asked_for_again(connect: Connect) -> None:
    target, stub = connect()
    stub.faults.corrupt_first = 1
    assert len(target.regs(1).raw) == 608


def test_a_late_reply_is_not_taken_for_the_next_one(connect: Connect) -> None:
    target, stub = connect(timeout=0.3)
    stub.memory[0x1000][:4] = b"late"
    stub.memory[0x2000][:4] = b"next"
    stub.faults.delay_once, stub.faults.delay_on = 0.4, b"m1000"
    with pytest.raises(TargetTimeout) as caught:
        target.read(0x1000, 4)
    assert caught.value.seconds == 0.3
    assert target.read(0x2000, 4) == b"next"


def test_stale_packets_before_the_acknowledgement_are_dropped(connect: Connect) -> None:
    target, stub = connect()
    target._session.select(1)
    stub.faults.prefix_once = b"$T05thread:01;#07"
    assert target.regs(1).values["rip"] == 0


def test_a_silent_stub_does_not_hang_us(stubs: Callable[..., ScriptedStub]) -> None:
    stub = stubs(faults=Faults(silent=True))
    started = time.monotonic()
    with pytest.raises(TargetTimeout, match="no gdb stub answers") as caught:
        RspTarget(stub.stream, name="stub", timeout=0.6)
    assert time.monotonic() - started < 2
    assert "another debugger" in caught.value.hint


@pytest.mark.parametrize("noise", [b"QEMU 7.2 monitor\r\n(qemu) ", b"\x00\xff" * 1000, b"$$$$", b'{"QMP": {"version"'])
def test_something_that_is_no_stub(stubs: Callable[..., ScriptedStub], noise: bytes) -> None:
    stub = stubs(faults=Faults(silent=True, greeting=noise))
    with pytest.raises(TargetError):
        RspTarget(stub.stream, name="stub", timeout=0.3)


def test_a_packet_without_end_is_bounded(connect: Connect) -> None:
    target, stub = connect(timeout=5)
    stub.faults.answers[b"g"] = b"0" * (3 << 20)
    with pytest.raises(ProtocolError):
        target.regs(1)


@pytest.mark.parametrize(
    ("request_start", "answer"),
    [(b"g", b"E14"), (b"g", b"zz"), (b"g", b"00"), (b"m", b"0"), (b"m", b"00" * 999), (b"Hg", b"E22"), (b"g", b"")],
)
def test_bad_answers_are_target_errors(connect: Connect, request_start: bytes, answer: bytes) -> None:
    target, stub = connect()
    stub.faults.answers[request_start] = answer
    with pytest.raises(TargetError):
        target.regs(2)
        target.read(0x1000, 4)


def test_the_stub_goes_away(connect: Connect) -> None:
    target, stub = connect()
    stub.faults.close_on = b"m"
    with pytest.raises(TargetLost):
        target.read(0x1000, 8)
    with pytest.raises(TargetLost):
        target.regs(1)
    target.detach()


def test_running(connect: Connect) -> None:
    target, stub = connect()
    target.resume()
    assert target.running and target.wait(0.05) is None
    for forbidden in (
        lambda: target.read(0x1000, 1),
        lambda: target.regs(1),
        target.resume,
        lambda: target.monitor("x"),
    ):
        with pytest.raises(TargetError, match="running"):
            forbidden()
    assert stub.running, "nothing may be sent to a running machine"
    reason = target.stop()
    assert (reason.kind, reason.signal, reason.vcpu) == ("interrupt", 2, 1)
    assert target.stop() == reason


def test_stop_reasons(connect: Connect) -> None:
    target, stub = connect()
    target.set_breakpoint(0x1008, "watch_write", 8)
    assert stub.breaks == {b"2,1008,8"}
    target.resume()
    stub.push(b"T05thread:p01.02;watch:ffffffff81000008;")
    reason = target.wait(2)
    assert reason is not None
    assert (reason.kind, reason.vcpu, reason.watch_addr) == ("watch", 2, 0xFFFFFFFF81000008)
    target.resume()
    stub.push(b"W00")
    ended = target.wait(2)
    assert ended is not None and ended.kind == "exited"
    with pytest.raises(TargetLost):
        target.regs(1)


def test_resume_steps_off_a_breakpoint_of_ours(connect: Connect) -> None:
    target, stub = connect()
    target.set_breakpoint(0x1010)
    stub.registers[1][128:136] = (0x1010).to_bytes(8, "little")
    del stub.packets[:]
    target.resume()
    assert [p for p in stub.packets if p[:1] in b"zZv"] == [b"z0,1010,1", b"vCont;s:p01.01", b"Z0,1010,1", b"vCont;c"]


def test_only_changed_registers_are_written(connect: Connect) -> None:
    target, stub = connect()
    regs = target.regs(1)
    del stub.packets[:]
    target.set_regs(1, regs.replace(rax=0x1122334455667788))
    assert [p for p in stub.packets if p[:1] in b"PG"] == [b"P0=8877665544332211"]
    del stub.packets[:]
    # Several go in one packet, so that none is written alone if somebody lets the machine run at that moment.
    target.set_regs(1, regs.replace(rax=1, eflags=0x246))
    (packet,) = [p for p in stub.packets if p[:1] in b"PG"]
    wanted = bytearray(608)
    wanted[0], wanted[136:138] = 1, b"\x46\x02"
    assert packet == b"G" + wanted.hex().encode()
    with pytest.raises(OverflowError):
        target.set_regs(1, regs.replace(rax=1 << 64))


def test_memory_is_seen_through_the_chosen_vcpu(connect: Connect) -> None:
    target, stub = connect()
    target.regs(2)
    target.read(0x1000, 1)
    assert stub.current == 1, "by default: the vCPU that stopped last"
    target.use_memory_of(2)
    target.read(0x1000, 1)
    assert stub.current == 2
    before = len(stub.packets)
    target.read(0x1000, 1)
    assert len(stub.packets) == before + 1, "the choice is sent once"


def test_physical_mode_is_left_again(connect: Connect) -> None:
    target, stub = connect()
    with pytest.raises(MemoryAccessError):
        _read_physical(target, 0x9000, 4)
    assert not stub.physical
    assert _read_physical(target, 0x1000, 4) == bytes(4)
    assert stub.packets.count(b"Qqemu.PhyMemMode:1") == 2


def test_detach(connect: Connect) -> None:
    target, stub = connect()
    target.set_breakpoint(0x1000)
    target.set_breakpoint(0x1000)
    assert stub.packets.count(b"Z0,1000,1") == 1
    target.resume()
    target.detach()
    target.detach()
    assert stub.breaks == set()
    assert stub.packets[-1] == b"D;1"
    with pytest.raises(TargetLost):
        target.read(0x1000, 1)


def test_a_connection_given_up_lets_the_machine_run(stubs: Callable[..., ScriptedStub]) -> None:
    stub = stubs(faults=Faults(answers={b"?": b"nonsense"}))
    with pytest.raises(ProtocolError):
        RspTarget(stub.stream, name="stub", timeout=1)
    deadline = time.monotonic() + 2
    while stub.packets[-1] != b"D;1" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert stub.packets[-1] == b"D;1"


def test_the_monitor(connect: Connect) -> None:
    target, stub = connect()
    stub.faults.answers[b"qRcmd,"] = b"OK"
    stub.faults.prefix_once = b""
    assert target.monitor("anything") == ""
    stub.faults.answers[b"qRcmd,"] = b"E01"
    with pytest.raises(TargetError, match="refused"):
        target.monitor("anything")
