"""A machine that others stop and resume beside us: nothing is run that somebody has paused, and no request is lost."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from scripted_stub import Faults, ScriptedStub

from probekit.errors import GuestPaused, MachineRan
from probekit.target.rsp import RspTarget

Stubs = Callable[..., ScriptedStub]
TRAP = b"T05thread:p01.02;"


def monitor(status: str = "paused", version: str = "7.2.22") -> dict[bytes, bytes]:
    """What the monitor answers."""
    lines = {"info status": f"VM status: {status}\r\n", "info version": f"{version}\r\n"}
    return {b"qRcmd," + line.encode().hex().encode(): text.encode().hex().encode() for line, text in lines.items()}


@pytest.fixture
def connected(stubs: Stubs) -> Callable[..., tuple[RspTarget, ScriptedStub]]:
    """A target and its stub. ``ran``: whether the machine ran until we came."""

    def make(*, ran: bool = True, status: str = "paused", version: str = "7.2.22") -> tuple[RspTarget, ScriptedStub]:
        stub = stubs(faults=Faults(answers=monitor(status, version)))
        if ran:
            stub.push(b"T02thread:p01.01;")
        return RspTarget(stub.stream, name="stub", timeout=2), stub

    return make


Connected = Callable[..., tuple[RspTarget, ScriptedStub]]


def resumes(stub: ScriptedStub) -> list[bytes]:
    """Packets that let the machine run."""
    return [packet for packet in stub.packets if packet.startswith((b"vCont;", b"D", b"c"))]


@pytest.mark.parametrize("status", ["paused", "paused (debug)", "paused (prelaunch)", "paused (postmigrate)"])
def test_found_paused_and_left_so(connected: Connected, status: str) -> None:
    target, stub = connected(ran=False, status=status)
    assert target.paused
    target.set_breakpoint(0x1000)
    assert target.read(0x1000, 4) == bytes(4)
    with pytest.raises(GuestPaused):
        target.step(1)
    target.resume()
    assert target.running and target.wait(0.05) is None
    assert target.stop().kind == "interrupt" and target.paused
    target.detach()
    assert resumes(stub) == [] and stub.breaks == set()


@pytest.mark.parametrize(("ran", "version"), [(True, "7.2.22"), (False, "11.1.3")])
def test_found_running(connected: Connected, ran: bool, version: str) -> None:
    target, stub = connected(ran=ran, version=version)
    assert not target.paused
    target.resume()
    target.detach()
    assert resumes(stub) == [b"vCont;c", b"D;1"]


def test_what_qmp_says_is_believed(stubs: Stubs) -> None:
    stub = stubs(faults=Faults(answers=monitor(version="11.1.3")))
    target = RspTarget(stub.stream, name="stub", timeout=2, was_running=False)
    target.detach()
    assert resumes(stub) == []


def test_a_failed_handshake_leaves_a_paused_machine_paused(stubs: Stubs) -> None:
    stub = stubs(faults=Faults(answers={**monitor(), b"Hc": b"E22"}))
    with pytest.raises(Exception, match="choosing a vCPU"):
        RspTarget(stub.stream, name="stub", timeout=2)
    time.sleep(0.1)
    assert resumes(stub) == []


@pytest.mark.parametrize("signal", [b"02", b"0e", b"17", b"18"])
def test_an_operators_stop_lasts(connected: Connected, signal: bytes) -> None:
    target, stub = connected()
    target.resume()
    stub.push(b"T%bthread:p01.01;" % signal)
    assert target.wait(1) is None and target.paused and target.running
    for _ in range(3):  # we look at it, and leave it as it is
        target.stop()
        assert target.read(0x1000, 1) == b"\0"
        target.resume()
    assert target.paused and resumes(stub) == [b"vCont;c"]
    assert target.foreign_runs == 0


def test_a_stop_that_arrives_before_we_ask_was_not_ours(connected: Connected) -> None:
    target, stub = connected()
    target.resume()
    stub.push(b"T02thread:p01.01;")
    target.stop()
    target.resume()
    assert target.paused and resumes(stub) == [b"vCont;c"]


def test_the_operator_resumes_and_we_stop_it(connected: Connected) -> None:
    target, stub = connected(ran=False)
    target.resume()
    stub.running = True
    assert target.stop().kind == "interrupt"
    assert not target.paused and target.foreign_runs == 0, "it was not ours to hold"
    target.resume()
    assert resumes(stub) == [b"vCont;c"]


def test_the_operator_resumes_while_we_wait(connected: Connected) -> None:
    target, stub = connected(ran=False)
    target.resume()
    stub.running = True
    assert target.wait(1.2) is None
    assert not target.paused and stub.running, "stopped for a look, and set running again"
    assert resumes(stub) == [b"vCont;c"]


def test_a_breakpoint_ends_a_pause(connected: Connected) -> None:
    target, stub = connected()
    target.resume()
    stub.push(b"T02thread:p01.01;")
    stub.push(TRAP)
    assert target.wait(1) is None
    reason = target.wait(1)
    assert reason is not None and (reason.kind, reason.vcpu) == ("breakpoint", 2)
    assert not target.paused


def test_a_breakpoint_that_no_packet_reports(connected: Connected) -> None:
    """QEMU from 8.1 on, after an operator's stop and cont."""
    target, stub = connected(version="11.1.3")
    target.resume()
    stub.push(b"T02thread:p01.01;")
    assert target.wait(1) is None and target.paused
    stub.faults.answers.update(monitor("paused (debug)"))
    reason = target.wait(2)
    assert reason is not None and reason.kind == "breakpoint" and not target.paused


def test_a_migration_ends_while_we_have_it_stopped(connected: Connected) -> None:
    target, stub = connected()
    stub.faults.answers.update(monitor("paused (postmigrate)"))
    target.resume()
    target.detach()
    assert target.paused and resumes(stub) == []


def test_cont_while_we_have_it_stopped(connected: Connected) -> None:
    """No request is lost, and each is answered for the vCPU that was asked for."""
    target, stub = connected()
    stub.registers[2][0:8] = b"\x07" + bytes(7)
    assert target.regs(2)["rax"] == 7
    for number in range(1, 4):
        stub.running = True
        stub.current = 1  # a stop selects the vCPU that it names
        assert target.regs(2)["rax"] == 7
        assert target.foreign_runs == number
    stub.running = True
    assert target.read_many([(0x1000, 4)] * 300) == [bytes(4)] * 300
    stub.running = True
    target.write_many([(0x1000 + 8 * n, b"abc") for n in range(300)])
    assert target.read(0x1000, 3) == b"abc"
    stub.running = True
    assert target.vcpus() == (1, 2)
    target.resume()
    assert stub.running and not target.paused


def test_registers_from_before_a_foreign_run_are_not_written(connected: Connected) -> None:
    target, stub = connected()
    regs = target.regs(1)
    stub.running = True
    with pytest.raises(MachineRan):
        target.set_regs(1, regs.replace(rax=1))
    with pytest.raises(MachineRan):
        target.set_regs(1, regs.replace(rax=1))
    assert not [packet for packet in stub.packets if packet[:1] in b"PG"]
    target.set_regs(1, target.regs(1).replace(rax=1))
    assert target.regs(1)["rax"] == 1


def test_a_request_that_is_lost_in_mid_stream(connected: Connected, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine is set running between two packets of many: the first byte of the next one is lost."""
    monkeypatch.setattr("probekit.target.pipeline.LOST_SECONDS", 0.2)
    target, stub = connected()
    for n in range(300):
        stub.memory[0x1000][n] = n & 0xFF
    stub.run_after = len(stub.packets) + 150
    assert target.read_many([(0x1000 + n, 1) for n in range(300)]) == [bytes([n & 0xFF]) for n in range(300)]
    assert target.foreign_runs == 1


def test_who_holds_the_machine_is_noted(stubs: Stubs) -> None:
    notes: list[bool] = []
    stub = stubs(faults=Faults(answers=monitor()))
    stub.push(b"T02thread:p01.01;")
    target = RspTarget(stub.stream, name="stub", timeout=2, note_hold=notes.append)
    assert notes == [True]
    target.resume()
    target.stop()
    target.resume()
    assert notes == [True, False, True, False]
    stub.push(b"T02thread:p01.01;")
    target.wait(1)
    target.stop()
    assert not any(notes[4:]), "somebody else's pause is not our hold"


def test_a_pause_that_becomes_our_own_is_noted(stubs: Stubs) -> None:
    notes: list[bool | None] = []
    stub = stubs(faults=Faults(answers=monitor()))
    target = RspTarget(stub.stream, name="stub", timeout=2, note_hold=notes.append)
    target.own_pause()
    assert notes == [False, True], "killed now, it has left the machine stopped"
    target.resume()
    target.detach()
    assert notes == [False, True, False, True, None]


def test_another_stub_is_left_as_it_was(stubs: Stubs) -> None:
    """gdbsx: no 0x03 in front of requests, a stop that came unasked is reported, and the end lets the domain run."""
    stub = stubs(qemu=False)
    target = RspTarget(stub.stream, name="stub", timeout=2)
    assert not target.paused
    target.resume()
    stub.push(b"T02thread:1;")
    reason = target.wait(1)
    assert reason is not None and reason.kind == "interrupt"
    target.detach()
    assert stub.breaks_sent == 0 and b"D" in stub.packets
