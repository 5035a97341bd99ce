"""Looking at kernel memory: what is not plain mapped kernel memory is not there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest

from probekit.guest.memory import PauseClock
from probekit.guest.safe_loads import MOST_BYTES, SafeLoads
from probekit.interp.memory import BadAddress, PrivateMemory
from probekit.target.guest_ram import parse_ram_spans

KERNEL = 0xFFFF_8880_0000_0000
DEVICE = 0xFFFF_C900_0000_0000


class _Target:
    """Runs until it is stopped; counts how often that was."""

    def __init__(self) -> None:
        self.running = True
        self.stops = 0

    def stop(self) -> None:
        self.running, self.stops = False, self.stops + 1

    def resume(self) -> None:
        self.running = True


class _View:
    """Two mapped pages: memory, and a device's registers."""

    def __init__(self, target: _Target) -> None:
        self.target = target
        self.read: list[int] = []

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]:
        assert not self.target.running
        self.read += [addr for addr, _ in ranges]
        return [self._one(addr, size) for addr, size in ranges]

    def _one(self, addr: int, size: int) -> bytes | None:
        page = addr & -4096
        inside = (addr + size - 1) & -4096 == page
        return bytes([addr & 0xFF] * size) if inside and page in (KERNEL, DEVICE) else None

    def translate_many(self, addrs: Iterable[int]) -> dict[int, int | None]:
        known = {KERNEL: 0x1000, DEVICE: 0xFED00000}
        return {addr: known.get(addr & -4096) for addr in addrs}


def _safe_loads(levels: int = 4, spans: Sequence[tuple[int, int]] | None = ((0, 1 << 20),)) -> tuple[SafeLoads, _View]:
    target = _Target()
    view = _View(target)
    return SafeLoads(view, PauseClock(target), lambda: spans, levels), view  # type: ignore[arg-type]


def test_memory_is_read_in_a_short_stop() -> None:
    loads, view = _safe_loads()
    assert loads.read(KERNEL + 1, 4) == b"\1\1\1\1"
    assert view.target.running and view.target.stops == 1


@pytest.mark.parametrize(
    ("addr", "size"),
    [
        (0, 8),
        (0x7FFF_FFFF_F000, 8),
        (0xFF11_0000_0000_0000, 8),
        ((1 << 64) - 4, 8),
        (KERNEL, 0),
        (KERNEL, -1),
        (KERNEL, MOST_BYTES + 1),
    ],
)
def test_what_is_no_kernel_address_is_not_asked_for(addr: int, size: int) -> None:
    loads, view = _safe_loads()
    assert loads.read(addr, size) is None
    assert view.read == [] and view.target.stops == 0


def test_five_levels_have_more_addresses() -> None:
    loads, view = _safe_loads(levels=5)
    assert loads.read(0xFF11_0000_0000_0000, 8) is None and view.read == [0xFF11_0000_0000_0000]


def test_devices_are_left_alone() -> None:
    loads, view = _safe_loads()
    assert loads.read(DEVICE, 4) is None and view.read == []
    free, view = _safe_loads(spans=None)
    assert free.read(DEVICE, 4) is not None, "where nobody tells what is RAM, the stub decides"


def test_ram_by_the_monitors_map() -> None:
    text = """FlatView #0
 AS "I/O", root: io
  0000000000000000-0000000000000007 (prio 0, ram): no
FlatView #1
 AS "memory", root: system
  0000000000000000-000000000009ffff (prio 0, ram): ram0
  00000000000a0000-00000000000bffff (prio 1, i/o): vga-lowmem
  00000000000c0000-00000000000fffff (prio 0, rom): ram0 @00000000000c0000
  00000000fed00000-00000000fed003ff (prio 0, i/o): hpet
"""
    assert parse_ram_spans(text) == ((0, 0xA0000), (0xC0000, 0x100000))


def test_clauses_see_their_own_memory_first_and_write_nothing_else() -> None:
    memory = PrivateMemory(read_guest=lambda addr, size: b"guest"[:size].ljust(size, b"\0") if addr == KERNEL else None)
    own = memory.allocate_scratch(8)
    memory.write(own, b"own")
    assert memory.read(own, 3) == b"own" and memory.read(KERNEL, 5) == b"guest"
    assert memory.read_string(KERNEL, 100) == b"guest"
    for addr in (0, KERNEL + 1):
        with pytest.raises(BadAddress):
            memory.read(addr, 1)
    with pytest.raises(BadAddress):
        memory.write(KERNEL, b"x")


def test_a_string_ends_before_the_page_that_is_not_there() -> None:
    asked: list[tuple[int, int]] = []

    def outside(addr: int, size: int) -> bytes | None:
        asked.append((addr, size))
        return (b"x" * (size - 1) + b"\0") if addr < KERNEL + 4096 else None

    memory = PrivateMemory(read_guest=outside)
    assert memory.read_string(KERNEL + 4090, 255) == b"xxxxx"
    assert asked == [(KERNEL + 4090, 6)]

    memory.read_guest = lambda addr, size: b"x" * size if addr < KERNEL + 4096 else None
    with pytest.raises(BadAddress) as caught:
        memory.read_string(KERNEL + 4090, 255)
    assert caught.value.addr == KERNEL + 4096
    assert memory.read_string(KERNEL + 4090, 6) == b"xxxxxx"
