"""Functions that the kernel calls by itself: a tracepoint's arguments, and everything that the caller may rely on."""

from __future__ import annotations

import struct

import pytest

from probekit.guest.tracepoints import call_table
from tests.codegen.built_program import RET, Function
from tests.codegen.emulated_kernel import STACK_TOP
from tests.codegen.machine import Machine

HOOK = (Function("", "tracepoint"),)
MARKER = (Function("", "marker"),)
DATA = 0xDA7A
ALL = ("rdi", "rsi", "rdx", "rcx", "r8", "r9")


def _fire(machine: Machine, values: tuple[int, ...]) -> None:
    """Call it with these values behind what stands before them: a tracepoint's data; a marker and its format."""
    values = (DATA,) * (2 if machine.built.markers else 1) + values
    regs = dict(zip(ALL, values, strict=False))
    for place, value in enumerate(values[len(ALL) :]):
        machine.write(STACK_TOP + 8 + 8 * place, struct.pack("<Q", value))
    before = {"rbx": 1, "rbp": 2, "r12": 3, "r13": 4, "r14": 5, "r15": 6, "rax": 7, "r10": 8, "r11": 9}
    fired = machine.fire(**regs, **before)
    assert fired.fault == 0 and fired.bad == ()
    assert {name: fired.regs[name] for name in before} == before
    assert fired.regs["rsp"] == STACK_TOP + 8
    assert {name: fired.regs[name] for name in regs} == regs


@pytest.mark.parametrize("functions", [HOOK, MARKER], ids=["tracepoint", "marker"])
@pytest.mark.parametrize("index", range(10))
def test_each_argument_is_found_after_those_of_the_hook(index: int, functions: tuple[Function, ...]) -> None:
    machine = Machine(f"fbt::: {{ @ = sum(arg{index}); trace(arg{index}); }}", functions=functions)
    values = tuple(1000 + n for n in range(10))
    _fire(machine, values)
    assert machine.table(0) == {(): (values[index],)}
    (record,) = machine.drain()
    assert record.payload[:8] == struct.pack("<q", values[index])


def test_a_hook_counts_inline() -> None:
    machine = Machine("fbt::: { @ = count(); }", functions=(*HOOK, Function("", "tracepoint")))
    assert machine.inline == ((0,), (0,))
    for _ in range(3):
        _fire(machine, (1, 2, 3))
    machine.fire(1)
    assert machine.table(0) == {(): (4,)}


def test_hooks_beside_sites() -> None:
    machine = Machine("fbt::: { @[probename] = count(); }", functions=(*HOOK, Function(), Function(RET, "return")))
    for number in (0, 1, 1, 2, 2, 2):
        assert machine.fire(number).fault == 0
    assert {key[0]: value for key, value in machine.table(0).items()} == {
        "tracepoint": (1,), "entry": (2,), "return": (3,),
    }  # fmt: skip
    assert len(machine.code) <= machine.bound
    assert machine.built.table % 8 == 0 and machine.code.endswith(call_table(machine.built.tracepoint_probes))
