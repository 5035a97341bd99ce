"""What is asked of a stub when connecting, and stubs that know little or are none."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from scripted_stub import Connect, Faults, ScriptedStub

from probekit.errors import TargetError, TargetTimeout, UnsupportedError
from probekit.target.rsp import RspTarget


def _read_physical(target: RspTarget, addr: int, size: int) -> bytes:
    with target.physical_memory():
        return target.read(addr, size)


def test_what_qemu_can_do_is_found_and_a_dead_clients_breakpoints_are_removed(connect: Connect) -> None:
    target, stub = connect()
    assert target.features.qemu and target.features.vcont and target.features.multiprocess
    assert target.features.read_size == 2048
    assert target.vcpus() == (1, 2)
    # Once to be told the state, and once for each vCPU: QEMU removes a dead client's breakpoints vCPU by vCPU.
    asked = [at for at, packet in enumerate(stub.packets) if packet == b"?"]
    assert [stub.packets[at - 1][:2] for at in asked[1:]] == [b"Hc", b"Hc"]
    assert len({stub.packets[at - 1] for at in asked[1:]}) == 2
    assert not any(p.startswith((b"k", b"vKill")) for p in stub.packets)


def test_a_stub_without_qsupported_has_the_defaults_and_int3_breakpoints(connect: Connect) -> None:
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


def test_a_silent_stub_does_not_hang_us(stubs: Callable[..., ScriptedStub]) -> None:
    stub = stubs(faults=Faults(silent=True))
    started = time.monotonic()
    with pytest.raises(TargetTimeout, match="no gdb stub answers") as caught:
        RspTarget(stub.stream, name="stub", timeout=0.6)
    assert time.monotonic() - started < 2
    assert "another debugger" in caught.value.hint


@pytest.mark.parametrize("noise", [b"QEMU 7.2 monitor\r\n(qemu) ", b"\x00\xff" * 1000, b"$$$$", b'{"QMP": {"version"'])
def test_something_that_is_no_stub_is_refused(stubs: Callable[..., ScriptedStub], noise: bytes) -> None:
    stub = stubs(faults=Faults(silent=True, greeting=noise))
    with pytest.raises(TargetError):
        RspTarget(stub.stream, name="stub", timeout=0.3)
