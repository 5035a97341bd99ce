"""The stop engine's order of things: breakpoints and slots, firings in the order of vCPUs, and the way back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from probekit.enabling.api import EngineOptions
from probekit.enabling.sites import EnabledSite
from probekit.enabling.speculation import Speculations
from probekit.enabling.stop_engine.engine import MAX_STOP_SITES, StopEngine
from probekit.errors import GuestError, UnsupportedError
from probekit.guest.linux import Allocation
from probekit.guest.memory import PauseClock
from probekit.guest.offsets import TaskOffsets
from probekit.interp.state import ProgramState
from probekit.ir.build import compile_program
from probekit.kernel.syscalls import SyscallEntry
from probekit.patch.sites import EntrySite, InsnSite
from probekit.patch.step_slot import STEP_SLOT_SIZE
from probekit.probe.names import ProbeName
from probekit.providers.api import Probe, ProbeKind
from probekit.target.api import BreakKind, Regs, StopReason
from tests.support.fake_target import FakeTarget

TEXT, CODE, GS = 0xFFFFFFFF81000100, 0xFFFFFFFFC0000000, 0xFFFF888000000000
PAD = b"\x0f\x1f\x44\x00\x00"  # nop dword ptr [rax + rax]
STOPPED = StopReason("breakpoint", 5, 1, "T05")
TASKS = TaskOffsets(current=0, cpu=8, pid=0, tgid=4, comm=16)


@dataclass
class Stub(FakeTarget):
    """``stops``: what each wait does; ``status``: the monitor's word."""

    breakpoints: list[int] = field(default_factory=list)
    stops: list[Callable[[Stub], None]] = field(default_factory=list)
    status: str = "running"
    refuses: int = 0

    def stop(self) -> StopReason:
        self.running = False
        return StopReason("interrupt", 2, 1, "T02")

    def wait(self, timeout: float) -> StopReason | None:
        if not self.stops:
            return None
        self.running = False
        self.stops.pop(0)(self)
        return STOPPED

    def monitor(self, command: str) -> str:
        return f"VM status: paused ({self.status})"

    def set_breakpoint(self, addr: int, kind: BreakKind = "software", size: int = 1) -> None:
        if addr == self.refuses:
            raise GuestError("no more breakpoints")
        self.breakpoints.append(addr)

    def clear_breakpoint(self, addr: int, kind: BreakKind = "software", size: int = 1) -> None:
        if addr in self.breakpoints:
            self.breakpoints.remove(addr)


class Services:
    """The kernel's: one piece of executable memory."""

    def __init__(self, target: FakeTarget) -> None:
        self.held: set[int] = set()
        self.target = target

    def allocate(self, point: object, kind: str, size: int) -> Allocation:
        self.held.add(CODE)
        return Allocation("exec", CODE, 0x1000)

    def make_executable(self, point: object, memory: Allocation) -> None: ...

    def synchronize(self, point: object) -> None:
        """Whoever was in a slot has run on."""
        for vcpu, now in self.target.registers.items():
            if CODE <= now["rip"] < CODE + 0x1000:
                self.target.registers[vcpu] = regs(TEXT + 5)

    def free(self, point: object, memory: Allocation) -> None:
        self.held.remove(memory.addr)


class Log:
    """The journal: memory that is ours."""

    borrowed = False

    def __init__(self) -> None:
        self.memory: list[Allocation] = []

    def allocated(self, memory: Allocation) -> None:
        self.memory.append(memory)

    def freed(self, memory: Allocation) -> None:
        self.memory.remove(memory)

    def table_wiped(self) -> None: ...


def regs(rip: int, *, user: bool = False, rdi: int = 0) -> Regs:
    named = dict.fromkeys("rsi rdx rcx r8 r9 rax".split(), 0)
    return Regs({**named, "rdi": rdi, "rip": rip, "rsp": GS + 0x800, "cs": 0x33 if user else 0x10, "gs_base": GS}, b"")


def site(number: int) -> int:
    return TEXT + 32 * number


def made(
    text: str, *, count: int = 2, kinds: Sequence[ProbeKind] = (), monkeypatch: pytest.MonkeyPatch, **stub: Any
) -> tuple[StopEngine, Stub, Log]:
    """``count``: of functions with a probe each; ``kinds``: of several probes at the first function instead."""
    program = compile_program(text, allow_bare=True)
    clauses = tuple(clause.index for clause in program.clauses)
    memory = {TEXT: bytearray(32 * count), CODE: bytearray(0x1000), GS: bytearray(0x1000)}
    target, log = Stub(memory, {1: regs(0), 2: regs(0)}, running=True, **stub), Log()
    services = Services(target)
    target.memory[GS][0:8] = (GS + 0x100).to_bytes(8, "little")
    target.memory[GS][0x104:0x108] = (40).to_bytes(4, "little")
    places: list[tuple[ProbeKind, int]] = [(kind, site(0)) for kind in kinds] or [
        ("entry", site(n)) for n in range(count)
    ]
    sites = [
        EnabledSite(
            n,
            Probe(10 + n, ProbeName("fbt", "vmlinux", f"f{n}", kind), kind),
            InsnSite(addr, PAD, addr, trap=False) if kind == "instruction" else EntrySite(addr, PAD, addr),
            clauses,
            0,
        )
        for n, (kind, addr) in enumerate(places)
    ]
    anything: Any = target
    journal: Any = log
    facts: Any = SimpleNamespace(
        services=services, task=TASKS, kernel=SimpleNamespace(paths=None, syscalls=SyscallEntry()), grace=None,
        tracepoints=None,
        watchdog=None, module_refs=None,
    )  # fmt: skip

    def point(self: object, *, ending: bool = False) -> object:
        target.running = False
        return nullcontext("point")

    monkeypatch.setattr("probekit.enabling.guest_access.GuestAccess.safe_point", point)
    engine = StopEngine(
        target=anything,
        text=anything,
        facts=facts,
        program=program,
        sites=sites,
        options=EngineOptions(),
        log=journal,
        clock=PauseClock(anything),
    )
    return engine, target, log


def enabled(text: str, monkeypatch: pytest.MonkeyPatch, **stub: Any) -> tuple[StopEngine, Stub, Log]:
    engine, target, log = made(text, monkeypatch=monkeypatch, **stub)
    engine.enable({}, ProgramState(engine._program), Speculations(1, 100))
    return engine, target, log


def test_a_firing_goes_on_in_its_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, stub, _ = enabled("fbt::: { trace(arg0); @[pid] = count(); }", monkeypatch)
    assert stub.running and stub.breakpoints == [site(0), site(1)] and engine.guest_bytes == 0x1000

    def both(target: Stub) -> None:
        target.registers = {1: regs(site(1), rdi=5), 2: regs(site(0), rdi=6)}

    stub.stops = [both]
    drained = engine.poll(1)
    assert [(cpu, record.site, record.payload[:8]) for cpu, record in drained.records] == [
        (0, 1, (5).to_bytes(8, "little")),
        (1, 0, (6).to_bytes(8, "little")),
    ]
    assert [stub.registers[n]["rip"] for n in (1, 2)] == [CODE + STEP_SLOT_SIZE, CODE] and stub.running
    ((key, words),) = engine.aggregations()[0]
    assert (key, tuple(words)) == ((40,), (2,)) and engine.poll(0).records == ()


def test_probes_at_one_place_fire_from_the_outside_in(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, stub, _ = enabled("fbt::: { trace(1); }", monkeypatch, kinds=("entry", "instruction", "syscall"))
    stub.stops = [lambda target: target.registers.update({1: regs(site(0))})]
    assert [record.site for _, record in engine.poll(1).records] == [2, 0, 1] and stub.breakpoints == [site(0)]


def test_user_programs_at_the_same_address_do_not_fire(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, stub, _ = enabled("fbt::: { trace(1); }", monkeypatch)
    stub.stops = [lambda target: target.registers.update({1: regs(site(0), user=True)})]
    assert engine.poll(1).records == () and stub.registers[1]["rip"] == site(0)


def test_a_vcpu_that_a_pause_meets_at_a_site_fires_too(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, stub, _ = enabled("fbt::: { trace(1); }", monkeypatch)
    stub.registers[2] = regs(site(0))
    with engine._access.clock.paused():
        pass
    assert len(engine.poll(0).records) == 1 and stub.registers[2]["rip"] == CODE


def test_silence_serves_stops_and_runs_no_clause(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, stub, _ = enabled("fbt::: { trace(1); }", monkeypatch)
    engine.silence()
    stub.stops = [lambda target: target.registers.update({1: regs(site(0))})]
    assert engine.poll(1).records == () and stub.registers[1]["rip"] == CODE


def test_a_dead_guest_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, stub, _ = enabled("fbt::: { trace(1); }", monkeypatch)
    stub.stops, stub.status = [lambda target: None], "guest-panicked"
    with pytest.raises(GuestError, match="panicked"):
        engine.poll(1)


def test_the_end_serves_the_last_firing_and_gives_everything_back(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, stub, log = enabled("fbt::: { trace(1); }", monkeypatch)
    assert len(log.memory) == 1
    stub.registers[1] = regs(site(0))
    assert engine.disable() == [] and stub.breakpoints == [] and log.memory == [] and stub.running
    assert len(engine.poll(0).records) == 1 and engine.disable() == []


def test_a_failure_takes_everything_back(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, stub, log = made("fbt::: { trace(1); }", monkeypatch=monkeypatch, refuses=site(1))
    with pytest.raises(GuestError, match="no more"):
        engine.enable({}, ProgramState(engine._program), Speculations(1, 100))
    assert stub.breakpoints == [] and log.memory == [] and stub.running


def test_what_a_failure_leaves_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, _, _ = made("fbt::: { trace(1); }", monkeypatch=monkeypatch, refuses=site(1))
    disable = engine.disable
    monkeypatch.setattr(engine, "disable", lambda: [*disable(), "16 bytes are left behind"])
    with pytest.raises(GuestError, match="no more") as caught:
        engine.enable({}, ProgramState(engine._program), Speculations(1, 100))
    assert caught.value.__notes__ == ["not everything could be undone: 16 bytes are left behind"]


def test_too_many_sites_are_refused_before_anything_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, stub, log = made("fbt::: { trace(1); }", count=MAX_STOP_SITES + 1, monkeypatch=monkeypatch)
    with pytest.raises(UnsupportedError, match="1001 sites are too many"):
        engine.enable({}, ProgramState(engine._program), Speculations(1, 100))
    assert stub.running and stub.breakpoints == [] and log.memory == []


def test_globals_that_begin_has_set_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, stub, _ = made("int64_t x; fbt::: { trace(x); }", monkeypatch=monkeypatch)
    engine.enable({0: 77}, ProgramState(engine._program), Speculations(1, 100))
    stub.stops = [lambda target: target.registers.update({1: regs(site(0))})]
    ((_, record),) = engine.poll(1).records
    assert record.payload[:8] == (77).to_bytes(8, "little") and engine.globals_.load(0) == 77
