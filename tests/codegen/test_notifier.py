"""The trap handler, run by unicorn against its own table: every site is found, everything else is handed on."""

from __future__ import annotations

import pytest
import unicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from unicorn import x86_const as x86

from probekit.codegen.notifier import NOTIFIER_SIZE, NOTIFY_STOP, TrapLayout, notifier
from probekit.guest.trap_table import ENTRY_SIZE, build_table, find_stub, table_size

CODE = 0xFFFFFFFFC0000000
TABLE = CODE + 0x1000
DATA = 0xFFFFC90000000000
ARGS, REGS, STACK = DATA, DATA + 0x100, DATA + 0x2000
DONE = DATA + 0x3000
LAYOUT = TrapLayout(int3=2, regs=8, ip=128, cs=136)
KERNEL, USER = 0x10, 0x33
_SAVED = (x86.UC_X86_REG_RBX, x86.UC_X86_REG_RBP, x86.UC_X86_REG_R12, x86.UC_X86_REG_R13, x86.UC_X86_REG_RSP)


class Handler:
    """The notifier with the table of ``stubs``."""

    def __init__(self, stubs: dict[int, int]) -> None:
        self.table = build_table(stubs)
        table = self.table
        code = notifier(LAYOUT, table=TABLE, capacity=table.capacity, shift=table.shift, limit=table.limit, addr=CODE)
        self.uc = uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
        uc.ctl_set_tlb_mode(unicorn.UC_TLB_VIRTUAL)
        size = -(-(0x1000 + len(table.data)) // 0x1000) * 0x1000
        uc.mem_map(CODE, size)
        uc.mem_map(DATA, 0x4000)
        uc.mem_write(CODE, code)
        uc.mem_write(TABLE, table.data)
        uc.mem_write(DONE, b"\xf4")
        self.writes: list[tuple[int, int]] = []
        uc.hook_add(unicorn.UC_HOOK_MEM_WRITE, lambda _u, _a, addr, size, _v, _d: self.writes.append((addr, size)))

    def trap(self, ip: int, *, event: int = 2, cs: int = KERNEL, regs: int = REGS) -> tuple[int, int]:
        """What it returns, and where the trap goes on. ``ip``: behind the int3."""
        uc = self.uc
        uc.mem_write(ARGS, b"\xaa" * 8 + regs.to_bytes(8, "little"))
        uc.mem_write(REGS, bytes(range(168)))
        uc.mem_write(REGS + LAYOUT.ip, (ip & (1 << 64) - 1).to_bytes(8, "little"))
        uc.mem_write(REGS + LAYOUT.cs, cs.to_bytes(8, "little"))
        uc.mem_write(STACK, DONE.to_bytes(8, "little"))
        for number in _SAVED:
            uc.reg_write(number, 0x1234)
        for register, value in ((x86.UC_X86_REG_RSI, event), (x86.UC_X86_REG_RDX, ARGS), (x86.UC_X86_REG_RSP, STACK)):
            uc.reg_write(register, value)
        self.writes.clear()
        uc.emu_start(CODE, DONE, count=2000)
        assert uc.reg_read(x86.UC_X86_REG_RIP) == DONE
        assert [uc.reg_read(number) for number in _SAVED] == [0x1234] * 4 + [STACK + 8]
        after = bytes(uc.mem_read(REGS, 168))
        assert after[: LAYOUT.ip] + after[LAYOUT.ip + 16 :] == bytes(range(168))[: LAYOUT.ip] + bytes(range(144, 168))
        return uc.reg_read(x86.UC_X86_REG_EAX), int.from_bytes(after[LAYOUT.ip : LAYOUT.ip + 8], "little")


def test_a_site_goes_to_its_stub_and_all_else_is_untouched() -> None:
    site, stub = 0xFFFFFFFF81000123, CODE + 0x500
    handler = Handler({site: stub})
    assert handler.trap(site + 1) == (NOTIFY_STOP, stub)
    assert [addr & (1 << 64) - 1 for addr, _ in handler.writes] == [REGS + LAYOUT.ip]
    for ip in (site, site + 2, 0, 1, 1 << 63):
        assert handler.trap(ip) == (0, ip)
        assert handler.writes == []
    assert handler.trap(site + 1, event=3) == (0, site + 1)  # DIE_DEBUG
    assert handler.trap(site + 1, event=2 | 1 << 32) == (0, site + 1)
    assert handler.trap(site + 1, cs=USER) == (0, site + 1)
    assert handler.trap(site + 1, regs=0) == (0, site + 1) and handler.writes == []


@settings(max_examples=60)
@given(st.sets(st.integers(1, (1 << 64) - 2), min_size=1, max_size=300), st.integers(0, 1 << 32))
def test_every_site_of_any_table(sites: set[int], salt: int) -> None:
    stubs = {site: CODE + 0x100000 + 16 * n for n, site in enumerate(sorted(sites))}
    handler = Handler(stubs)
    for site, stub in list(stubs.items())[:40]:
        assert handler.trap(site + 1) == (NOTIFY_STOP, stub) and find_stub(handler.table, site) == stub
    for other in {site ^ salt for site in list(sites)[:20]} - sites - {0}:
        assert handler.trap(other + 1 & (1 << 64) - 1) == (0, other + 1 & (1 << 64) - 1)
        assert find_stub(handler.table, other) == 0


def test_neighbours_of_a_whole_kernel() -> None:
    """As many sites as a kernel has instructions: searches stay short, and the size is as announced."""
    stubs = {0xFFFFFFFF81000000 + 3 * n: CODE + 32 * n for n in range(100_000)}
    table = build_table(stubs)
    assert table.limit <= 12 and len(table.data) == table_size(len(stubs)) == table.capacity * ENTRY_SIZE
    assert all(find_stub(table, site) == stub for site, stub in list(stubs.items())[::997])


def test_it_fits_whatever_the_numbers_are() -> None:
    layout = TrapLayout(int3=0x7FFFFFFF, regs=0x1000, ip=0x1000, cs=0x1000)
    where = {"table": 1 << 62, "capacity": 1 << 24, "shift": 40, "limit": 1 << 24}
    assert len(notifier(layout, addr=CODE, **where)) <= NOTIFIER_SIZE


@pytest.mark.parametrize("stubs", [{0: 5}, {5: 0}])
def test_address_zero_is_no_site(stubs: dict[int, int]) -> None:
    with pytest.raises(ValueError, match="free slot"):
        build_table(stubs)


def test_nothing_takes_no_room() -> None:
    assert table_size(0) == 0
