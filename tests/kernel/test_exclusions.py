"""Text that must not be probed: by symbols, and by the kernel's own blacklist, which may lie."""

from __future__ import annotations

import struct
from array import array

import pytest

from probekit.errors import SymbolError
from probekit.kernel.btf import Btf
from probekit.kernel.exclusions import Exclusion, boundary_exclusions, kprobe_blacklist
from probekit.kernel.kallsyms import RawSymbols
from probekit.kernel.memory import KernelMemory
from probekit.kernel.symbols import SymbolTable

from .fakes import BASE, BtfWriter, FakeMemory

HEAD = BASE + 0x10000
ENTRIES = (BASE + 0x20000, BASE + 0x20100)


def _symbols(*rows: tuple[int, str, str]) -> SymbolTable:
    ordered = sorted(rows, key=lambda row: row[0])
    return SymbolTable(
        RawSymbols(array("Q", [r[0] for r in ordered]), [r[2] for r in ordered], "".join(r[1] for r in ordered))
    )


def _btf() -> Btf:
    writer = BtfWriter()
    word = writer.int("long", 8)
    members = [("list", word, 0), ("start_addr", word, 128), ("end_addr", word, 192)]
    writer.struct("kprobe_blacklist_entry", 32, members)
    return Btf(writer.data())


def _memory(*ranges: tuple[int, int], last: int = HEAD) -> KernelMemory:
    links = [*ENTRIES[: len(ranges)], last]
    segments = [(HEAD, struct.pack("<Q", links[0]))]
    for at, following, (start, end) in zip(ENTRIES, links[1:], ranges, strict=False):
        segments.append((at, struct.pack("<4Q", following, 0, start, end)))
    return KernelMemory(FakeMemory(*segments))


def test_sections_and_single_functions() -> None:
    table = _symbols(
        (BASE, "T", "_text"),
        (BASE + 0x100, "T", "__noinstr_text_start"),
        (BASE + 0x140, "t", "exc_int3"),
        (BASE + 0x180, "T", "__noinstr_text_end"),
        (BASE + 0x180, "T", "vfs_read"),
        (BASE + 0x200, "T", "__switch_to"),
        (BASE + 0x240, "D", "ftrace_stub"),  # data of that name is no text
        (BASE + 0x280, "T", "__kprobes_text_start"),
        (BASE + 0x280, "T", "__kprobes_text_end"),  # empty
        (BASE + 0x300, "T", "_etext"),
    )
    assert [(found.start - BASE, found.end - BASE) for found in boundary_exclusions(table)] == [
        (0x100, 0x180),
        (0x200, 0x240),
    ]


def test_functions_on_the_kernels_blacklist_are_excluded() -> None:
    table = _symbols((HEAD, "d", "kprobe_blacklist"))
    memory = _memory((BASE + 0x400, BASE + 0x440), (BASE + 0x500, BASE + 0x500))
    reason = "the kernel forbids probes here (NOKPROBE)"
    assert kprobe_blacklist(memory, table, _btf()) == [Exclusion(BASE + 0x400, BASE + 0x440, reason)]
    assert (
        kprobe_blacklist(memory, table, None) == [] == kprobe_blacklist(memory, _symbols((BASE, "T", "_text")), _btf())
    )


def test_a_blacklist_that_does_not_end_is_refused() -> None:
    table = _symbols((HEAD, "d", "kprobe_blacklist"))
    with pytest.raises(SymbolError, match="does not end"):
        kprobe_blacklist(_memory((BASE, BASE + 1), (BASE, BASE + 1), last=ENTRIES[0]), table, _btf())
