"""Arguments with types: which argN holds each of them."""

from __future__ import annotations

from probekit.lang.arguments import argument_places
from probekit.lang.types import (
    INT,
    PointerType,
    StructType,
)


def test_an_argument_is_in_a_register_or_on_the_stack_as_the_abi_says() -> None:
    p, big = PointerType(INT), StructType("struct", "b", size=24)
    pair, one = StructType("struct", "p", size=16), StructType("struct", "o", size=4)
    assert argument_places([p] * 12) == (*range(10), None, None)
    assert argument_places([pair, p]) == (None, 2)
    assert argument_places([one, p, big, p]) == (None, 1, None, 2)
    assert argument_places([p] * 11, 5) == (*range(10), None) and argument_places([big, p], 5) == (None, 0)
    # No register is left for both halves: all of it goes to the stack, and what follows may still use the register.
    assert argument_places([p, p, p, p, p, pair, p, p]) == (0, 1, 2, 3, 4, None, 5, 8)
