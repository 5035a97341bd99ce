"""Every process's top-level table is compared with the kernel's own, and the guest stands still only for that."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import pytest

from probekit.errors import GuestError, SymbolError
from probekit.guest.memory import PauseClock
from probekit.guest.process_page_tables import ProcessPageTables, Unshared
from probekit.kernel.btf import Btf
from probekit.kernel.memory import KernelMemory
from probekit.kernel.page_tables import Leaf, PageTableRoot
from probekit.kernel.tasks import read_tasks, task_addresses
from tests.kernel.fakes import BtfWriter

BASE = 0xFFFF888000000000
OWN = BASE + 0x100000  # init_top_pgt
PAGES = (0xFFFFC90000010000, 0xFFFFFFFFC0200000)  # entries 402 and 511
TASKS, LINK, MM, ACTIVE, SIGNAL, PID, COMM, STATE, STACK, SP = 0, 16, 24, 32, 40, 48, 56, 72, 80, 88
HEAD, PGD = 8, 16  # in signal_struct, mm_struct


def _btf() -> Btf:
    w = BtfWriter()
    word, char = w.int("long", 8), w.int("char", 1, char=True)
    pointer, comm = w.ptr(word), w.array(char, 16)
    links = w.struct("list_head", 16, [("next", pointer, 0), ("prev", pointer, 64)])
    thread = w.struct("thread_struct", 8, [("sp", word, 0)])
    members = [
        ("tasks", links, TASKS), ("thread_node", word, LINK), ("mm", pointer, MM), ("active_mm", pointer, ACTIVE),
        ("signal", pointer, SIGNAL), ("pid", word, PID), ("tgid", word, PID), ("comm", comm, COMM),
        ("__state", word, STATE), ("stack", pointer, STACK), ("thread", thread, SP),
    ]  # fmt: skip
    w.struct("task_struct", 128, [(name, kind, 8 * at) for name, kind, at in members])
    w.struct("signal_struct", 32, [("thread_head", links, 8 * HEAD)])
    w.struct("mm_struct", 32, [("pgd", pointer, 8 * PGD)])
    return Btf(w.data())


class _Guest:
    """Direct-mapped memory with tasks in it. ``running``: may only be read as RAM; ``stops``: how often it stood."""

    def __init__(self) -> None:
        self.data = bytearray(2 << 20)
        self.running = True
        self.stops = 0
        self.tasks: list[int] = []
        self.tops = 0
        self.put(OWN, 402, 511)

    def put(self, top: int, *indices: int) -> None:
        """A top-level table with such entries, accessed or not."""
        for index in indices:
            self.word(top + 8 * index, 0x1000 * index | 7 | (0x20 if index % 2 else 0))

    def word(self, addr: int, value: int) -> None:
        struct.pack_into("<Q", self.data, addr - BASE, value)

    def task(self, comm: str, *, mm: int = 0, active: int = 0) -> int:
        addr = BASE + 0x1000 * (len(self.tasks) + 1)
        signal = addr + 0x400
        for offset, value in ((MM, mm), (ACTIVE, active), (SIGNAL, signal), (PID, len(self.tasks))):
            self.word(addr + offset, value)
        self.data[addr + COMM - BASE : addr + COMM + 16 - BASE] = comm.encode().ljust(16, b"\0")
        self.tasks.append(addr)
        self.ring(signal + HEAD, [addr + LINK])
        self.ring(self.tasks[0] + TASKS, [task + TASKS for task in self.tasks[1:]])
        return addr

    def ring(self, head: int, nodes: Sequence[int]) -> None:
        for at, following in zip((head, *nodes), (*nodes, head), strict=True):
            self.word(at, following)
        self.word(head + 8, nodes[-1] if nodes else head)

    def mm(self, *indices: int) -> int:
        """A process's memory, whose tables have these entries."""
        self.tops += 1
        addr, top = BASE + 0x80000 + 0x100 * self.tops, OWN + 0x1000 * self.tops
        self.word(addr + PGD, top)
        self.put(top, *indices)
        return addr

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]:
        ends = [(addr - BASE, addr - BASE + size) for addr, size in ranges]
        return [bytes(self.data[a:b]) if 0 <= a < b <= len(self.data) else None for a, b in ends]

    def read(self, addr: int, size: int) -> bytes:
        (data,) = self.read_many([(addr, size)])
        assert data is not None
        return data

    def stop(self) -> None:
        self.running, self.stops = False, self.stops + 1

    def resume(self) -> None:
        self.running = True

    def page_table_root(self) -> PageTableRoot:
        assert not self.running
        return PageTableRoot(0x1000, 4)

    def walk_many(self, pages: Sequence[int]) -> dict[int, Leaf | None]:
        return dict.fromkeys(pages, Leaf(0, 0))


class _Stub:
    """Its memory by way of the stub."""

    def __init__(self, guest: _Guest) -> None:
        self._guest = guest

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]:
        assert not self._guest.running
        return self._guest.read_many(ranges)

    def read(self, addr: int, size: int) -> bytes:
        raise NotImplementedError

    def page_table_root(self) -> PageTableRoot:
        return self._guest.page_table_root()

    def walk_many(self, pages: Sequence[int]) -> dict[int, Leaf | None]:
        assert not self._guest.running
        return self._guest.walk_many(pages)


@pytest.fixture
def guest() -> _Guest:
    guest = _Guest()
    guest.task("swapper/0")
    return guest


def spaces(guest: _Guest, *, ram: bool = True) -> ProcessPageTables:
    machine: Any = guest
    stub: Any = _Stub(guest)
    btf = _btf()
    return ProcessPageTables(
        stub,
        KernelMemory(stub),
        PauseClock(machine),
        ram=machine if ram else None,
        tasks=lambda memory: task_addresses(memory, btf, guest.tasks[0]),
        btf=btf,
        top=OWN,
    )


def test_all_alike(guest: _Guest) -> None:
    for name in ("a", "b"):
        guest.task(name, mm=guest.mm(402, 511))
    assert spaces(guest).unshared(PAGES) == []


def test_a_process_that_lacks_an_entry_is_named(guest: _Guest) -> None:
    guest.task("a", mm=guest.mm(402, 511))
    guest.task("short", mm=guest.mm(511))
    assert spaces(guest).unshared(PAGES) == [Unshared(PAGES[0], "short", 2)]


def test_so_is_what_only_a_kernel_thread_uses_still(guest: _Guest) -> None:
    guest.task("kworker", active=guest.mm(402))
    assert spaces(guest).unshared(PAGES) == [Unshared(PAGES[1], "kworker", 1)]


def test_and_what_only_a_thread_has_whose_leader_is_gone(guest: _Guest) -> None:
    """The leader has exited and has no memory any more; the other thread is on no list but its group's."""
    leader = guest.task("gone")
    thread = guest.task("left", mm=guest.mm(402))
    guest.tasks.pop()
    guest.ring(guest.tasks[0] + TASKS, [leader + TASKS])
    guest.ring(leader + 0x400 + HEAD, [leader + LINK, thread + LINK])
    memory = KernelMemory(guest)
    found = task_addresses(memory, _btf(), guest.tasks[0])
    assert [task.comm for task in read_tasks(memory, _btf(), found)] == ["swapper/0", "gone", "left"]
    assert spaces(guest).unshared(PAGES) == [Unshared(PAGES[1], "left", 2)]


@pytest.mark.parametrize(("ram", "stops"), [(True, 1), (False, 2)])
def test_the_guest_stands_still_only_for_what_changes(guest: _Guest, ram: bool, stops: int) -> None:
    guest.task("a", mm=guest.mm(402, 511))
    found = spaces(guest, ram=ram)
    assert found.leaves(PAGES) == dict.fromkeys(PAGES, Leaf(0, 0))
    assert guest.stops == (0 if ram else 1)
    assert found.unshared(PAGES) == []
    assert guest.running and guest.stops == stops


def test_a_list_in_flux_is_looked_at_again_when_it_stands_still(guest: _Guest) -> None:
    task = guest.task("a", mm=guest.mm(402))
    guest.word(task + TASKS, BASE - 0x1000)  # leads nowhere

    class _Still(_Guest):
        def stop(self) -> None:
            super().stop()
            self.word(task + TASKS, self.tasks[0] + TASKS)

    guest.__class__ = _Still
    assert spaces(guest).unshared(PAGES) == [Unshared(PAGES[1], "a", 1)]
    assert guest.stops == 1


def test_a_list_that_leads_nowhere_or_round_and_round_is_an_error(guest: _Guest) -> None:
    task = guest.task("a", mm=guest.mm(402, 511))
    guest.word(task + TASKS, task + TASKS)
    with pytest.raises(SymbolError, match="does not end"):
        spaces(guest).unshared(PAGES)
    guest.ring(guest.tasks[0] + TASKS, [task + TASKS])
    guest.word(task + SIGNAL, BASE - 0x1000)
    with pytest.raises(SymbolError, match="unreadable memory"):
        spaces(guest).unshared(PAGES)
    assert guest.running


def test_tables_that_cannot_be_read_are_an_error(guest: _Guest) -> None:
    mm = guest.mm(402, 511)
    guest.word(mm + PGD, BASE - 0x1000)
    guest.task("a", mm=mm)
    with pytest.raises(GuestError, match="cannot be read"):
        spaces(guest).unshared(PAGES)
