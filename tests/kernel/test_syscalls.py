"""System calls: the functions that call them, the top of the task's stack, and their numbers."""

from __future__ import annotations

from array import array

import pytest

from probekit.isa.assemble import assemble
from probekit.kernel.btf import Btf
from probekit.kernel.kallsyms import RawSymbols
from probekit.kernel.symbols import SymbolTable
from probekit.kernel.syscalls import (
    COMPAT_CALL,
    Dispatcher,
    call_function,
    find_dispatchers,
    find_syscall_entry,
    is_compat,
    syscall_numbers,
)

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


def test_the_functions_that_call_those_of_32_bit_programs_are_found_too() -> None:
    symbols = _symbols(ia32_sys_call=BASE + 0x100, do_int80_emulation=BASE + 0x180, x32_sys_call=BASE + 0x1000)
    entry = find_syscall_entry(symbols, None)
    assert entry.compat_callers == ((BASE + 0x100, BASE + 0x180), (BASE + 0x180, BASE + 0x1000))
    assert entry.x32 and entry.callers == ((BASE + 0x1000, BASE + 0x11000),)
    assert not find_syscall_entry(_symbols(), None).x32


@pytest.mark.parametrize(
    ("name", "call", "abi"),
    [
        ("__x64_sys_read", "read", "64-bit"),
        ("__ia32_sys_read", "read", "32-bit"),
        ("__ia32_compat_sys_open", "open", "32-bit"),
        ("__ia32_compat_sys_ia32_mmap", "mmap", "32-bit"),
        ("__ia32_sys_ia32_pread64", "pread64", "32-bit"),
        ("__ia32_compat_sys_x86_stat64", "stat64", "32-bit"),
        ("__x64_compat_sys_readv", "readv", "x32"),
        ("__x32_compat_sys_readv", "readv", "x32"),
    ],
)
def test_names_of_functions(name: str, call: str, abi: str) -> None:
    assert call_function(name) == (call, abi) and is_compat(name) == (abi == "32-bit")


@pytest.mark.parametrize("name", ["vfs_read", "__do_sys_read", "__se_sys_read", "ksys_read", "x64_sys_call"])
def test_names_of_no_system_calls_function(name: str) -> None:
    assert call_function(name) is None and not is_compat(name)


def test_a_table_is_preferred_and_bounded_and_what_is_missing_is_no_dispatcher() -> None:
    symbols = _symbols(
        sys_call_table=BASE + 0x1000, x64_sys_call=BASE + 0x200, ia32_sys_call=BASE + 0x300, z=BASE + 0x380
    )
    assert find_dispatchers(symbols) == (
        ("64-bit", BASE + 0x1000, 8 * 1024, True),
        ("32-bit", BASE + 0x300, 0x80, False),
    )
    assert find_dispatchers(_symbols()) == ()


def _table(*words: int) -> bytes:
    return b"".join(word.to_bytes(8, "little") for word in words)


def test_a_functions_numbers_are_those_that_lead_to_it() -> None:
    dispatchers = (
        Dispatcher("64-bit", BASE, 0, True),
        Dispatcher("32-bit", BASE, 0, True),
        Dispatcher("x32", BASE, 0, True),
    )
    found = syscall_numbers(dispatchers, (_table(0xA, 0xB, 0xA, *[0xF] * 20), _table(0xC, 0xA), None))
    assert found.by_function == {
        0xA: (0, 2, 1 | COMPAT_CALL),
        0xB: (1,),
        0xC: (COMPAT_CALL,),
        0xF: tuple(range(3, 11)),
    }
    assert found.complete == {"64-bit", "32-bit"}, "the third could not be read"


SWITCH = """
    sub rsp, 8
    mov [rsp], rdi
    cmp esi, 5
    ja above
    cmp esi, 4
    je four
    mov eax, 1
    mov ecx, esi
    shl eax, cl
    test eax, 0x22
    jne odd
    jmp 0xffffffff81100000
four:
    add rsp, 8
    jmp 0xffffffff81200000
odd:
    call 0xffffffff81300000
    add rsp, 8
    ret
above:
    lea eax, [rsi - 0x40]
    cmp eax, 2
    jbe odd
    mov rax, -38
    ret
"""


def test_the_comparisons_of_a_switch_are_followed() -> None:
    """As the compiler writes them: a tree, a test of bits, a range; tail calls and calls."""
    nop5 = bytes.fromhex("0f1f440000")
    for pad in (nop5, b"\xf3\x0f\x1e\xfa" + nop5, bytes.fromhex("e800000000")):
        code = pad + assemble(SWITCH, BASE + len(pad))
        numbers = syscall_numbers([Dispatcher("32-bit", BASE, len(code), False)], [code])
        assert numbers.complete == {"32-bit"}
        assert [n & ~COMPAT_CALL for n in numbers.by_function[0xFFFFFFFF81100000]] == [0, 2, 3]
        assert [n & ~COMPAT_CALL for n in numbers.by_function[0xFFFFFFFF81200000]] == [4]
        assert [n & ~COMPAT_CALL for n in numbers.by_function[0xFFFFFFFF81300000]] == [1, 5, 0x40, 0x41, 0x42]


def test_a_switch_that_is_not_understood_says_nothing_of_the_functions_that_it_leads_to() -> None:
    code = assemble("cmp esi, 7; je seven; jmp qword ptr [rax + rsi * 8]; seven: jmp 0xffffffff81200000", BASE)
    numbers = syscall_numbers([Dispatcher("x32", BASE, len(code), False)], [code])
    assert numbers.by_function == {0xFFFFFFFF81200000: (7,)} and numbers.complete == frozenset()
