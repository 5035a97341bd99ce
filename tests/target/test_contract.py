"""The target contract, by both transports, on a live guest."""

from __future__ import annotations

import time
from functools import partial

import psutil
import pytest
from conftest import Live

from probekit.errors import MemoryAccessError, TargetError, TargetLost
from probekit.target.api import Target
from probekit.target.connect import connect, parse_spec
from probekit.target.discovery import find_qemu
from probekit.target.gdbmi import GdbTarget
from probekit.target.guest_ram import GuestRam, parse_ram_ranges
from probekit.target.qmp import Qmp
from probekit.target.rsp import RspTarget
from tests.guest_fixtures import K61, only
from tests.support.page_walk import walk

pytestmark = [pytest.mark.guest, only(K61)]

UNMAPPED = 0xFFFFFFFF_00000000
PAD = bytes.fromhex("0f1f440000")  # nop dword ptr [rax+rax]


def test_kernel_memory_reads_as_it_is_and_unmapped_memory_is_refused(target: Target, live: Live) -> None:
    banner = target.read(live.symbols["linux_banner"], 64)
    assert banner.startswith(b"Linux version")
    here = live.symbols["linux_banner"]
    assert target.read_many([(here, 5), (UNMAPPED, 8), (0, 1), (here + 6, 7)]) == [b"Linux", None, None, b"version"]
    with pytest.raises(MemoryAccessError) as caught:
        target.read(UNMAPPED, 8)
    assert (caught.value.addr, caught.value.size) == (UNMAPPED, 8)
    with pytest.raises(MemoryAccessError):
        target.write(UNMAPPED, b"x")


def test_writes_read_back_and_are_restored(target: Target, live: Live) -> None:
    here = live.symbols["linux_banner"]
    old = target.read(here, 64)
    target.write(here, b"probekit")
    assert target.read(here, 64) == b"probekit" + old[8:]
    target.write(here, old)
    assert target.read(here, 64) == old


def test_many_writes_are_all_made(target: Target, live: Live, transport: str) -> None:
    start, size = live.symbols["_text"], 4 << 20 if transport == "rsp" else 1 << 20
    text = target.read(start, size)
    places = [at for at in range(0, size, 16) if text[at : at + 5] == PAD]
    places += [at + 4 for at in range(0, size, 16) if text[at + 4 : at + 9] == PAD]
    assert len(places) > 500
    jump = bytes.fromhex("e900000000")  # jmp to the next instruction
    target.write_many([(start + at, jump) for at in places])
    assert target.read_many([(start + at, 5) for at in places]) == [jump] * len(places)
    target.write_many([(start + at, PAD) for at in places])
    assert target.read(start, size) == text


def test_a_refused_write_does_not_stop_the_others(target: Target, live: Live) -> None:
    here = live.symbols["linux_banner"]
    old = target.read(here, 8)
    with pytest.raises(MemoryAccessError):
        target.write_many([(here, b"A"), (UNMAPPED, b"B"), (here + 2, b"C")])
    assert target.read(here, 3) == b"A" + old[1:2] + b"C"
    target.write(here, old)


def test_a_register_that_is_set_reads_back(target: Target) -> None:
    first, second = target.vcpus()
    regs = target.regs(second)
    assert regs["cr3"] and regs["efer"] & 0x500 == 0x500
    target.set_regs(second, regs.replace(r15=0x1122334455667788, rbx=1))
    assert (target.regs(second)["r15"], target.regs(second)["rbx"]) == (0x1122334455667788, 1)
    assert target.regs(first)["r15"] != 0x1122334455667788
    target.set_regs(second, regs)
    assert target.regs(second) == regs
    with pytest.raises(TargetError):
        target.regs(99)


@pytest.mark.parametrize("kind", ["software", "hardware"])
def test_breakpoints_hit_again_and_again(target: Target, live: Live, kind: str) -> None:
    here = live.symbols["__x64_sys_newuname"]
    target.set_breakpoint(here, kind)
    for _ in range(4):
        target.resume()
        reason = target.wait(10)
        assert reason is not None and reason.kind == "breakpoint"
        assert target.regs(reason.vcpu)["rip"] == here
    target.clear_breakpoint(here, kind)
    target.resume()
    assert target.wait(0.3) is None
    target.stop()


def test_a_step_moves_one_vcpu_only(target: Target, live: Live) -> None:
    here = live.symbols["__x64_sys_newuname"]
    target.set_breakpoint(here)
    target.resume()
    reason = target.wait(10)
    assert reason is not None
    other = next(vcpu for vcpu in target.vcpus() if vcpu != reason.vcpu)
    before = target.regs(other)
    assert target.step(reason.vcpu).vcpu == reason.vcpu
    assert target.regs(reason.vcpu)["rip"] == here + 5  # past the pad
    for _ in range(5):
        target.step(reason.vcpu)
    assert target.regs(other).values == before.values


def test_a_watchpoint_says_where(target: Target, live: Live) -> None:
    here = live.symbols["jiffies"]
    target.set_breakpoint(here, "watch_write", 8)
    target.resume()
    reason = target.wait(10)
    assert reason is not None
    assert (reason.kind, reason.watch_addr) == ("watch", here)
    target.clear_breakpoint(here, "watch_write", 8)


def test_a_running_machine_is_not_touched_and_can_be_stopped(target: Target, live: Live) -> None:
    assert not target.running
    target.resume()
    started = time.monotonic()
    assert target.wait(0.2) is None
    assert 0.15 < time.monotonic() - started < 2
    assert target.running
    for forbidden in (lambda: target.read(live.symbols["jiffies"], 8), lambda: target.regs(1), target.resume):
        with pytest.raises(TargetError):
            forbidden()
    reason = target.stop()
    assert (reason.kind, reason.signal) == ("interrupt", 2)
    ticks = target.read(live.symbols["jiffies"], 8)
    target.resume()
    time.sleep(0.2)
    target.stop()
    assert target.read(live.symbols["jiffies"], 8) != ticks


def test_the_monitor_answers(target: Target) -> None:
    assert "paused" in target.monitor("info status") or "debug" in target.monitor("info status")
    assert len(target.monitor("info mtree -f")) > 2000
    assert "unknown command" in target.monitor("nonsense")


def test_detach_leaves_nothing_behind(live: Live, transport: str) -> None:
    spec = live.guest.gdb if transport == "rsp" else f"gdb:{live.guest.gdb}"
    target = connect(spec, timeout=10)
    gdb = psutil.Process(target._gdb.pid) if isinstance(target, GdbTarget) else None
    target.set_breakpoint(live.symbols["__x64_sys_newuname"])
    target.set_breakpoint(live.symbols["jiffies"], "watch_write", 8)
    target.resume()
    target.detach()
    target.detach()
    assert gdb is None or not gdb.is_running()
    assert live.alive()
    with pytest.raises(TargetLost):
        target.read(0, 1)


def test_a_gdb_that_dies_is_a_lost_target(live: Live) -> None:
    target = connect(f"gdb:{live.guest.gdb}", timeout=10)
    assert isinstance(target, GdbTarget)
    psutil.Process(target._gdb.pid).kill()
    with pytest.raises(TargetLost):
        target.read(live.symbols["jiffies"], 8)
    target.detach()
    connect(live.guest.gdb).detach()  # a killed gdb leaves the machine stopped, and so do we
    with Qmp(live.guest.qmp.removeprefix("unix:")) as qmp:
        assert qmp.status() == "paused"
        qmp.execute("cont")
    assert live.alive()


def test_a_second_client_is_told_and_does_no_harm(live: Live) -> None:
    first = connect(live.guest.gdb)
    with pytest.raises(TargetError) as caught:
        connect(live.guest.gdb, timeout=0.5)
    assert "another debugger" in caught.value.hint
    first.detach()
    assert live.alive()


def _read_physical(target: RspTarget, addr: int, size: int) -> bytes:
    with target.physical_memory():
        return target.read(addr, size)


def test_memory_is_the_same_in_three_ways(live: Live) -> None:
    """Through the stub, through the stub's physical mode, and through the shared file."""
    found = find_qemu(parse_spec(live.guest.gdb))
    assert found is not None and found.memory_path and found.memory_backend
    assert found.pid == live.guest.pid
    target = connect(live.guest.gdb)
    assert isinstance(target, RspTarget)
    ram = GuestRam(found.memory_path, parse_ram_ranges(target.monitor("info mtree -f"), found.memory_backend))
    regs = target.regs(1)
    for name in ("_text", "linux_banner", "jiffies"):
        addr = live.symbols[name]
        place = walk(ram.read, regs["cr3"], addr, bool(regs["cr4"] & 1 << 12))
        assert place is not None
        assert ram.read(place[0], 64) == target.read(addr, 64) == _read_physical(target, place[0], 64)
    assert walk(partial(_read_physical, target), regs["cr3"], addr, bool(regs["cr4"] & 1 << 12)) == place
    ticks = ram.u64(place[0], 1)
    before = ticks[0]
    target.detach()
    time.sleep(0.3)
    assert ticks[0] > before, "seen while the guest runs"
    ticks.release()
    ram.close()


def test_qmp_tells_the_state_its_events_and_errors(live: Live) -> None:
    with Qmp(live.guest.qmp.removeprefix("unix:")) as qmp:
        assert qmp.status() == "running"
        target = connect(live.guest.gdb)
        assert qmp.status() == "paused"
        target.detach()
        assert [event["event"] for event in qmp.events()] == ["STOP", "RESUME"]
        assert qmp.events() == []
        with pytest.raises(TargetError, match="nonsense"):
            qmp.execute("nonsense")
    with pytest.raises(TargetLost):
        qmp.status()
