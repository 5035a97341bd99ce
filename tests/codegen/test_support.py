"""What the code generator lacks has a name, and a clause that asks for it is refused by that name."""

from __future__ import annotations

from typing import get_args

import pytest

from probekit.codegen.support import _NAMES, GUEST_OPS, missing
from probekit.ir import ops
from probekit.ir.build import compile_program


def test_every_operation_is_either_there_or_named() -> None:
    assert GUEST_OPS.isdisjoint(_NAMES)
    assert GUEST_OPS | _NAMES.keys() | {ops.Call} == set(get_args(ops.Op))


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("trace(strlen(execname));", "the subroutine strlen()"),
        ("self->x = 1;", "the thread-local variable self->x"),
        ('x = "a";', "the string variable x"),
        ("a[1] = 2;", "an associative array"),
        ("trace(*(int *)arg0);", "reading through a pointer"),
        ("trace(stringof((char *)arg0));", "reading a string through a pointer"),
        ("trace(uid);", "the built-in variable uid"),
        ("@ = quantize(arg0, 2);", "an increment of a histogram"),
    ],
)
def test_what_is_missing(body: str, what: str) -> None:
    program = compile_program(f"fbt::f:entry {{ {body} }}")
    assert what in missing(program.clauses[0], program)


def test_what_was_there_before_is_there() -> None:
    program = compile_program("fbt::f:entry /pid == 7/ { x = arg0 * 2; this->y = x; @[execname] = max(this->y); }")
    assert missing(program.clauses[0], program) == []
