"""The small parts: memory, symbol table, lists, notes, page walks, sections."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from probekit.errors import MemoryAccessError, SymbolError
from probekit.kernel import sections
from probekit.kernel.base import gate_handlers, idt_bases
from probekit.kernel.kallsyms import RawSymbols
from probekit.kernel.memory import PAGE_SIZE, Memory
from probekit.kernel.modules import walk_list
from probekit.kernel.notes import build_id, release_of
from probekit.kernel.symbols import ModuleSymbols, SymbolTable
from probekit.kernel.text import clean_text
from probekit.kernel.view import KernelView, Tables, root_candidates
from probekit.target.api import Regs

from .fakes import BASE, FakeMemory, FakeTarget


def test_memory_cache_lives_in_its_scope() -> None:
    source = FakeMemory((0x1000, bytes(range(256)) * 32))
    memory = Memory(source)
    with memory.cached():
        assert memory.read(0x1FFE, 4) == b"\xfe\xff\x00\x01"
        before = source.batches
        assert memory.u32(0x1000) == 0x03020100 and memory.read_many([(0x2FFF, 2), (0x5000, 1)])[1] is None
        source.segments[0x1000][0] = 0x77
        assert memory.read(0x1000, 1) == b"\x00" and source.batches == before + 1
    assert memory.read(0x1000, 1) == b"\x77"


def test_memory_limits() -> None:
    memory = Memory(FakeMemory((0x1000, b"abc\0" + bytes(4092))))
    assert memory.cstring(0x1000) == b"abc"
    assert memory.cstring(0x1FFF, 64) == b""
    with pytest.raises(MemoryAccessError):
        memory.read(0x3000, 1)
    with pytest.raises(SymbolError, match="not a plausible size"):
        memory.read(0x1000, 1 << 40)
    assert memory.read_many([((1 << 64) - 4, 8)]) == [None]
    with memory.cached():
        assert memory.read_many([((1 << 64) - 4, 8)]) == [None]
    image = memory.image(0x1000, 0x4000)
    assert image.data[:3] == b"abc" and image.holes == {0x2000, 0x3000} and len(image.data) == 0x3000
    with pytest.raises(MemoryAccessError):
        image.read(0x3FFF, 2)


def _table(*, asked: bool = False) -> SymbolTable:
    rows = [
        (0, "A", "percpu"),
        (BASE, "T", "_text"),
        (BASE, "T", "_stext"),
        (BASE + 16, "t", "__pfx_dup"),
        (BASE + 32, "t", "dup"),
        (BASE + 64, "T", "other"),
        (BASE + 96, "t", "dup"),
        (BASE + (1 << 20), "D", "data"),
    ]
    raw = RawSymbols(array("Q", [r[0] for r in rows]), [r[2] for r in rows], "".join(r[1] for r in rows))
    module = ModuleSymbols("mod", (BASE + (9 << 20), BASE + (8 << 20)), ("dup", "init"), "td", (7, 0))
    if not asked:
        return SymbolTable(raw, (module,))
    core = SymbolTable(raw)
    assert core.addr("dup") == BASE + 32 and core.find("init") == ()  # its names are known now, and are used again
    return core.with_modules(raw, (module,))


@pytest.mark.parametrize("asked", [False, True])
def test_symbol_table(asked: bool) -> None:
    table = _table(asked=asked)
    assert [(s.addr - BASE, s.module, s.size) for s in table.find("dup")] == [
        (32, "", 32),
        (96, "", 64 << 10),
        (9 << 20, "mod", 7),
    ]
    assert [s.module for s in table.find("dup", "mod")] == ["mod"] and len(table.find("dup", "")) == 2
    assert table.addr("dup") == BASE + 32 and table.addr("nope") is None and table.find("nope") == ()
    assert table.addr("init") == BASE + (8 << 20)
    assert [s.name for s in table.at(BASE)] == ["_text", "_stext"] and table.at(BASE + 1) == ()
    found = table.lookup(BASE + 33)
    assert found is not None and found[0].name == "dup" and found[1] == 1
    assert table.lookup(BASE + (90 << 10)) is None, "padding beyond the cap is nobody's"
    assert table.lookup(BASE + (9 << 20) + 7) is None and str(table.find("dup", "mod")[0]) == "mod`dup"
    assert [s.name for s in table.text("")] == ["_text", "_stext", "dup", "other", "dup"]
    assert [[s.name for s in group] for group in table.functions("")][:2] == [["_text", "_stext"], ["dup"]]
    assert [s.name for s in table.text()][-1] == "dup" and table.modules == ("mod",)
    assert table.range("_text", "other") == (BASE, BASE + 64) and table.range("_text", "nope") is None
    assert len(table) == 10 and len(list(table)) == 10


def test_walk_list() -> None:
    def memory(*links: tuple[int, int]) -> Memory:
        return Memory(FakeMemory(*((at, struct.pack("<Q", to)) for at, to in links)))

    assert walk_list(memory((0x10, 0x20), (0x20, 0x30), (0x30, 0x10)), 0x10, 10) == [0x20, 0x30]
    for links in (((0x10, 0x20), (0x20, 0x20)), ((0x10, 0x20), (0x20, 0x30), (0x30, 0x20))):
        with pytest.raises(SymbolError, match="does not end"):
            walk_list(memory(*links), 0x10, 10)
    with pytest.raises(SymbolError, match="does not end"):
        walk_list(memory((0x10, 0x20), (0x20, 0x30), (0x30, 0x10)), 0x10, 1)
    with pytest.raises(MemoryAccessError):
        walk_list(memory((0x10, 0x99)), 0x10, 10)


def test_notes() -> None:
    other = struct.pack("<III", 6, 4, 0x100) + b"Linux\0\0\0" + bytes(4)
    gnu = struct.pack("<III", 4, 20, 3) + b"GNU\0" + bytes(range(20))
    assert build_id(other + gnu) == bytes(range(20)).hex()
    for bad in (b"", other, gnu[:-1], b"\xff" * 64, struct.pack("<III", 0, 0, 0) * 200):
        assert build_id(bad) is None
    assert clean_text(b"a\x1b\xff") == "a\\x1b\\xff"
    assert release_of("Linux version 6.1.0-x (gcc)") == "6.1.0-x" and release_of("MS-DOS") == ""


def test_gates_and_idt_text() -> None:
    assert idt_bases("GDT=  00 00\nIDT=     fffffe0000000000 00000fff\nIDT=     fffffe0000000000 00000fff") == (
        0xFFFFFE0000000000,
    )
    assert idt_bases("") == ()
    handler = 0xFFFFFFFF81A2B3C4
    gate = struct.pack("<HHBBHII", handler & 0xFFFF, 0x10, 0, 0x8E, handler >> 16 & 0xFFFF, handler >> 32, 0)
    absent = bytearray(gate)
    absent[5] &= 0x7F
    assert gate_handlers(gate + bytes(absent) + b"\x01") == (handler,)


def test_relative_sites() -> None:
    data = struct.pack("<iii", -0x100, 5, 6) + struct.pack("<iii", 0x40, 5, 6) + b"\0\0"
    assert sections.relative_sites(data, BASE, 12) == [BASE - 0x100, BASE + 12 + 0x40]


class _Physical(FakeTarget):
    """Nothing is mapped virtually; physical memory can be read."""

    physical = False

    @contextmanager
    def physical_memory(self) -> Iterator[None]:
        self.physical = True
        try:
            yield
        finally:
            self.physical = False

    def _get(self, addr: int, size: int) -> bytes | None:
        return super()._get(addr, size) if self.physical else None

    def regs(self, vcpu: int) -> Regs:
        return Regs(values={"cs": 0x33, "cr3": 0x11801, "cr4": 0, "efer": 0xD01}, raw=b"")


def _tables() -> tuple[tuple[int, bytes], ...]:
    """Kernel root at 0x10000, user root at 0x11000; two pages of BASE and one large page behind."""

    def page(**entries: int) -> bytes:
        data = bytearray(PAGE_SIZE)
        for name, value in entries.items():
            struct.pack_into("<Q", data, 8 * int(name[1:]), value)
        return bytes(data)

    return (
        (0x10000, page(e511=0x12000 | 3)),
        (0x11000, page()),
        (0x12000, page(e510=0x13000 | 3)),
        (0x13000, page(e8=0x14000 | 3, e9=0x400000 | 0x83, e10=0x14000 | 3)),
        (0x14000, page(e0=0x8000000000016000 | 3, e1=0x15000 | 3, e2=0x12345000)),
        (0x15000, b"B" * PAGE_SIZE),
        (0x16000, b"A" * PAGE_SIZE),
        (0x400000, b"L" * (2 << 20)),
    )


def test_view_walks_the_kernels_tables() -> None:
    view = KernelView(_Physical(*_tables()))
    assert view.read_many([(BASE + 0xFF8, 16), (BASE + 0x2000, 1), (BASE + (2 << 20) - 1, 1), (0x1000, 1)]) == [
        b"A" * 8 + b"B" * 8,
        None,
        None,
        None,
    ]
    assert view.read(BASE + (2 << 20), 5000) == b"L" * 5000
    assert view.translate(BASE + 0x1234) == 0x15234 and view.translate(BASE + 0x2000) is None
    with pytest.raises(MemoryAccessError):
        view.read(BASE + 0x2000, 8)


def test_view_without_physical_memory_says_unreadable() -> None:
    view = KernelView(FakeTarget())
    assert view.read_many([(BASE, 8)]) == [None] and view.translate(BASE) is None


def test_root_candidates() -> None:
    def regs(cr3: int, cr4: int = 0, efer: int = 0xD01) -> Regs:
        return Regs(values={"cr3": cr3, "cr4": cr4, "efer": efer}, raw=b"")

    assert root_candidates([regs(0x1801), regs(0x4000, cr4=1 << 12), regs(0x9000, efer=0)]) == (
        Tables(0x0, 4),
        Tables(0x1000, 4),
        Tables(0x4000, 5),
    )
