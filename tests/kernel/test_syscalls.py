"""System calls: the functions that call them, the top of the task's stack, and their numbers."""

from __future__ import annotations

from array import array

import pytest

from probekit.kernel.btf import Btf
from probekit.kernel.kallsyms import RawSymbols
from probekit.kernel.symbols import SymbolTable
from probekit.kernel.syscalls import find_syscall_entry, syscall_numbers

from .fakes import BASE, BtfWriter


def _symbols(**names: int) -> SymbolTable:
    rows = sorted((addr, name) for name, addr in {"_text": BASE, **names, "_end": BASE + 0x100000}.items())
    addrs = array("Q", [addr for addr, _ in rows])
    return SymbolTable(RawSymbols(addrs, [name for _, name in rows], "T" * len(rows), "unsigned"))


def _pcpu_hot(member: str) -> Btf:
    writer = BtfWriter()
    word = writer.int("long", 8)
    writer.struct("pcpu_hot", 64, [("current_task", word, 0), (member, word, 128)])
    return Btf(writer.data())


def test_both_functions_that_call_system_calls_are_found_with_their_ends() -> None:
    symbols = _symbols(do_syscall_64=BASE + 0x100, after=BASE + 0x180, x64_sys_call=BASE + 0x200, last=BASE + 0x1000)
    assert find_syscall_entry(symbols, None).callers == ((BASE + 0x100, BASE + 0x180), (BASE + 0x200, BASE + 0x1000))


def test_the_stacks_top_is_a_variable_or_in_pcpu_hot() -> None:
    assert find_syscall_entry(_symbols(cpu_current_top_of_stack=0x1FB00), None).stack_top == 0x1FB00
    hot = _symbols(pcpu_hot=0x1F000)
    assert find_syscall_entry(hot, _pcpu_hot("top_of_stack")).stack_top == 0x1F010


@pytest.mark.parametrize(
    "btf", [None, _pcpu_hot("something_else"), Btf(BtfWriter().data())], ids=["none", "other", "empty"]
)
def test_without_its_type_the_stacks_top_is_not_known(btf: Btf | None) -> None:
    assert find_syscall_entry(_symbols(pcpu_hot=0x1F000), btf).stack_top is None
    assert find_syscall_entry(_symbols(), btf).callers == ()


def test_a_function_of_several_numbers_has_the_first() -> None:
    symbols = _symbols(sys_call_table=BASE + 0x1000, after=BASE + 0x1020)
    words = [0xA, 0xB, 0xA, 0xC]
    asked: list[tuple[int, int]] = []

    def read(addr: int, size: int) -> bytes:
        asked.append((addr, size))
        return b"".join(word.to_bytes(8, "little") for word in words)

    assert syscall_numbers(symbols, read) == {0xA: 0, 0xB: 1, 0xC: 3}
    assert asked == [(BASE + 0x1000, 32)], "up to the next symbol"


def test_a_table_without_end_is_bounded_and_one_that_is_missing_is_empty() -> None:
    sizes: list[int] = []

    def read(_addr: int, size: int) -> bytes:
        sizes.append(size)
        return bytes(size)

    syscall_numbers(_symbols(sys_call_table=BASE + 0x1000), read)
    assert sizes == [8 * 1024]
    assert syscall_numbers(_symbols(), read) == {}
