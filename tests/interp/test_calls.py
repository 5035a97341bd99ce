"""The subroutines of D on the host: their values, and what makes a clause fault."""

from __future__ import annotations

import struct

import pytest

from probekit.buffers.layout import FaultKind
from probekit.interp.calls import CallEnvironment, OperationFault, call_subroutine
from probekit.interp.memory import BadAddress
from probekit.interp.state import ProgramState, Value
from probekit.ir.ops import Program


def _callee(callers: tuple[int, ...] = ()) -> CallEnvironment:
    return CallEnvironment(
        ProgramState(Program((), (), ())),
        lambda pid: pid == 7,
        lambda: 3,
        lambda frames: struct.pack(f"<{len(callers[:frames])}Q", *callers[:frames]),
    )


@pytest.mark.parametrize(
    ("name", "args", "value"),
    [
        ("strlen", [b"abc"], 3),
        ("strjoin", [b"ab", b"cd"], b"abcd"),
        ("charat", [b"ab", 1], ord("b")),
        ("charat", [b"\xff", 0], -1),
        ("charat", [b"ab", 5], 0),
        ("setchar", [b"abc", 1, ord("x")], b"axc"),
        ("setchar", [b"abc", 1, 0x178], b"axc"),
        ("setchar", [b"abc", 1, 0], b"a"),
        ("setchar", [b"abc", 3, ord("d")], b"abcd"),
        ("setchar", [b"abc", 4, ord("d")], b"abc"),
        ("strchr", [b"hello", ord("l")], b"llo"),
        ("strrchr", [b"hello", ord("l")], b"lo"),
        ("strchr", [b"hello", 0], b""),
        ("strstr", [b"hello", b"ll"], b"llo"),
        ("toupper", [b"aB1\xe4"], b"AB1\xe4"),
        ("htons", [0x1234], 0x3412),
        ("ntohl", [0x12345678], 0x78563412),
        ("htonll", [1], 1 << 56),
        ("htonll", [0x80], -(1 << 63)),
        ("getmajor", [(8 << 20) | 1], 8),
        ("getminor", [(8 << 20) | 1], 1),
        ("progenyof", [7], 1),
        ("progenyof", [8], 0),
        ("speculation", [], 3),
    ],
)
def test_a_subroutine_has_the_value_that_d_gives_it(name: str, args: list[Value], value: Value) -> None:
    assert call_subroutine(name, args, _callee()) == value


def test_a_string_is_cut_to_the_size_that_strings_have() -> None:
    callee = _callee()
    size = callee.state.program.string_size
    assert call_subroutine("strjoin", [b"a" * size, b"b"], callee) == b"a" * (size - 1)


def test_the_addresses_of_callers_are_not_cut_at_a_zero_byte() -> None:
    assert call_subroutine("stack", [2], _callee((0x100, 0x200, 0x300))) == struct.pack("<2Q", 0x100, 0x200)


def test_strtok_goes_on_where_it_stopped() -> None:
    callee = _callee()
    assert call_subroutine("strtok", [b"a b", b" "], callee) == b"a"
    assert call_subroutine("strtok", [b" "], callee) == b"b"
    assert call_subroutine("strtok", [b" "], callee) == b""


def test_bcopy_copies_into_scratch_memory_only() -> None:
    callee = _callee()
    memory = callee.state.memory
    source, target = memory.allocate_object(8), memory.allocate_scratch(8)
    memory.write(source, b"abcdefgh")
    call_subroutine("bcopy", [source, target, 8], callee)
    assert memory.read(target, 8) == b"abcdefgh"
    with pytest.raises(OperationFault) as caught:
        call_subroutine("bcopy", [target, source, 8], callee)
    assert (caught.value.kind, caught.value.value) == (FaultKind.BADADDR, source)


@pytest.mark.parametrize(
    ("name", "args", "kind"),
    [
        ("bcopy", [8, 8, -1], FaultKind.BADADDR),
        ("charat", [b"ab", -1], FaultKind.BADADDR),
        ("setchar", [b"ab", -1, 1], FaultKind.BADADDR),
        ("setchar", [b"ab", 256, 1], FaultKind.BADADDR),
        ("lltostr", [1, 1], FaultKind.ILLOP),
        ("strtoll", [b"1", 37], FaultKind.ILLOP),
        ("inet_ntop", [99, 0], FaultKind.ILLOP),
        ("link_ntop", [99, 0], FaultKind.ILLOP),
        ("copyin", [0x1000, 8], FaultKind.BADADDR),
        ("copyinstr", [0x1000], FaultKind.BADADDR),
    ],
)
def test_what_a_subroutine_cannot_do_aborts_the_clause(name: str, args: list[Value], kind: FaultKind) -> None:
    with pytest.raises(OperationFault) as caught:
        call_subroutine(name, args, _callee())
    assert caught.value.kind is kind


def test_copyout_faults_at_the_address_of_the_process() -> None:
    with pytest.raises(OperationFault) as caught:
        call_subroutine("copyout", [0x1000, 0x2000, 8], _callee())
    assert caught.value.value == 0x2000


def test_network_addresses_are_read_from_memory() -> None:
    callee = _callee()
    addr = callee.state.memory.allocate_scratch(24)
    callee.state.memory.write(addr, bytes((127, 0, 0, 1)))
    assert call_subroutine("inet_ntoa", [addr], callee) == b"127.0.0.1"
    assert call_subroutine("inet_ntop", [2, addr], callee) == b"127.0.0.1"
    assert call_subroutine("link_ntop", [1, addr], callee) == b"7f:00:00:01:00:00"
    callee.state.memory.write(addr, bytes(15) + b"\x01")
    assert call_subroutine("inet_ntoa6", [addr], callee) == b"::1"
    with pytest.raises(BadAddress):
        call_subroutine("inet_ntoa", [0], callee)
