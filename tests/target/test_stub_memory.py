"""Memory through a stub: what is read and written, what is refused, and the physical mode."""

from __future__ import annotations

import pytest
from scripted_stub import Connect

from probekit.errors import MemoryAccessError
from probekit.target.rsp import RspTarget


def _read_physical(target: RspTarget, addr: int, size: int) -> bytes:
    with target.physical_memory():
        return target.read(addr, size)


def test_what_is_written_reads_back_and_unreadable_ranges_are_none(connect: Connect) -> None:
    target, stub = connect()
    data = bytes(range(256)) * 32
    target.write(0x1000, data)
    assert target.read(0x1000, len(data)) == data
    assert bytes(stub.memory[0x2000][:256]) == data[:256]
    assert target.read(0x1000, 0) == b""
    assert target.read_many([(0x1001, 3), (0x9000, 1), (0x2FFE, 4), (0x2000, 2)]) == [data[1:4], None, None, data[:2]]
    with pytest.raises(MemoryAccessError) as caught:
        target.read(0x9000, 16)
    assert (caught.value.addr, caught.value.size) == (0x9000, 16)


def test_many_writes_raise_after_all_replies_are_in(connect: Connect) -> None:
    target, stub = connect()
    edits = [(0x1000 + 3 * i, b"\x11\x22") for i in range(1000)] + [(0x9000, b"\x33"), (0x2F00, b"\x44")]
    with pytest.raises(MemoryAccessError) as caught:
        target.write_many(edits)
    assert caught.value.addr == 0x9000
    assert stub.memory[0x2000][0xF00] == 0x44
    assert target.read(0x1000, 4) == b"\x11\x22\x00\x11"


def test_only_touching_edits_share_a_packet(connect: Connect) -> None:
    target, stub = connect()
    target.write_many([(0x1000, b"\x01\x02"), (0x1002, b"\x03"), (0x1004, b"\x05"), (0x1003, b"\x04")])
    assert [p for p in stub.packets if p[:1] == b"M"] == [b"M1000,3:010203", b"M1004,1:05", b"M1003,1:04"]


def test_memory_is_seen_through_the_chosen_vcpu(connect: Connect) -> None:
    target, stub = connect()
    target.regs(2)
    target.read(0x1000, 1)
    assert stub.current == 1, "by default: the vCPU that stopped last"
    target.use_memory_of(2)
    target.read(0x1000, 1)
    assert stub.current == 2
    before = len(stub.packets)
    target.read(0x1000, 1)
    assert len(stub.packets) == before + 1, "the choice is sent once"


def test_physical_mode_is_left_again(connect: Connect) -> None:
    target, stub = connect()
    with pytest.raises(MemoryAccessError):
        _read_physical(target, 0x9000, 4)
    assert not stub.physical
    assert _read_physical(target, 0x1000, 4) == bytes(4)
    assert stub.packets.count(b"Qqemu.PhyMemMode:1") == 2
