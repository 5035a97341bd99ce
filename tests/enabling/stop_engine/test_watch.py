"""WatchedRange memory: who made which access, what it changed, and what nobody reported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from probekit.enabling.stop_engine.watch import MAX_WATCHES, Watcher, WatchSite
from probekit.errors import GuestError, UnsupportedError
from probekit.probe.names import ProbeName
from probekit.providers.api import Probe, WatchedRange
from probekit.target.api import BreakKind, Regs, StopReason
from tests.support.fake_target import FakeTarget

TEXT, DATA, USER = 0xFFFFFFFF81000000, 0xFFFF888000001000, 0x7F0000001000
STORE, LOAD = b"\x48\x89\x37", b"\x48\x8b\x0f"  # mov qword ptr [rdi], rsi; mov rcx, qword ptr [rdi]
NAMES = "rax rbx rcx rdx rsi rdi rbp r8 r9 r10 r11 r12 r13 r14 r15 eflags fs_base gs_base".split()
OTHER = StopReason("breakpoint", 5, 1, "T05")


@dataclass
class Stub(FakeTarget):
    """``kvm``: what the monitor says of it; ``refuses``: a watchpoint that cannot be set."""

    kvm: str = "kvm support: disabled"
    refuses: int = 0
    set: list[tuple[int, BreakKind, int]] = field(default_factory=list)

    def monitor(self, command: str) -> str:
        return self.kvm

    def use_memory_of(self, vcpu: int | None) -> None: ...

    def set_breakpoint(self, addr: int, kind: BreakKind = "software", size: int = 1) -> None:
        if addr == self.refuses:
            raise GuestError("no more watchpoints")
        self.set.append((addr, kind, size))

    def clear_breakpoint(self, addr: int, kind: BreakKind = "software", size: int = 1) -> None:
        self.set.remove((addr, kind, size))


def regs(*, user: bool = False, **more: int) -> Regs:
    values = {**dict.fromkeys(NAMES, 0), "rip": TEXT + 3, "rsp": 0x9000, "cs": 0x33 if user else 0x10, "cr3": 0x4000}
    return Regs({**values, **more}, b"")


def made(*ranges: tuple[int, int, str], code: bytes = STORE, **options: object) -> tuple[Stub, Watcher]:
    """``ranges``: address, size and access of each probe. The vCPUs cannot be stepped: there is no landing."""
    memory = {TEXT: bytearray(code.ljust(64, b"\xcc")), DATA: bytearray(64), USER: bytearray(64)}
    stub = Stub(memory, {1: regs(rdi=DATA, rsi=7)}, **options)  # type: ignore[arg-type]
    probe = Probe(1, ProbeName("mem", "", "", ""), "watch")
    sites = [WatchSite(n, probe, WatchedRange(a, s, w), (0,)) for n, (a, s, w) in enumerate(ranges)]  # type: ignore[arg-type]
    start = TEXT
    return stub, Watcher(stub, stub, sites, landings=(), start_of=lambda addr: start if addr >= start else None)


def hit(addr: int, kind: BreakKind = "watch_write", vcpu: int = 1) -> StopReason:
    return StopReason("watch", 5, vcpu, "T05watch", watch_addr=addr, watch_kind=kind)


def seen(watcher: Watcher, stop: StopReason) -> list[tuple[int, tuple[int, ...]]]:
    return [(found.site.number, found.args) for found in watcher.hits(stop)]


def word(value: int) -> bytes:
    return value.to_bytes(8, "little")


def test_a_store_has_its_old_and_new_value() -> None:
    stub, watcher = made((DATA, 8, "write"))
    stub.write(DATA, word(5))
    watcher.arm()
    assert stub.set == [(DATA, "watch_write", 8)]
    stub.write(DATA, word(7))
    assert seen(watcher, hit(DATA)) == [(0, (DATA, 8, 5, 7, TEXT))]
    stub.registers[1] = regs(rdi=DATA, rsi=9)
    stub.write(DATA, word(9))
    assert seen(watcher, hit(DATA)) == [(0, (DATA, 8, 7, 9, TEXT))] and watcher.unseen == watcher.undecoded == 0


def test_a_load_changes_nothing_and_only_probes_of_reads_see_it() -> None:
    stub, watcher = made((DATA, 8, "read"), (DATA, 8, "write"), code=LOAD)
    stub.write(DATA, word(5))
    watcher.arm()
    stub.registers[1] = regs(rdi=DATA, rcx=5)
    assert seen(watcher, hit(DATA, "watch_read")) == [(0, (DATA, 8, 5, 5, TEXT))]


def test_an_access_that_is_only_partly_watched_shows_that_part() -> None:
    stub, watcher = made((DATA + 4, 2, "write"))
    watcher.arm()
    stub.registers[1] = regs(rdi=DATA, rsi=0x1122334455667788)
    stub.write(DATA, word(0x1122334455667788))
    assert seen(watcher, hit(DATA + 4)) == [(0, (DATA + 4, 2, 0, 0x3344, TEXT))]


def test_what_changed_without_a_report_is_counted() -> None:
    stub, watcher = made((DATA, 16, "write"))
    watcher.arm()
    stub.write(DATA, word(7))
    stub.write(DATA + 8, word(3))  # a device did
    assert seen(watcher, hit(DATA)) == [(0, (DATA, 8, 0, 7, TEXT))] and watcher.unseen == 1
    stub.write(DATA + 8, word(4))
    assert seen(watcher, OTHER) == [] and watcher.unseen == 2
    assert seen(watcher, OTHER) == [] and watcher.unseen == 2


def test_two_stores_at_one_stop_come_in_the_order_that_memory_tells() -> None:
    stub, watcher = made((DATA, 8, "write"))
    watcher.arm()
    stub.registers[1], stub.registers[2] = regs(rdi=DATA, rsi=7), regs(rdi=DATA, rsi=8, rsp=0x9800)
    stub.write(DATA, word(7))
    watcher._unreported.query = lambda vcpu, now: (DATA, "watch_write")  # type: ignore[method-assign]
    assert seen(watcher, hit(DATA)) == [(0, (DATA, 8, 0, 8, TEXT)), (0, (DATA, 8, 8, 7, TEXT))]
    assert watcher.unseen == 0


def test_an_instruction_that_is_not_known_shows_the_whole_range() -> None:
    stub, watcher = made((DATA, 8, "write"), code=b"\xcc" * 8)
    watcher.arm()
    stub.write(DATA, word(6))
    assert seen(watcher, hit(DATA)) == [(0, (DATA, 8, 0, 6, TEXT + 3))] and watcher.undecoded == 1


def test_an_address_of_programs_is_another_place_in_each_of_them() -> None:
    stub, watcher = made((USER, 8, "write"))
    watcher.arm()
    for cr3, value, old in ((0x4000, 7, 7), (0x6000, 9, 9), (0x4000, 8, 7), (0x5000, 1, 8)):
        stub.registers[1] = regs(user=True, rdi=USER, rsi=value, cr3=cr3)
        stub.write(USER, word(value))
        # Of an address space that was not seen before nobody knows the old value. 0x5000 is 0x4000's other half.
        assert seen(watcher, hit(USER)) == [(0, (USER, 8, old, value, TEXT))]


def test_all_watchpoints_or_none() -> None:
    stub, watcher = made((DATA, 8, "write"), (DATA + 16, 8, "write"), refuses=DATA + 16)
    with pytest.raises(GuestError, match="no more"):
        watcher.arm()
    assert stub.set == [] and seen(watcher, hit(DATA)) == []


def test_watchpoints_go_and_it_is_safe_to_say_so_twice() -> None:
    stub, watcher = made((DATA, 8, "write"))
    watcher.arm()
    watcher.disarm()
    watcher.disarm()
    assert stub.set == [] and seen(watcher, hit(DATA)) == []


@pytest.mark.parametrize(
    ("ranges", "options", "error"),
    [
        ([(0xFFFF888000009000, 8, "write")], {}, GuestError),
        ([(DATA, 8, "write")] * (MAX_WATCHES + 1), {}, UnsupportedError),
        ([(DATA + 8 * n, 8, "write") for n in range(5)], {"kvm": "kvm support: enabled"}, UnsupportedError),
    ],
)
def test_what_cannot_be_watched(
    ranges: Sequence[tuple[int, int, str]], options: dict[str, str], error: type[Exception]
) -> None:
    stub, watcher = made(*ranges, **options)
    with pytest.raises(error):
        watcher.arm()
    assert stub.set == []
