"""The nesting that is allowed must also compile, from deep inside another program's stack."""

from __future__ import annotations

import contextlib
import time

import pytest

from probekit.ir.build import compile_program
from probekit.ir.verify import verify_program
from probekit.lang.diagnostics import CompileError
from probekit.lang.parse.parser import MAX_DEPTH

_DEEPEST = MAX_DEPTH - 6


@pytest.mark.parametrize(
    "text",
    [
        "BEGIN { x = " + "arg0 + " * _DEEPEST + "1; }",
        "BEGIN { x = " + "arg0 / (" * _DEEPEST + "1" + ")" * _DEEPEST + "; }",
        "BEGIN { x = " + "!" * _DEEPEST + "arg0; }",
        "BEGIN { x = " + "(char)(short)" * (_DEEPEST // 2) + "arg0; }",
        "BEGIN { x = " + "arg0 ? 1 : " * _DEEPEST + "1; }",
        "BEGIN { x = " + "arg0 && (" * _DEEPEST + "1" + ")" * _DEEPEST + "; }",
        "BEGIN { x = " + "(1, " * _DEEPEST + "1" + ")" * _DEEPEST + "; }",
        "BEGIN { x = 0; " + "if (arg0) " * _DEEPEST + "x = 1; }",
        "BEGIN { x = 0; x = " + "x = " * _DEEPEST + "1; }",
    ],
    ids=range(9),
)
def test_the_deepest_nesting_that_is_allowed_compiles(text: str) -> None:
    def deeper(frames: int) -> None:
        if frames:
            deeper(frames - 1)
        else:
            compile_program(text)

    deeper(200)


def test_nesting_that_is_too_deep_is_refused() -> None:
    with pytest.raises(CompileError, match="levels deep"):
        compile_program("BEGIN { x = " + "arg0 + " * (MAX_DEPTH + 1) + "1; }")


@pytest.mark.parametrize("op", ["||", "&&"])
def test_a_long_chain_is_not_nesting(op: str) -> None:
    chain = f" {op} ".join(f"pid == {n}" for n in range(3000))
    program = compile_program(f"BEGIN /{chain}/ {{ x = {chain}; }}")
    assert verify_program(program) == []


@pytest.mark.parametrize(
    "text",
    [
        "int " + "*" * 20000 + "x;",
        "int x" + "[1]" * 5000 + ";",
        "struct {" * 3000 + "int x;" + "} a;" * 3000,
        "int a[" + "-" * 3000 + "1];",
        "enum e { A = " + "- " * 3000 + "1 };",
        "int f(" * 2000 + "int" + ")" * 2000 + ";",
        "BEGIN { trace(sizeof (char " + "*" * 3000 + ")); }",
        "struct a { int x[100000000]; }; struct a y[20];",
        "inline int a0 = pid;\n"
        + "".join(f"inline int a{k} = a{k - 1} + a{k - 1};\n" for k in range(1, 40))
        + "BEGIN { trace(a39); }",
        "inline int F[int p] = p + p; BEGIN { trace(" + "F[" * 40 + "arg0 + 1" + "]" * 40 + "); }",
        "struct s { int a; }; translator struct s < int v > { a = v + v; }; BEGIN { trace("
        + "(xlate <struct s> (" * 30
        + "arg0 + 1"
        + ")).a" * 30
        + "); }",
    ],
    ids=range(11),
)
def test_declarations_of_any_depth_end_in_time(text: str) -> None:
    begin = time.monotonic()
    with contextlib.suppress(CompileError):
        compile_program(text)
    assert time.monotonic() - begin < 20
