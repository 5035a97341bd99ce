"""Per-CPU offsets, CPU masks and ``current``, from a guest that may lie about them."""

from __future__ import annotations

import struct
from array import array

import pytest

from probekit.errors import SymbolError
from probekit.kernel.btf import Btf
from probekit.kernel.kallsyms import RawSymbols
from probekit.kernel.memory import KernelMemory
from probekit.kernel.percpu import CpuLayout, CurrentAccess, cpu_layout, current_access
from probekit.kernel.symbols import SymbolTable

from .fakes import BASE, BtfWriter, FakeMemory

COUNT, OFFSETS, POSSIBLE, ONLINE = BASE, BASE + 0x100, BASE + 0x200, BASE + 0x300


def _symbols(**addrs: int) -> SymbolTable:
    rows = sorted((addr, name) for name, addr in addrs.items())
    return SymbolTable(RawSymbols(array("Q", [addr for addr, _ in rows]), [name for _, name in rows], "D" * len(rows)))


SYMBOLS = _symbols(nr_cpu_ids=COUNT, __per_cpu_offset=OFFSETS, __cpu_possible_mask=POSSIBLE, __cpu_online_mask=ONLINE)


def _memory(count: int, possible: int, online: int) -> KernelMemory:
    offsets = struct.pack("<4Q", *(0xFFFF888000000000 + (cpu << 20) for cpu in range(4)))
    return KernelMemory(
        FakeMemory(
            (COUNT, struct.pack("<I", count)),
            (OFFSETS, offsets),
            (POSSIBLE, struct.pack("<Q", possible)),
            (ONLINE, struct.pack("<Q", online)),
        )
    )


def test_offsets_and_masks_up_to_the_number_of_cpus() -> None:
    found = cpu_layout(_memory(3, 0b1111, 0b101), SYMBOLS)
    assert found == CpuLayout((0xFFFF888000000000, 0xFFFF888000100000, 0xFFFF888000200000), (0, 1, 2), (0, 2))


@pytest.mark.parametrize(("count", "possible"), [(0, 1), (8193, 1), (0xFFFFFFFF, 1), (4, 0)])
def test_numbers_that_no_machine_has_are_refused(count: int, possible: int) -> None:
    with pytest.raises(SymbolError, match="the guest claims"):
        cpu_layout(_memory(count, possible, 1), SYMBOLS)


def test_a_kernel_without_the_symbols() -> None:
    with pytest.raises(SymbolError, match="no symbol nr_cpu_ids"):
        cpu_layout(_memory(1, 1, 1), _symbols(_text=BASE))


def test_current_in_pcpu_hot_and_in_variables_of_its_own() -> None:
    writer = BtfWriter()
    pointer = writer.ptr(0)
    writer.struct("pcpu_hot", 64, [("current_task", pointer, 0), ("cpu_number", writer.int("int", 4), 96)])
    btf = Btf(writer.data())
    assert current_access(_symbols(pcpu_hot=0x1F000), btf) == CurrentAccess(0x1F000, 0x1F00C)
    apart = _symbols(current_task=0x1FBC0, cpu_number=0x1FB80)
    assert current_access(apart, btf) == CurrentAccess(0x1FBC0, 0x1FB80)
    with pytest.raises(SymbolError, match="current_task"):
        current_access(_symbols(pcpu_hot=0x1F000), None)
