"""The kernel's stack by the kernel's own unwinder."""

from __future__ import annotations

import struct

from tests.codegen.built_program import NOP5, RET, Function, function_addr
from tests.codegen.emulated_kernel import (
    DONE,
)
from tests.codegen.machine import Machine

FUNCTIONS = (Function(), Function(NOP5 + RET, "return"))


def test_the_stack_starts_where_the_site_is() -> None:
    """The machine's unwinder gives the return address, the registers' own address and rbp, as long as there is room."""
    guest = Machine(
        "fbt::: { stack(5); stack(1); trace(stackdepth); trace(caller); @[stack(2)] = count(); }", FUNCTIONS
    )
    for number, site in enumerate((function_addr(0), function_addr(1) + 5)):
        guest.fire(number, rbp=0x1234)
        (record,) = guest.drain()
        words = struct.unpack_from("<6Q", record.payload)
        assert words == (DONE, site, 0x1234, 0, 0, DONE)
        assert struct.unpack_from("<I", record.payload, 48)[0] == 3
        assert struct.unpack_from("<Q", record.payload, 56)[0] == DONE
    keys = {struct.pack("<2Q", DONE, site) for site in (function_addr(0), function_addr(1) + 5)}
    assert {key[0] for key in guest.table(0)} == keys


def test_stack_keys_of_many_frames() -> None:
    guest = Machine("fbt::: { @[stack(100), arg0] = count(); }", aggsize=1 << 14)
    for n in (1, 2, 1):
        guest.fire(rdi=n)
    assert sorted((key[1], words[0]) for key, words in guest.table(0).items()) == [(1, 2), (2, 1)]
