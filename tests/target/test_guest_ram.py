"""Guest RAM as a file: the memory map's text, and bounds."""

from __future__ import annotations

from pathlib import Path

import pytest

from probekit.errors import MemoryAccessError, TargetError
from probekit.target.guest_ram import GuestRam, RamRange, parse_ram_ranges

MTREE = """FlatView #0
 AS "I/O", root: io
 Root memory region: io
  0000000000000000-0000000000000007 (prio 0, i/o): dma-chan

FlatView #1
 AS "cpu-smm-0", root: memory
  0000000000000000-00000000000fffff (prio 0, ram): ram0 @0000000000700000

FlatView #2
 AS "memory", root: system
 AS "cpu-memory-0", root: system
 Root memory region: system
  0000000000000000-0000000000000fff (prio 0, ram): ram0
  0000000000001000-0000000000001fff (prio 0, rom): ram0 @0000000000001000
  0000000000002000-0000000000003fff (prio 0, ram): ram0 @0000000000002000 KVM
  00000000b0000000-00000000bfffffff (prio 0, i/o): pcie-mmcfg-mmio
  00000000fffc0000-00000000ffffffff (prio 0, rom): pc.bios
  0000000100000000-0000000100001fff (prio 0, ram): ram0 @0000000000004000
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "ram"
    path.write_bytes(bytes(i // 0x1000 for i in range(0x6000)))
    return path


def test_ram_ranges_are_read_from_the_memory_map() -> None:
    ranges = parse_ram_ranges(MTREE, "ram0")
    assert ranges == (
        RamRange(0, 0x1000, 0, True),
        RamRange(0x1000, 0x1000, 0x1000, False),
        RamRange(0x2000, 0x2000, 0x2000, True),
        RamRange(0x1_0000_0000, 0x2000, 0x4000, True),
    )
    for bad in ("other", "ram"):
        with pytest.raises(TargetError):
            parse_ram_ranges(MTREE, bad)
    with pytest.raises(TargetError, match="overlaps"):
        parse_ram_ranges(MTREE.replace("0000000000002000-", "0000000000001800-"), "ram0")
    with pytest.raises(TargetError):
        parse_ram_ranges("unknown command", "ram0")


def test_guest_ram_is_read_and_written_through_the_file(file: Path) -> None:
    ram = GuestRam(file, parse_ram_ranges(MTREE, "ram0"))
    assert ram.read(0xFFE, 4) == b"\0\0\1\1"
    assert ram.read(0x1_0000_1000, 2) == b"\5\5"
    ram.write(0x2FFF, b"ab")
    assert ram.read(0x2FFF, 2) == b"ab" and file.read_bytes()[0x2FFF:0x3001] == b"ab"
    for addr, size in ((0x3FFF, 2), (0x4000, 1), (0xB0000000, 1), (0x1_0000_1FFF, 2), (-1, 1)):
        with pytest.raises(MemoryAccessError):
            ram.read(addr, size)
    for addr in (0x1000, 0xFFF, 0x3FFF):
        before = file.read_bytes()
        with pytest.raises(MemoryAccessError):
            ram.write(addr, b"xy")
        assert file.read_bytes() == before
    ram.close()
    ram.close()


def test_words_are_seen_as_they_change(file: Path) -> None:
    ram = GuestRam(file, parse_ram_ranges(MTREE, "ram0"))
    words = ram.u64(0x2000, 2)
    words[1] = 0x1122334455667788
    assert ram.read(0x2008, 8) == bytes.fromhex("8877665544332211")
    with pytest.raises(ValueError):
        ram.u64(0x2004, 1)
    for addr, count in ((0x3FF8, 2), (0x1000, 1), (0xFF8, 2)):
        with pytest.raises(MemoryAccessError):
            ram.u64(addr, count)
    words.release()
    ram.close()


def test_a_file_that_does_not_fit_is_refused(tmp_path: Path, file: Path) -> None:
    with pytest.raises(TargetError, match="less than"):
        GuestRam(file, (RamRange(0, 0x6001, 0, True),))
    with pytest.raises(TargetError, match="cannot map"):
        GuestRam(tmp_path / "none", (RamRange(0, 1, 0, True),))
