"""A borrowed task's own description on its stack: what was written is read, everything else is not taken for one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from probekit.guest.borrowed import CALL_ROOM, borrowed_tasks, decode_borrowed, encode_borrowed
from probekit.guest.calls import GENERAL_REGISTERS, Allocate, CallPurpose, Free, GetModule, GuestCall, OtherCall
from probekit.target.api import Regs
from tests.support.fake_target import FakeTarget

LANDING, STACK = 0xFFFFFFFF81000200, 0xFFFFC90000100000
RSP = STACK + 0x800
REGS = {name: 0xFFFF888000000000 + number for number, name in enumerate(GENERAL_REGISTERS)}
REGS |= {"rsp": RSP + CALL_ROOM + 8, "rip": 0xFFFFFFFF81000100}
CALL = GuestCall(vcpu=1, regs=REGS, return_addr=LANDING, rsp=RSP, purpose=Allocate("exec", 8192))


def decoded(data: bytes) -> GuestCall | None:
    return decode_borrowed(data, landing=LANDING, rsp=RSP)


@pytest.mark.parametrize("purpose", [Allocate("grace", 4096), GetModule(STACK), OtherCall(), Free(STACK)])
def test_what_is_written_is_read(purpose: CallPurpose) -> None:
    call = replace(CALL, purpose=purpose)
    data = encode_borrowed(call)
    assert len(data) <= CALL_ROOM - 256, "as much stays free as before"
    assert decoded(data) == (call if not isinstance(purpose, Free) else replace(call, purpose=OtherCall()))


def test_any_damage_is_noticed() -> None:
    data = encode_borrowed(CALL)
    for at in range(len(data)):
        assert decoded(data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]) is None, at
        assert decoded(data[:at]) is None, at


@pytest.mark.parametrize(
    "regs",
    [{"rsp": RSP + CALL_ROOM - 1}, {"rsp": RSP + CALL_ROOM + 16}, {"rsp": RSP}, {"rip": 0x402000}],
)
def test_registers_that_no_borrowed_task_has_are_refused(regs: dict[str, int]) -> None:
    assert decoded(encode_borrowed(replace(CALL, regs=REGS | regs))) is None


@pytest.mark.parametrize("purpose", [Allocate("data", 0), Allocate("data", 1 << 40), GetModule(7)])
def test_an_impossible_operand_is_refused(purpose: CallPurpose) -> None:
    assert decoded(encode_borrowed(replace(CALL, purpose=purpose))) is None


def guest(code: bytes = b"\xeb\xfe", **regs: int) -> Any:
    values = dict.fromkeys(GENERAL_REGISTERS, 0) | {"rip": LANDING, "rsp": RSP, "cs": 0x10} | regs
    stack = bytearray(0x1000)
    data = encode_borrowed(CALL)
    stack[RSP - STACK : RSP - STACK + len(data)] = data
    return FakeTarget(memory={STACK: stack, LANDING: bytearray(code)}, registers={0: Regs(values, b"")})


def test_a_task_in_a_landing_is_found() -> None:
    assert borrowed_tasks(guest()) == [CALL]


@pytest.mark.parametrize(
    "other",
    [
        guest(code=b"\x90\x90"),  # it is no landing
        guest(rsp=RSP - 8),  # it has not returned yet
        guest(rsp=0x7FFF0000, rip=0x402000, cs=0x33),
    ],
    ids=["elsewhere", "inside", "user"],
)
def test_no_other_task_is_taken_for_one(other: Any) -> None:
    assert borrowed_tasks(other) == []
